// SPDX-License-Identifier: Apache-2.0
#include "kernels/reference.h"

#include "kernels/gemv.h"

namespace tfrewprune {
namespace {

// The input under weight column `column` of output pixel (n, y, x).
double Input(const ConvGeometry& g, const float* input, int n, int y, int x,
             uint32_t column) {
  const int channel = column % g.in_c;
  const int j = column / g.in_c % g.kernel_w;
  const int i = column / g.in_c / g.kernel_w;
  const int in_y = y * g.stride_h - g.pad_top + i * g.dilation_h;
  const int in_x = x * g.stride_w - g.pad_left + j * g.dilation_w;
  if (in_y < 0 || in_y >= g.in_h || in_x < 0 || in_x >= g.in_w) return 0.0;
  return input[((int64_t{n} * g.in_h + in_y) * g.in_w + in_x) * g.in_c +
               channel];
}

}  // namespace

void ReferenceConv2D(const BandedView& weights, const ConvGeometry& g,
                     Activation activation, const float* input,
                     const float* bias, float* output) {
  const int64_t pixels = int64_t{g.batch} * g.out_h * g.out_w;
  for (int64_t p = 0; p < pixels; ++p) {
    const int x = p % g.out_w;
    const int y = p / g.out_w % g.out_h;
    const int n = p / g.out_w / g.out_h;
    float* pixel = output + p * weights.rows;
    for (uint32_t o = 0; o < weights.rows; ++o) {
      pixel[o] = bias == nullptr ? 0.0f : bias[o];
    }
    for (uint32_t b = 0; b < weights.band_count; ++b) {
      for (uint32_t lane = 0; lane < weights.band_rows; ++lane) {
        const uint64_t packed = uint64_t{b} * weights.band_rows + lane;
        const uint32_t row = weights.RowId(packed);
        if (row == weights.rows) continue;  // a lane that carries no row
        const float scale = weights.value.Scale(row);
        double sum = pixel[row];
        for (uint64_t i = weights.band_start[b]; i < weights.band_start[b + 1];
             ++i) {
          sum += Input(g, input, n, y, x, weights.Column(i)) *
                 (weights.value[i * weights.band_rows + lane] * scale);
        }
        pixel[row] = static_cast<float>(sum);
      }
    }
  }
  Activate(activation, output, pixels * weights.rows);
}

void ReferenceAdd(const float* residual, int64_t count, float minimum,
                  float maximum, float* y) {
  for (int64_t i = 0; i < count; ++i) {  // NaN stays NaN
    y[i] += residual[i];
    if (y[i] < minimum) y[i] = minimum;
    if (y[i] > maximum) y[i] = maximum;
  }
}

void ReferenceWiden(const Half* from, uint64_t count, float* to) {
  for (uint64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
}

void ReferenceWidenIntegers(const int8_t* from, uint64_t count,
                            const float* scale, float* to) {
  for (uint64_t i = 0; i < count; ++i) to[i] = from[i] * scale[i % kScales];
}

}  // namespace tfrewprune
