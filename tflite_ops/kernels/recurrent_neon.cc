// SPDX-License-Identifier: Apache-2.0
#include "kernels/recurrent_generic.h"
#include "simd/vec_neon.h"

namespace tfrewprune {

const CellKernels* NeonCellKernels() { return &kCellKernels<F32x4Neon>; }

}  // namespace tfrewprune
