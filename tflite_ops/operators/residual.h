// SPDX-License-Identifier: Apache-2.0
//
// The other operand of a sum that was fused into a convolution: added to the
// output while that is still in a near cache, then clamped by the activation of
// the sum (the convolution itself has none).
#ifndef TFREWPRUNE_OPERATORS_RESIDUAL_H_
#define TFREWPRUNE_OPERATORS_RESIDUAL_H_

#include "kernels/kernels.h"

namespace tfrewprune {

struct Residual {
  AddKernel add = nullptr;
  float minimum = 0, maximum = 0;
  const float* values =
      nullptr;  // shaped as the output; nullptr: there is none

  // Completes floats [begin, begin + count) of the output.
  void Complete(int64_t begin, int64_t count, float* output) const {
    if (values == nullptr) return;
    add(values + begin, count, minimum, maximum, output + begin);
  }
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_RESIDUAL_H_
