// SPDX-License-Identifier: Apache-2.0
#include "kernels/convolution.h"

#include <math.h>

namespace tfrewprune {

const char* CheckPositive(const ConvGeometry& g) {
  if (g.batch < 0 || g.in_h < 1 || g.in_w < 1 || g.in_c < 1 || g.out_h < 0 ||
      g.out_w < 0 || g.kernel_h < 1 || g.kernel_w < 1 || g.stride_h < 1 ||
      g.stride_w < 1 || g.dilation_h < 1 || g.dilation_w < 1 || g.pad_top < 0 ||
      g.pad_left < 0) {
    return "invalid convolution geometry: sizes, strides and dilations must "
           "be positive";
  }
  return nullptr;
}

void KernelRowsInside(const ConvGeometry& g, int y, int* begin, int* end) {
  const int64_t top = int64_t{y} * g.stride_h - g.pad_top;
  // Kernel rows whose first input row is `rows` or more below the top.
  auto rows_above = [&](int64_t rows) {
    const int64_t taps = (rows + g.dilation_h - 1) / g.dilation_h;
    return static_cast<int>(taps < g.kernel_h ? taps : g.kernel_h);
  };
  *begin = top < 0 ? rows_above(-top) : 0;
  *end = top < g.in_h ? rows_above(g.in_h - top) : 0;
  if (*end < *begin) *end = *begin;
}

const char* CheckImages(const ConvGeometry& g, uint32_t rows) {
  constexpr double kMaxImage = (1u << 31) / sizeof(float);
  if (double(g.in_h) * g.in_w * g.in_c > kMaxImage ||
      double(g.out_h) * g.out_w * rows > kMaxImage) {
    return "image too large: input and output of one image must stay below "
           "2 GiB each";
  }
  return nullptr;
}

bool IsPointwise(const ConvGeometry& g) {
  return g.kernel_h == 1 && g.kernel_w == 1 && g.stride_h == 1 &&
         g.stride_w == 1 && g.pad_top == 0 && g.pad_left == 0 &&
         g.out_h == g.in_h && g.out_w == g.in_w;
}

const char* JoinPixels(ConvGeometry* g) {
  if (!IsPointwise(*g)) return nullptr;
  const int64_t pixels = int64_t{g->batch} * g->out_h * g->out_w;
  if (pixels > INT32_MAX) return "too many pixels for one operator";
  g->batch = g->in_h = g->out_h = 1;
  g->in_w = g->out_w = static_cast<int>(pixels);
  return nullptr;
}

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
