// SPDX-License-Identifier: Apache-2.0
#include "kernels/irregular_generic.h"
#include "simd/square_neon.h"

namespace tfrewprune {

// 32 registers, 16 on ARMv7; inputs need one each, FMAs take none from memory.
#if defined(__aarch64__)
constexpr int kAccumulators = 16;
#else
constexpr int kAccumulators = 8;
#endif

const IrregularKernels* NeonIrregularKernels() {
  return &kIrregularKernels<SquareNeon, kAccumulators, 20 << 10>;
}

}  // namespace tfrewprune
