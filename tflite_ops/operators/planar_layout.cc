// SPDX-License-Identifier: Apache-2.0
#include "operators/planar_layout.h"

#include "operators/cache_sets.h"

namespace tfrewprune {
namespace {

// Bytes of planes a block may fill: well inside of a second-level cache, with
// room for weights and output; without a halo a first-level cache's worth.
constexpr int64_t kBlockBytes = 384 << 10;
constexpr int64_t kPointwiseBlockBytes = 64 << 10;

// The largest size up to `limit` that cuts `total` into as many parts for every
// thread; a multiple of `unit`.
int64_t FairShare(int64_t total, int64_t limit, int64_t unit, int threads) {
  for (int64_t parts = 1;; ++parts) {
    const int64_t size =
        DivideUp(DivideUp(total, parts * threads), unit) * unit;
    if (size <= limit || size == unit) return Min(size, total);
  }
}

}  // namespace

// Chooses the block, and where a stored row and its phases lie.
const char* PlanarLayout::Prepare(const ConvGeometry& geometry,
                                  int64_t tile_pixels, int unit, int threads) {
  geometry_ = geometry;
  const ConvGeometry& g = geometry_;
  if (!phase_.Allocate(g.stride_w)) return kOutOfMemory;
  for (int p = 0; p < g.stride_w; ++p) phase_[p].reach = -1;
  for (int j = 0; j < g.kernel_w; ++j) {
    const int64_t tap = int64_t{j} * g.dilation_w;
    Phase& phase = phase_[tap % g.stride_w];
    phase.reach = Max(phase.reach, tap / g.stride_w);
  }
  int64_t phases = 0, reach = 0;
  for (int p = 0; p < g.stride_w; ++p) {
    if (phase_[p].reach < 0) continue;
    ++phases;
    reach += phase_[p].reach;
  }
  pack_rows_ = g.kernel_h == 1;
  const int64_t halo_rows = int64_t{g.kernel_h - 1} * g.dilation_h;
  const int64_t row_step = pack_rows_ ? 1 : g.stride_h;
  auto floats = [&](int64_t rows, int64_t pixels) {
    return ((rows - 1) * row_step + halo_rows + 1) * (phases * pixels + reach) *
           g.in_c;
  };
  const bool pointwise = g.kernel_h == 1 && g.kernel_w == 1;
  const int64_t budget =
      (pointwise ? kPointwiseBlockBytes : kBlockBytes) / sizeof(float);
  // Blocks of whole rows; of parts of one row where even that is too much.
  int64_t rows = g.out_h, pixels = g.out_w;
  if (g.out_h == 0 || g.out_w == 0 || g.batch == 0) {
    rows = pixels = 1;
  } else {
    rows =
        Largest(rows, [&](int64_t n) { return floats(n, pixels) <= budget; });
    rows = DivideUp(g.out_h, DivideUp(g.out_h, rows));  // equal blocks
    if (rows == 1 && floats(1, pixels) > budget && pixels > tile_pixels) {
      const int64_t tiles = Largest(
          DivideUp(pixels, tile_pixels),
          [&](int64_t n) { return floats(1, n * tile_pixels) <= budget; });
      pixels = Min(pixels, tiles * tile_pixels);
    }
    if (threads > 1 && g.out_h == 1) {
      pixels = FairShare(g.out_w, pixels, unit, threads);
    } else if (threads > 1) {
      // Small images stay whole where the shares would differ much: all work
      // on the one block then.
      const int64_t share = FairShare(g.out_h, rows, 1, threads);
      const int64_t busiest =
          DivideUp(DivideUp(g.out_h, share), threads) * share * threads;
      if (rows < g.out_h || 20 * busiest <= 21 * g.out_h) rows = share;
    }
  }
  block_rows_ = static_cast<int>(rows);
  block_pixels_ = static_cast<int>(pixels);

  // A stored row starts with its first pixel of the image, at a cache line; the
  // zeros left of it are those that end the row before.
  const bool part_of_row = pixels < g.out_w;
  const auto left = [&](int p) {
    return part_of_row ? 0 : DivideUp(Max(g.pad_left - p, 0), g.stride_w);
  };
  const auto image = [&](int p) {
    const int64_t count = pixels + phase_[p].reach;
    return part_of_row
               ? count
               : Max(Min(count, DivideUp(Max(g.in_w + g.pad_left - p, 0),
                                         g.stride_w)) -
                         left(p),
                     0);
  };
  // As many zeros as any phase reaches past either end of its pixels.
  int64_t border = 0;
  for (int p = 0; p < g.stride_w; ++p) {
    if (phase_[p].reach < 0) continue;
    border = Max(border, left(p));
    border = Max(border, pixels + phase_[p].reach - left(p) - image(p));
  }
  const int64_t align = pixels > 8 ? 16 : 8;
  row_pitch_ = 0;
  int last = 0;
  for (int p = 0; p < g.stride_w; ++p) {
    Phase& phase = phase_[p];
    if (phase.reach < 0) continue;
    last = p;
    phase.plane = row_pitch_ - left(p);
    phase.begin = row_pitch_;
    phase.floats = DivideUp(image(p) + border, align) * align;
    row_pitch_ += phase.floats;
  }
  const int64_t stored_rows = (rows - 1) * row_step + halo_rows + 1;
  // Channels within rows: what a tile reads lies on few pages. Sixteen channels
  // are stored together: to sets of their own.
  if (CacheSets(row_pitch_) < 16) {
    row_pitch_ += 16;
    phase_[last].floats += 16;
  }
  channel_stride_ = row_pitch_;
  row_pitch_ *= g.in_c;
  first_ = DivideUp(border, 16) * 16;
  planes_floats_ =
      DivideUp(first_ + row_pitch_ * stored_rows + 64 + border, 16) * 16;
  if (planes_floats_ > INT32_MAX / int64_t{sizeof(float)}) {
    return "input too large: one row of it must stay below 2 GiB";
  }
  return nullptr;
}

int64_t PlanarLayout::TapOffset(int64_t y, int64_t x) const {
  return first_ + y * row_pitch_ + phase_[x % geometry_.stride_w].plane +
         x / geometry_.stride_w;
}

// Transposes stored rows [begin, end) of a block.
void PlanarLayout::StoreRows(const PlanesBlock& block, const float* input,
                             TransposeKernel transpose, float* planes,
                             int begin, int end) const {
  const ConvGeometry& g = geometry_;
  const bool part_of_row = block_pixels_ < g.out_w;
  const int64_t step = pack_rows_ ? g.stride_h : 1;
  int64_t in_y =
      pack_rows_ ? int64_t{block.y} * step - g.pad_top : InputRow(block);
  in_y += begin * step;
  for (; begin < end && in_y < 0; ++begin) in_y += step;
  const int rows = static_cast<int>(
      Min(end - begin, in_y >= g.in_h ? 0 : DivideUp(g.in_h - in_y, step)));
  if (rows <= 0) return;
  float* first = planes + first_ + begin * row_pitch_;
  if (begin == 0 || in_y < step) {  // no row before it ends in its zeros
    for (int64_t i = 1; i <= first_; ++i) first[-i] = 0.0f;
  }
  for (int p = 0; p < g.stride_w; ++p) {
    if (phase_[p].reach < 0) continue;
    const Span span = StoredPixels(block, p);
    if (part_of_row && span.from == span.to) continue;
    TransposeJob job;
    job.in =
        input + (in_y * g.in_w + span.first + span.from * g.stride_w) * g.in_c;
    job.in_stride = ptrdiff_t{g.stride_w} * g.in_c;
    job.in_row_stride = step * g.in_w * g.in_c;
    job.rows = rows;
    job.pixels = static_cast<int>(span.to - span.from);
    job.zeros =
        part_of_row ? 0 : static_cast<int>(phase_[p].floats) - job.pixels;
    job.channels = g.in_c;
    job.out = first + phase_[p].begin + (part_of_row ? span.from : 0);
    job.plane_stride = channel_stride_;
    job.out_row_stride = row_pitch_;
    transpose(job);
  }
}

PlanarLayout::Span PlanarLayout::StoredPixels(const PlanesBlock& block,
                                              int phase) const {
  const ConvGeometry& g = geometry_;
  Span span;
  // Stored pixel i is input pixel stride * (x + i) + phase - pad.
  span.first = int64_t{block.x} * g.stride_w + phase - g.pad_left;
  span.count = block.x_end - block.x + phase_[phase].reach;
  span.from = Min(span.count, DivideUp(Max(-span.first, 0), g.stride_w));
  span.to =
      Max(span.from,
          Min(span.count, DivideUp(Max(g.in_w - span.first, 0), g.stride_w)));
  return span;
}

// Zeros left and right of the image where blocks are parts of rows: the borders
// move from block to block. (Else the transposition writes them.)
void PlanarLayout::ClearBorders(const PlanesBlock& block, float* planes) const {
  const ConvGeometry& g = geometry_;
  if (block_pixels_ >= g.out_w) return;
  const int rows = StoredRows(block);
  for (int p = 0; p < g.stride_w; ++p) {
    if (phase_[p].reach < 0) continue;
    const Span span = StoredPixels(block, p);
    if (span.from == 0 && span.to == span.count) continue;
    float* out = planes + first_ + phase_[p].plane;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < g.in_c; ++c) {
        float* row = out + c * channel_stride_ + r * row_pitch_;
        for (int64_t i = 0; i < span.from; ++i) row[i] = 0.0f;
        for (int64_t i = span.to; i < span.count; ++i) row[i] = 0.0f;
      }
    }
  }
}

}  // namespace tfrewprune
