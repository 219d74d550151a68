// SPDX-License-Identifier: Apache-2.0
#include "kernels/irregular_generic.h"
#include "simd/square_avx512.h"

namespace tfrewprune {

// 32 registers; blocks of more than 16 vectors measured no faster.
const IrregularKernels* Avx512IrregularKernels() {
  return &kIrregularKernels<SquareAvx512, 16, 40 << 10>;
}

}  // namespace tfrewprune
