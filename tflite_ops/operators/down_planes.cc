// SPDX-License-Identifier: Apache-2.0
#include "operators/down_planes.h"

#include "operators/cache_sets.h"
#include "operators/integers.h"

namespace tfrewprune {

const char* DownPlanes::Prepare(const ConvGeometry& geometry, int x) {
  geometry_ = geometry;
  const ConvGeometry& g = geometry_;
  const int64_t stride = g.stride_h;
  Buffer<int64_t> reach;  // of a remainder: rows below the output's, -1 = none
  if (!reach.Allocate(stride) || !slot_.Allocate(g.kernel_w * stride)) {
    return kOutOfMemory;
  }
  for (int64_t p = 0; p < stride; ++p) reach[p] = -1;
  for (int i = 0; i < g.kernel_h; ++i) {
    const int64_t tap = int64_t{i} * g.dilation_h;
    reach[tap % stride] = Max(reach[tap % stride], tap / stride);
  }
  // Stored row i of a remainder p is input row stride * i + p - pad.
  const auto lead = [&](int64_t p) {
    return DivideUp(Max(g.pad_top - p, 0), stride);
  };
  const auto image = [&](int64_t p) {
    const int64_t end = DivideUp(Max(g.in_h + g.pad_top - p, 0), stride);
    return Max(Min(g.out_h + reach[p], end) - lead(p), 0);
  };
  // As many zeros as any remainder reaches past either end of its pixels.
  int64_t border = 0;
  for (int64_t p = 0; p < stride; ++p) {
    if (reach[p] < 0) continue;
    border = Max(border, lead(p));
    border = Max(border, g.out_h + reach[p] - lead(p) - image(p));
  }

  channel_stride_ = 0;
  Slot* last = nullptr;
  for (int j = 0; j < g.kernel_w; ++j) {
    const int64_t column =
        int64_t{x} * g.stride_w - g.pad_left + int64_t{j} * g.dilation_w;
    const bool inside = column >= 0 && column < g.in_w;
    for (int64_t p = 0; p < stride; ++p) {
      if (reach[p] < 0) continue;
      Slot& slot = slot_[j * stride + p];
      slot.lead = lead(p);
      slot.pixels = inside ? image(p) : 0;
      slot.input =
          ((slot.lead * stride + p - g.pad_top) * g.in_w + column) * g.in_c;
      slot.begin = channel_stride_;
      slot.floats = DivideUp(image(p) + border, 8) * 8;
      channel_stride_ += slot.floats;
      last = &slot;
    }
  }
  if (CacheSets(channel_stride_) < 16) {
    channel_stride_ += 8;
    last->floats += 8;
  }
  first_ = DivideUp(border, 16) * 16;
  // The last unit reads past its pixels.
  floats_ = DivideUp(first_ + channel_stride_ * g.in_c + border + 16, 16) * 16;
  return nullptr;
}

int64_t DownPlanes::TapOffset(int kernel_y, int kernel_x) const {
  const int64_t stride = geometry_.stride_h;
  const int64_t tap = int64_t{kernel_y} * geometry_.dilation_h;
  const Slot& slot = slot_[kernel_x * stride + tap % stride];
  return first_ + slot.begin - slot.lead + tap / stride;
}

void DownPlanes::Store(const float* input, TransposeKernel transpose,
                       float* planes) const {
  const ConvGeometry& g = geometry_;
  float* first = planes + first_;
  for (int64_t i = 1; i <= first_; ++i) first[-i] = 0.0f;
  const int64_t slots = int64_t{g.kernel_w} * g.stride_h;
  for (int64_t i = 0; i < slots;) {
    const Slot& slot = slot_[i++];
    if (slot.floats == 0) continue;
    TransposeJob job = {};
    job.in = slot.pixels > 0 ? input + slot.input : input;
    job.in_stride = ptrdiff_t{g.stride_h} * g.in_w * g.in_c;
    job.rows = 1;
    job.pixels = static_cast<int>(slot.pixels);
    int64_t floats = slot.floats;
    // Slots of zeros go along.
    for (; i < slots && slot_[i].pixels == 0; ++i) floats += slot_[i].floats;
    job.zeros = static_cast<int>(floats) - job.pixels;
    job.channels = g.in_c;
    job.out = first + slot.begin;
    job.plane_stride = channel_stride_;
    transpose(job);
  }
}

}  // namespace tfrewprune
