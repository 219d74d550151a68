// SPDX-License-Identifier: Apache-2.0
#include "simd/vec_avx2.h"
#define TFREWPRUNE_KERNELS_AVX2
#define TFREWPRUNE_ISA_VALUE Isa::kAvx2
#define TFREWPRUNE_ISA_VECTOR F32x8Avx2
#define TFREWPRUNE_PLANES_TABLE nullptr, nullptr, nullptr, 0
#include "kernels/instantiate.h"

namespace tfrewprune {

const Kernels* Avx2Kernels() { return &kKernels; }

}  // namespace tfrewprune
