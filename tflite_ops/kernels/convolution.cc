// SPDX-License-Identifier: Apache-2.0
#include "kernels/convolution.h"

#include <math.h>

namespace tfrewprune {

void ActivationRange(Activation activation, float* minimum, float* maximum) {
  *minimum = -INFINITY;
  *maximum = INFINITY;
  if (activation == Activation::kRelu) *minimum = 0.0f;
  if (activation == Activation::kReluN1To1) *minimum = -1.0f, *maximum = 1.0f;
  if (activation == Activation::kRelu6) *minimum = 0.0f, *maximum = 6.0f;
}

bool NeedsPostPass(Activation activation) {
  return activation == Activation::kTanh || activation == Activation::kSignBit;
}

void Activate(Activation activation, float* values, int64_t count) {
  if (activation == Activation::kTanh) {
    for (int64_t i = 0; i < count; ++i) values[i] = tanhf(values[i]);
  } else if (activation == Activation::kSignBit) {
    // TFLite: 1 where the sign bit is set (also for -0), else 0.
    for (int64_t i = 0; i < count; ++i) {
      values[i] = __builtin_signbit(values[i]) ? 1.0f : 0.0f;
    }
  } else {
    float minimum, maximum;
    ActivationRange(activation, &minimum, &maximum);
    for (int64_t i = 0; i < count; ++i) {  // NaN stays NaN
      if (values[i] < minimum) values[i] = minimum;
      if (values[i] > maximum) values[i] = maximum;
    }
  }
}

}  // namespace tfrewprune
