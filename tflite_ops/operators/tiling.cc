// SPDX-License-Identifier: Apache-2.0
#include "operators/tiling.h"

#include "operators/integers.h"

namespace tfrewprune {
namespace {

// Rows of up to this many pixels are cut by exhaustive search; of longer ones
// only the last pixels.
constexpr int kSearchPixels = 64;

// What a tile, and a segment, cost over their FMAs, in cycles a column; a shape
// that comes by many segments is seldom full.
constexpr double kTileCycles = 0.5, kSegmentCycles = 0.25;

template <class T>
bool Grow(Buffer<T>* buffer, uint64_t used, uint64_t* capacity) {
  if (used < *capacity) return true;
  const uint64_t wanted = *capacity < 64 ? 64 : *capacity * 2;
  Buffer<T> larger;
  if (!larger.Allocate(wanted)) return false;
  if (used > 0) memcpy(larger.get(), buffer->get(), used * sizeof(T));
  buffer->Swap(&larger);
  *capacity = wanted;
  return true;
}

// Of a tile of a kernel's length; 0: not even one fits.
int64_t MostSegments(const DirectKernelRow& row, uint32_t band_rows,
                     int64_t most_pixels) {
  return row.band_rows == static_cast<int>(band_rows)
             ? Min(row.max_segments, most_pixels / row.length)
             : 0;
}

}  // namespace

// Two loads a cycle; a chain of dependent FMAs takes four cycles.
double ColumnCycles(const BandFmas& fmas, double pixels, double waits) {
  double cycles = pixels * fmas.vectors / fmas.fmas_a_cycle;
  const double loads = 0.5 * (pixels + fmas.vectors + 1) + waits;
  if (cycles < loads) cycles = loads;
  return cycles < 4.0 ? 4.0 : cycles;
}

int64_t TilePixels(const Kernels& kernels, uint32_t band_rows,
                   int64_t most_pixels) {
  int64_t pixels = 0;
  for (int i = 0; i < kernels.direct_count; ++i) {
    const DirectKernelRow& row = kernels.direct[i];
    pixels =
        Max(pixels, row.length * MostSegments(row, band_rows, most_pixels));
  }
  return pixels;
}

const char* Tiling::Begin(const Kernels& kernels, uint32_t band_rows,
                          int64_t most_pixels, int64_t input_stride,
                          int64_t output_stride) {
  input_stride_ = input_stride;
  output_stride_ = output_stride;
  tiles_ = segments_ = 0;
  tap_begin_ = tap_end_ = 0;
  for (Shape& shape : shape_) shape = {};
  // Relative to each other, whatever the CPU.
  const double vectors = static_cast<double>(
      Max(1, band_rows / static_cast<uint32_t>(kernels.lanes)));
  for (int i = 0; i < kernels.direct_count; ++i) {
    const DirectKernelRow& row = kernels.direct[i];
    const int64_t segments = MostSegments(row, band_rows, most_pixels);
    if (segments == 0) continue;
    Shape& shape = shape_[row.length];
    shape.kernel = row.kernel;
    shape.most_segments = static_cast<int>(segments);
    const double tile = ColumnCycles(
        {vectors, 2}, static_cast<double>(row.length * segments), 0);
    shape.cycles =
        (tile + kTileCycles) / static_cast<double>(segments) + kSegmentCycles;
  }
  return shape_[1].kernel != nullptr
             ? nullptr
             : "no kernel for this band height: expected 4, 8, 16 or 32 rows";
}

// The segments of one row: count[length] of each length.
void Tiling::Cut(int64_t pixels, int64_t* count) const {
  int best = 1;
  for (int length = 1; length <= kMaxLength; ++length) {
    count[length] = 0;
    if (shape_[length].kernel != nullptr &&
        shape_[length].cycles / length < shape_[best].cycles / best) {
      best = length;
    }
  }
  if (pixels > kSearchPixels) {
    count[best] = DivideUp(pixels - kSearchPixels, best);
    pixels -= count[best] * best;
  }
  double total[kSearchPixels + 1];
  int choice[kSearchPixels + 1];
  total[0] = 0;
  for (int p = 1; p <= pixels; ++p) {
    choice[p] = 0;
    for (int length = 1; length <= kMaxLength && length <= p; ++length) {
      if (shape_[length].kernel == nullptr) continue;
      const double with = total[p - length] + shape_[length].cycles;
      if (choice[p] == 0 || with < total[p]) {
        total[p] = with;
        choice[p] = length;
      }
    }
  }
  for (int64_t p = pixels; p > 0; p -= choice[p]) ++count[choice[p]];
}

bool Tiling::Emit(int length) {
  Shape& shape = shape_[length];
  const int waiting = shape.waiting;
  if (waiting == 0) return true;
  if (!Grow(&tile_, tiles_, &tile_capacity_)) return false;
  tile_[tiles_++] = {
      static_cast<uint32_t>(segments_), static_cast<uint16_t>(waiting),
      static_cast<uint16_t>(length),    static_cast<uint32_t>(tap_begin_),
      static_cast<uint32_t>(tap_end_),  shape.kernel[waiting - 1]};
  for (int i = 0; i < waiting; ++i) {
    if (!Grow(&segment_, segments_, &segment_capacity_)) return false;
    segment_[segments_++] = shape.segment[i];
  }
  shape.waiting = 0;
  return true;
}

bool Tiling::Flush() {
  for (int length = kMaxLength; length >= 1; --length) {
    if (!Emit(length)) return false;
  }
  return true;
}

bool Tiling::Add(const PixelRow& row) {
  if (row.tap_begin != tap_begin_ || row.tap_end != tap_end_) {
    if (!Flush()) return false;
    tap_begin_ = row.tap_begin;
    tap_end_ = row.tap_end;
  }
  int64_t count[kMaxLength + 1];
  Cut(row.pixels, count);
  int64_t x = 0;
  for (int length = kMaxLength; length >= 1; --length) {
    Shape& shape = shape_[length];
    for (int64_t i = 0; i < count[length]; ++i, x += length) {
      shape.segment[shape.waiting++] = {row.input + x * input_stride_,
                                        row.output + x * output_stride_};
      if (shape.waiting == shape.most_segments && !Emit(length)) return false;
    }
  }
  return true;
}

}  // namespace tfrewprune
