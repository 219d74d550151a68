// SPDX-License-Identifier: Apache-2.0
#include "simd/vec_neon.h"
#if defined(__aarch64__)
#include "kernels/gemv_neon64.h"
#include "kernels/tile_neon64.h"
#endif
#define TFREWPRUNE_KERNELS_NEON
#define TFREWPRUNE_ISA_VALUE Isa::kNeon
#define TFREWPRUNE_ISA_VECTOR F32x4Neon
#define TFREWPRUNE_PLANES_TABLE nullptr, nullptr, nullptr, 0
#include "kernels/instantiate.h"

namespace tfrewprune {

const Kernels* NeonKernels() { return &kKernels; }

}  // namespace tfrewprune
