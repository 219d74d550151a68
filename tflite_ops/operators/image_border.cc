// SPDX-License-Identifier: Apache-2.0
#include "operators/image_border.h"

#include <cstring>

#include "operators/integers.h"

namespace tfrewprune {
namespace {

// Borders apart make more and emptier tiles: not worth it for few pixels.
constexpr int64_t kSmallImage = 100;

}  // namespace

void ImageBorder::Prepare(const ConvGeometry& geometry) {
  geometry_ = geometry;
  const ConvGeometry& g = geometry_;
  const int64_t reach_w = int64_t{g.kernel_w - 1} * g.dilation_w + 1;
  const int64_t reach_h = int64_t{g.kernel_h - 1} * g.dilation_h + 1;
  // What the taps of all output pixels reach.
  const int64_t need_w = int64_t{g.out_w - 1} * g.stride_w + reach_w;
  const int64_t need_h = int64_t{g.out_h - 1} * g.stride_h + reach_h;
  inside_ = Min(DivideUp(g.pad_left, g.stride_w), g.out_w);
  const int64_t room = int64_t{g.in_w} + g.pad_left - reach_w;
  inside_end_ = room < 0 ? 0 : Min(room / g.stride_w + 1, g.out_w);
  window_[0] = window_[1] = {};
  if (inside_ > 0) {
    window_[0] = {-int64_t{g.pad_left}, (inside_ - 1) * g.stride_w + reach_w,
                  0};
  }
  if (inside_end_ < g.out_w) {
    const int64_t x = inside_end_ * g.stride_w - g.pad_left;
    window_[1] = {x, need_w - g.pad_left - x, window_[0].width};
  }
  y_ = 0;
  rows_ = g.in_h;
  const bool padded = width() > 0 || g.pad_top > 0 || need_h > g.in_h;
  whole_ = padded && (inside_ >= inside_end_ || 2 * width() > need_w ||
                      int64_t{g.out_h} * g.out_w < kSmallImage);
  if (!whole_) return;
  inside_ = 0;
  inside_end_ = g.out_w;
  window_[0] = {-int64_t{g.pad_left}, need_w, 0};
  window_[1] = {};
  y_ = -int64_t{g.pad_top};
  rows_ = need_h;
}

int64_t ImageBorder::FirstTap(int64_t y, int64_t x) const {
  const ConvGeometry& g = geometry_;
  const Window& window = window_[whole_ || x < inside_ ? 0 : 1];
  return (y * g.stride_h - g.pad_top - y_) * width() + x * g.stride_w -
         g.pad_left - window.x + window.at;
}

void ImageBorder::CopyRows(const float* input, int64_t begin, int64_t end,
                           float* to) const {
  const ConvGeometry& g = geometry_;
  const size_t pixel = g.in_c * sizeof(float);
  to += begin * width() * g.in_c;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t y = y_ + row;
    const bool inside = y >= 0 && y < g.in_h;
    for (const Window& window : window_) {
      int64_t from = window.width, stop = window.width;
      if (inside) {
        from = Min(Max(-window.x, 0), window.width);
        stop = Max(from, Min(g.in_w - window.x, window.width));
      }
      memset(to, 0, from * pixel);
      if (stop > from) {
        memcpy(to + from * g.in_c,
               input + (y * g.in_w + window.x + from) * g.in_c,
               (stop - from) * pixel);
      }
      memset(to + stop * g.in_c, 0, (window.width - stop) * pixel);
      to += window.width * g.in_c;
    }
  }
}

}  // namespace tfrewprune
