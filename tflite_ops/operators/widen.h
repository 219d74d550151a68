// SPDX-License-Identifier: Apache-2.0
//
// Weights of other types as the kernels of single weights read them.
#ifndef TFREWPRUNE_OPERATORS_WIDEN_H_
#define TFREWPRUNE_OPERATORS_WIDEN_H_

#include "kernels/kernels.h"

namespace tfrewprune {

// to[i] = values[begin + i] for i < count, without their scale, which is left
// to the sums. Not for floats, which kernels read where they lie.
inline void WidenUnscaled(const Kernels& kernels, const Values& values,
                          uint64_t begin, uint64_t count, float* to) {
  if (const Half* halves = values.halves()) {
    kernels.widen(halves + begin, count, to);
    return;
  }
  static constexpr float kOnes[kScales] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                           1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                           1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  kernels.widen_integers(values.integers() + begin, count, kOnes, to);
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_WIDEN_H_
