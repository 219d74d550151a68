// SPDX-License-Identifier: Apache-2.0
#include "kernels/irregular_generic.h"
#include "simd/square_avx512.h"

namespace tfrewprune {

// 32 registers; blocks of more than 16 vectors measured no faster.
//
// What bounds it (Zen 5): two 64-byte loads a cycle, one for every FMA, are the
// floor of half a cycle a vector and weight. Measured are 0.52 and half a cycle
// a weight, and about 2.5 a vector for every segment: that is what 16x costs
// more than 8x, where a segment has half the weights. 7x7 outputs fill 49 of 64
// lanes.
const IrregularKernels* Avx512IrregularKernels() {
  return &kIrregularKernels<SquareAvx512, 16, 40 << 10>;
}

}  // namespace tfrewprune
