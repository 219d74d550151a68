// SPDX-License-Identifier: Apache-2.0
#include "kernels/irregular_generic.h"
#include "simd/square_avx2.h"

namespace tfrewprune {

// 16 registers: 12 accumulators and the weight.
const IrregularKernels* Avx2IrregularKernels() {
  return &kIrregularKernels<SquareAvx2, 12, 20 << 10>;
}

}  // namespace tfrewprune
