// SPDX-License-Identifier: Apache-2.0
#include "simd/vec_neon.h"
#define TFREWPRUNE_KERNELS_NEON
#define TFREWPRUNE_ISA_VALUE Isa::kNeon
#define TFREWPRUNE_ISA_LANES 4
#include "kernels/instantiate.h"

namespace tfrewprune {

const Kernels* NeonKernels() { return &kKernels; }

}  // namespace tfrewprune
