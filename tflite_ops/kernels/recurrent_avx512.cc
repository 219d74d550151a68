// SPDX-License-Identifier: Apache-2.0
#include "kernels/recurrent_generic.h"
#include "simd/vec_avx512.h"

namespace tfrewprune {

const CellKernels* Avx512CellKernels() { return &kCellKernels<F32x16Avx512>; }

}  // namespace tfrewprune
