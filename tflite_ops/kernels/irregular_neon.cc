// SPDX-License-Identifier: Apache-2.0
#include "kernels/irregular_generic.h"
#include "simd/square_neon.h"

namespace tfrewprune {

// 32 registers; inputs need one each, FMAs take none from memory.
const IrregularKernels* NeonIrregularKernels() {
  return &kIrregularKernels<SquareNeon, 16, 20 << 10>;
}

}  // namespace tfrewprune
