// SPDX-License-Identifier: Apache-2.0
#include "kernels/flat_avx512.h"
#include "kernels/planes_avx512.h"
#include "simd/vec_avx512.h"
#define TFREWPRUNE_KERNELS_AVX512
#define TFREWPRUNE_ISA_VALUE Isa::kAvx512
#define TFREWPRUNE_ISA_VECTOR F32x16Avx512
#define TFREWPRUNE_PLANES_TABLE \
  TransposePlanesAvx512, PlaneOffsetsAvx512, kFlatAvx512, kFlatAvx512Count
#include "kernels/instantiate.h"

namespace tfrewprune {

const Kernels* Avx512Kernels() { return &kKernels; }

}  // namespace tfrewprune
