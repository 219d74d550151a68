// SPDX-License-Identifier: Apache-2.0
#include "operators/planes_layout.h"

#include "operators/integers.h"

namespace tfrewprune {
namespace {

// Bytes of planes a block may fill: well inside of a second-level cache, with
// room for weights and output; without taps of neighbours a first-level cache's
// worth.
constexpr int64_t kBlockBytes = 384 << 10;
constexpr int64_t kPointwiseBlockBytes = 64 << 10;
// Whole units are read: past the last pixel that a tap needs.
constexpr int64_t kSlack = 64;

// The size of equal parts, at most `limit` each and as many for every thread.
int64_t EqualParts(int64_t total, int64_t limit, int64_t threads) {
  const int64_t parts = DivideUp(DivideUp(total, limit), threads) * threads;
  return DivideUp(total, parts);
}

// Which of `count` indices, `stride` apart from `first` on, lie in [0, size).
PlanesLayout::Span ImagePart(int64_t first, int64_t stride, int64_t size,
                             int64_t count) {
  PlanesLayout::Span part;
  part.from = Min(count, DivideUp(Max(-first, 0), stride));
  part.to = Max(part.from, Min(count, DivideUp(Max(size - first, 0), stride)));
  return part;
}

}  // namespace

// How many remainders by the stride have taps.
int64_t PlanesLayout::FindPhases(int taps, int dilation, int stride,
                                 Buffer<Phase>* phases) {
  for (int p = 0; p < stride; ++p) (*phases)[p].reach = -1;
  for (int i = 0; i < taps; ++i) {
    const int64_t tap = int64_t{i} * dilation;
    (*phases)[tap % stride].reach = tap / stride;
  }
  int64_t used = 0;
  for (int p = 0; p < stride; ++p) {
    (*phases)[p].index = used;
    if ((*phases)[p].reach >= 0) ++used;
  }
  return used;
}

const char* PlanesLayout::Prepare(const ConvGeometry& geometry,
                                  int64_t run_pixels, int64_t unit,
                                  bool zero_rows, int threads) {
  zero_rows_ = zero_rows;
  geometry_ = geometry;
  const ConvGeometry& g = geometry_;
  if (!phase_y_.Allocate(g.stride_h) || !phase_x_.Allocate(g.stride_w)) {
    return kOutOfMemory;
  }
  parts_down_ = FindPhases(g.kernel_h, g.dilation_h, g.stride_h, &phase_y_);
  parts_across_ = FindPhases(g.kernel_w, g.dilation_w, g.stride_w, &phase_x_);
  reach_ = 0;
  for (int p = 0; p < g.stride_h; ++p) reach_ = Max(reach_, phase_y_[p].reach);
  const char* error = Cut(run_pixels, unit, threads);
  if (threads == 1 || error != nullptr) return error;
  const int64_t busiest =
      DivideUp(blocks(), threads) * block_rows_ * block_pixels_ * threads;
  return kFairShare * static_cast<double>(busiest) <= double(g.out_h) * g.out_w
             ? nullptr
             : Cut(run_pixels, unit, 1);
}

const char* PlanesLayout::Cut(int64_t run_pixels, int64_t unit, int threads) {
  const ConvGeometry& g = geometry_;
  const bool pointwise = g.kernel_h == 1 && g.kernel_w == 1;
  const int64_t budget =
      (pointwise ? kPointwiseBlockBytes : kBlockBytes) / sizeof(float);
  auto floats = [&](int64_t rows, int64_t pixels) {
    return ChannelFloats(rows, pixels) * g.in_c;
  };
  // Blocks of whole rows; of parts of one row where even that is too much.
  int64_t rows = g.out_h, pixels = g.out_w;
  if (g.out_h == 0 || g.out_w == 0 || g.batch == 0) {
    rows = pixels = 1;
  } else {
    rows =
        Largest(rows, [&](int64_t n) { return floats(n, pixels) <= budget; });
    rows = EqualParts(g.out_h, rows, threads);
    const int64_t run = Min(pixels, run_pixels);
    const bool shared = threads > 1 && g.out_h == 1;
    if (rows == 1 && (shared || floats(1, pixels) > budget)) {
      const int64_t limit =
          run * Largest(DivideUp(pixels, run), [&](int64_t n) {
            return floats(1, n * run) <= budget;
          });
      pixels = EqualParts(DivideUp(g.out_w, unit), DivideUp(limit, unit),
                          shared ? threads : 1);
      pixels = Min(g.out_w, pixels * unit);
    }
  }
  block_rows_ = static_cast<int>(rows);
  block_pixels_ = static_cast<int>(pixels);
  pitch_ = Pitch(pixels);
  part_floats_ = PartFloats(rows, pixels);
  channel_stride_ = ChannelFloats(rows, pixels);
  floats_ = DivideUp(channel_stride_ * g.in_c + kSlack, 16) * 16;
  if (floats_ > INT32_MAX / int64_t{sizeof(float)}) {
    return "input too large: one row of it must stay below 2 GiB";
  }
  return nullptr;
}

int64_t PlanesLayout::blocks() const {
  return DivideUp(geometry_.out_h, block_rows_) *
         DivideUp(geometry_.out_w, block_pixels_);
}

int64_t PlanesLayout::Pitch(int64_t pixels) const {
  const ConvGeometry& g = geometry_;
  int64_t pitch = pixels;
  for (int p = 0; p < g.stride_w; ++p) {
    const int64_t reach = phase_x_[p].reach;
    if (reach < 0) continue;
    if (pixels < g.out_w) {  // the pixels right of a block are no zeros
      pitch = Max(pitch, pixels + reach);
      continue;
    }
    const Span span = StoredPixels(0, pixels, p);
    pitch = Max(pitch, Max(span.to, pixels + reach - span.from));
  }
  return pitch;
}

int64_t PlanesLayout::PartFloats(int64_t rows, int64_t pixels) const {
  int64_t left = 0;  // the last row ends in zeros for a row after it
  for (int p = 0; p < geometry_.stride_w; ++p) {
    if (phase_x_[p].reach < 0) continue;
    left = Max(left, StoredPixels(0, pixels, p).from);
  }
  return DivideUp((rows + reach_) * Pitch(pixels) + left, 16) * 16;
}

int64_t PlanesLayout::ChannelFloats(int64_t rows, int64_t pixels) const {
  const int64_t floats = PartFloats(rows, pixels) * parts_down_ * parts_across_;
  // An odd number of cache lines: sixteen channels are stored together, to sets
  // of their own.
  return floats / 16 % 2 == 0 ? floats + 16 : floats;
}

int64_t PlanesLayout::TapOffset(int64_t y, int64_t x) const {
  const int64_t stride_h = geometry_.stride_h, stride_w = geometry_.stride_w;
  return PartOffset(static_cast<int>(y % stride_h),
                    static_cast<int>(x % stride_w)) +
         y / stride_h * pitch_ + x / stride_w;
}

// Stored pixel i of a row is input pixel stride * (x + i) + phase - pad.
PlanesLayout::Span PlanesLayout::StoredPixels(int64_t x, int64_t x_end,
                                              int phase) const {
  const ConvGeometry& g = geometry_;
  const int64_t count = x_end - x + phase_x_[phase].reach;
  return ImagePart(x * g.stride_w + phase - g.pad_left, g.stride_w, g.in_w,
                   count);
}

PlanesLayout::Span PlanesLayout::StoredRows(const PlanesBlock& block,
                                            int phase) const {
  const ConvGeometry& g = geometry_;
  const int64_t count = block.y_end - block.y + phase_y_[phase].reach;
  return ImagePart(int64_t{block.y} * g.stride_h + phase - g.pad_top,
                   g.stride_h, g.in_h, count);
}

void PlanesLayout::StoreRows(const PlanesBlock& block, const float* input,
                             TransposeKernel transpose, float* planes,
                             int share, int shares) const {
  const ConvGeometry& g = geometry_;
  for (int py = 0; py < g.stride_h; ++py) {
    const int64_t reach = phase_y_[py].reach;
    if (reach < 0) continue;
    const int64_t rows = block.y_end - block.y + reach;
    const int64_t begin = rows * share / shares;
    const int64_t end = rows * (share + 1) / shares;
    const Span image = StoredRows(block, py);
    const int64_t from = Min(Max(image.from, begin), end);
    const int64_t to = Min(Max(image.to, from), end);
    // No row before it ends in the zeros left of this one.
    const int64_t first = zero_rows_ ? 0 : image.from;
    const bool has_first = begin <= first && first < end;
    const int64_t first_y =
        int64_t{block.y} * g.stride_h + py - g.pad_top + from * g.stride_h;
    for (int px = 0; px < g.stride_w; ++px) {
      if (phase_x_[px].reach < 0) continue;
      const Span span = StoredPixels(block.x, block.x_end, px);
      const int64_t first_x = int64_t{block.x} * g.stride_w + px - g.pad_left +
                              span.from * g.stride_w;
      float* part = planes + PartOffset(py, px);
      for (int c = 0; has_first && c < g.in_c; ++c) {
        float* row = part + c * channel_stride_ + first * pitch_;
        for (int64_t i = 0; i < span.from; ++i) row[i] = 0.0f;
      }
      TransposeJob job;
      job.in_stride = ptrdiff_t{g.stride_w} * g.in_c;
      job.in_row_stride = ptrdiff_t{g.stride_h} * g.in_w * g.in_c;
      job.channels = g.in_c;
      job.plane_stride = channel_stride_;
      job.out_row_stride = pitch_;
      // Every row with what follows up to the next row's first pixel.
      const auto store = [&](int64_t row, int64_t row_end, bool zeros) {
        if (row == row_end) return;
        job.in = zeros ? input : input + (first_y * g.in_w + first_x) * g.in_c;
        job.rows = static_cast<int>(row_end - row);
        job.pixels = zeros ? 0 : static_cast<int>(span.to - span.from);
        job.zeros = static_cast<int>(pitch_) - job.pixels;
        job.out = part + row * pitch_ + span.from;
        transpose(job);
      };
      const bool empty = span.from == span.to;
      if (zero_rows_) store(begin, from, true);
      store(from, to, empty);
      if (zero_rows_) store(to, end, true);
    }
  }
}

}  // namespace tfrewprune
