// SPDX-License-Identifier: Apache-2.0
#include "simd/vec_avx512.h"
#define TFREWPRUNE_KERNELS_AVX512
#define TFREWPRUNE_ISA_VALUE Isa::kAvx512
#define TFREWPRUNE_ISA_LANES 16
#include "kernels/instantiate.h"

namespace tfrewprune {

const Kernels* Avx512Kernels() { return &kKernels; }

}  // namespace tfrewprune
