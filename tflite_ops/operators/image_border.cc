// SPDX-License-Identifier: Apache-2.0
#include "operators/image_border.h"

#include <cstring>

#include "operators/integers.h"

namespace tfrewprune {
namespace {

// Borders apart make more and emptier tiles: not worth it for few pixels.
constexpr int64_t kSmallImage = 100;

}  // namespace

void ImageBorder::Prepare(const ConvGeometry& geometry, bool whole) {
  geometry_ = geometry;
  const ConvGeometry& g = geometry_;
  const int64_t reach_w = int64_t{g.kernel_w - 1} * g.dilation_w + 1;
  // What the taps of all output columns reach.
  const int64_t need_w = int64_t{g.out_w - 1} * g.stride_w + reach_w;
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
  whole_ = whole ||
           (width() > 0 && (inside_ >= inside_end_ || 2 * width() > need_w ||
                            int64_t{g.out_h} * g.out_w < kSmallImage));
  if (!whole_) return;
  inside_ = 0;
  inside_end_ = g.out_w;
  window_[0] = {-int64_t{g.pad_left}, need_w, 0};
  window_[1] = {};
}

int64_t ImageBorder::FirstTap(int64_t y, int64_t x) const {
  const ConvGeometry& g = geometry_;
  const Window& window = window_[whole_ || x < inside_ ? 0 : 1];
  return (y * g.stride_h - g.pad_top) * width() + x * g.stride_w - g.pad_left -
         window.x + window.at;
}

void ImageBorder::CopyRows(const float* input, int64_t begin, int64_t end,
                           float* to) const {
  Copy(
      input, begin, end,
      [](const float* from, int64_t count, float* to) {
        memcpy(to, from, count * sizeof(float));
      },
      to);
}

void ImageBorder::CopyRows(const float* input, int64_t begin, int64_t end,
                           NarrowKernel narrow, Half* to) const {
  Copy(input, begin, end, narrow, to);
}

template <class T, class Function>
void ImageBorder::Copy(const float* input, int64_t begin, int64_t end,
                       Function copy, T* to) const {
  const ConvGeometry& g = geometry_;
  const size_t pixel = g.in_c * sizeof(T);
  to += begin * width() * g.in_c;
  for (int64_t y = begin; y < end; ++y) {
    for (const Window& window : window_) {
      const int64_t from = Min(Max(-window.x, 0), window.width);
      const int64_t stop = Max(from, Min(g.in_w - window.x, window.width));
      memset(to, 0, from * pixel);
      if (stop > from) {
        copy(input + (y * g.in_w + window.x + from) * g.in_c,
             (stop - from) * g.in_c, to + from * g.in_c);
      }
      memset(to + stop * g.in_c, 0, (window.width - stop) * pixel);
      to += window.width * g.in_c;
    }
  }
}

}  // namespace tfrewprune
