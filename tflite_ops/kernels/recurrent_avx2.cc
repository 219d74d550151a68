// SPDX-License-Identifier: Apache-2.0
#include "kernels/recurrent_generic.h"
#include "simd/vec_avx2.h"

namespace tfrewprune {

const CellKernels* Avx2CellKernels() { return &kCellKernels<F32x8Avx2>; }

}  // namespace tfrewprune
