// SPDX-License-Identifier: Apache-2.0
#include "kernels/irregular_reference.h"

namespace tfrewprune {
namespace {

// What segment s adds to output pixel (n, y, x).
double Segment(const IrregularView& w, const ConvGeometry& g, uint32_t s,
               const float* input, int n, int y, int x) {
  const float scale = w.value.Scale(w.RowId(s));
  double sum = 0.0;
  for (uint32_t i = w.segment_start[s]; i < w.segment_start[s + 1]; ++i) {
    const uint32_t column = w.Column(i);
    const int tap = static_cast<int>(column % w.taps);
    const int in_y =
        y * g.stride_h - g.pad_top + tap / g.kernel_w * g.dilation_h;
    const int in_x =
        x * g.stride_w - g.pad_left + tap % g.kernel_w * g.dilation_w;
    if (in_y < 0 || in_y >= g.in_h || in_x < 0 || in_x >= g.in_w) continue;
    const int64_t pixel = (int64_t{n} * g.in_h + in_y) * g.in_w + in_x;
    sum +=
        double{input[pixel * g.in_c + column / w.taps]} * (w.value[i] * scale);
  }
  return sum;
}

}  // namespace

void ReferenceIrregularConv2D(const IrregularView& w, const ConvGeometry& g,
                              Activation activation, const float* input,
                              const float* bias, float* output) {
  const int64_t pixels = int64_t{g.batch} * g.out_h * g.out_w;
  for (int64_t p = 0; p < pixels; ++p) {
    const int x = static_cast<int>(p % g.out_w);
    const int y = static_cast<int>(p / g.out_w % g.out_h);
    const int n = static_cast<int>(p / g.out_w / g.out_h);
    float* pixel = output + p * w.rows;
    for (uint32_t o = 0; o < w.rows; ++o) {
      pixel[o] = bias == nullptr ? 0.0f : bias[o];
    }
    for (uint32_t s = 0; s < w.segment_count; ++s) {
      float* sum = pixel + w.RowId(s);
      *sum = static_cast<float>(*sum + Segment(w, g, s, input, n, y, x));
    }
  }
  Activate(activation, output, pixels * w.rows);
}

}  // namespace tfrewprune
