// SPDX-License-Identifier: Apache-2.0
#include "operators/tiling.h"

namespace tfrewprune {
namespace {

constexpr int kMaxLength = 8;     // of a segment, over all kernels
constexpr int kMaxSegments = 16;  // of a tile
// Rows up to this width are cut by exhaustive search; of longer ones only the
// last pixels.
constexpr int kSearchWidth = 64;

// Cycles a column for one segment of a full tile: two FMAs and two loads a
// cycle, a chain of dependent FMAs takes four.
double SegmentCost(const Kernels& kernels, const BandKernelRow& row) {
  const double vectors =
      row.band_rows > kernels.lanes
          ? static_cast<double>(row.band_rows) / kernels.lanes
          : 1.0;
  const double pixels = row.length * row.max_segments;
  double cycles = 0.5 * pixels * vectors;
  const double loads = 0.5 * (pixels + vectors);
  if (cycles < loads) cycles = loads;
  if (cycles < 4.0) cycles = 4.0;
  return (cycles + 0.5) / row.max_segments;
}

// The segments of one row: count[length] of each length.
void CutRow(int64_t width, const double* cost, int64_t* count) {
  int best = 1;
  for (int length = 1; length <= kMaxLength; ++length) {
    count[length] = 0;
    if (cost[length] > 0 &&
        cost[length] / length < cost[best] / best) {
      best = length;
    }
  }
  if (width > kSearchWidth) {
    count[best] = (width - kSearchWidth) / best;
    width -= count[best] * best;
  }
  double total[kSearchWidth + kMaxLength + 1];
  int choice[kSearchWidth + kMaxLength + 1];
  total[0] = 0;
  for (int w = 1; w <= width; ++w) {
    choice[w] = 0;
    for (int length = 1; length <= kMaxLength && length <= w; ++length) {
      if (cost[length] <= 0) continue;
      const double with = total[w - length] + cost[length];
      if (choice[w] == 0 || with < total[w]) {
        total[w] = with;
        choice[w] = length;
      }
    }
  }
  for (int w = static_cast<int>(width); w > 0; w -= choice[w]) {
    ++count[choice[w]];
  }
}

}  // namespace

const char* Tiling::Prepare(const Kernels& kernels, int band_rows,
                            const PixelGrid& grid) {
  const BandKernelRow* row_of[kMaxLength + 1] = {};
  double cost[kMaxLength + 1] = {};
  for (int i = 0; i < kernels.band_count; ++i) {
    const BandKernelRow& row = kernels.band[i];
    if (row.band_rows != band_rows) continue;
    row_of[row.length] = &row;
    cost[row.length] = SegmentCost(kernels, row);
  }
  if (row_of[1] == nullptr) {
    return "no kernel for this band height: expected 4, 8, 16 or 32 rows";
  }
  int64_t count[kMaxLength + 1];
  CutRow(grid.width, cost, count);
  uint64_t row_segments = 0;
  for (int length = 1; length <= kMaxLength; ++length) {
    row_segments += count[length];
  }
  const uint64_t segments = row_segments * grid.rows;
  if (segments > INT32_MAX) return "too many output pixels for one operator";
  if (!segment_.Allocate(segments) || !tile_.Allocate(segments)) {
    return kOutOfMemory;
  }

  // Segments wait here until their tile is full.
  Segment waiting[kMaxLength + 1][kMaxSegments];
  int waits[kMaxLength + 1] = {};
  uint32_t next_segment = 0;
  tiles_ = 0;
  auto emit = [&](int length) {
    const int n = waits[length];
    if (n == 0) return;
    tile_[tiles_++] = {row_of[length]->kernel[n - 1], next_segment,
                       static_cast<uint16_t>(n),
                       static_cast<uint16_t>(length)};
    for (int i = 0; i < n; ++i) segment_[next_segment++] = waiting[length][i];
    waits[length] = 0;
  };
  for (int64_t r = 0; r < grid.rows; ++r) {
    int64_t x = 0;
    for (int length = kMaxLength; length >= 1; --length) {
      for (int64_t i = 0; i < count[length]; ++i, x += length) {
        waiting[length][waits[length]++] = {
            r * grid.input_row_stride + x * grid.input_pixel_stride,
            r * grid.output_row_stride + x * grid.output_pixel_stride};
        if (waits[length] == row_of[length]->max_segments) emit(length);
      }
    }
  }
  for (int length = kMaxLength; length >= 1; --length) emit(length);
  return nullptr;
}

}  // namespace tfrewprune
