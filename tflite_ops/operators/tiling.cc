// SPDX-License-Identifier: Apache-2.0
#include "operators/tiling.h"

namespace tfrewprune {
namespace {

// Rows of up to this many units are cut by exhaustive search; of longer ones
// only the last units.
constexpr int kSearchUnits = 64;

// What a segment costs over its FMAs, in cycles a column.
constexpr double kSegmentCycles = 0.25;

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

}  // namespace

void Tiling::Begin(const TileShape* shapes, int count, int unit,
                   int64_t input_stride, int64_t output_stride) {
  unit_ = unit;
  input_stride_ = input_stride;
  output_stride_ = output_stride;
  tiles_ = segments_ = 0;
  short_length_ = 0;
  for (int length = 0; length <= kMaxLength; ++length) {
    waits_[length] = 0;
    shape_of_[length] = -1;
    max_segments_[length] = 0;
    cost_[length] = 0;
  }
  for (int i = 0; i < count; ++i) {
    const TileShape& shape = shapes[i];
    shape_of_[shape.length] = i;
    max_segments_[shape.length] = shape.max_segments;
    // Besides its columns a tile and a segment cost something; a shape that
    // comes by many segments is seldom full.
    cost_[shape.length] =
        (shape.cycles + 0.5) / shape.max_segments + kSegmentCycles;
  }
}

// The segments of one row: count[length] of each length.
void Tiling::Cut(int64_t units, int64_t* count) const {
  int best = 1;
  for (int length = 1; length <= kMaxLength; ++length) {
    count[length] = 0;
    if (cost_[length] > 0 && cost_[length] / length < cost_[best] / best) {
      best = length;
    }
  }
  if (units > kSearchUnits) {
    count[best] = (units - kSearchUnits + best - 1) / best;
    units -= count[best] * best;
  }
  double total[kSearchUnits + 1];
  int choice[kSearchUnits + 1];
  total[0] = 0;
  for (int u = 1; u <= units; ++u) {
    choice[u] = 0;
    for (int length = 1; length <= kMaxLength && length <= u; ++length) {
      if (cost_[length] <= 0) continue;
      const double with = total[u - length] + cost_[length];
      if (choice[u] == 0 || with < total[u]) {
        total[u] = with;
        choice[u] = length;
      }
    }
  }
  for (int u = static_cast<int>(units); u > 0; u -= choice[u]) {
    ++count[choice[u]];
  }
}

bool Tiling::Emit(int slot) {
  const int n = waits_[slot];
  if (n == 0) return true;
  if (!Grow(&tile_, tiles_, &tile_capacity_)) return false;
  const int length = slot == 0 ? short_length_ : slot;
  Tile& tile = tile_[tiles_++];
  tile.segment = static_cast<uint32_t>(segments_);
  tile.shape = static_cast<uint16_t>(shape_of_[length]);
  tile.segments = static_cast<uint8_t>(n);
  tile.last = static_cast<uint8_t>(slot == 0 ? short_last_ : unit_);
  tile.length = static_cast<uint16_t>((length - 1) * unit_ + tile.last);
  tile.tap_begin = tap_begin_;
  tile.tap_end = tap_end_;
  for (int i = 0; i < n; ++i) {
    if (!Grow(&segment_, segments_, &segment_capacity_)) return false;
    segment_[segments_++] = waiting_[slot][i];
  }
  waits_[slot] = 0;
  return true;
}

bool Tiling::Flush() {
  for (int slot = kMaxLength; slot >= 0; --slot) {
    if (!Emit(slot)) return false;
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
  const int64_t units = (row.pixels + unit_ - 1) / unit_;
  const int last = static_cast<int>(row.pixels - (units - 1) * unit_);
  Cut(units, count);
  int64_t x = 0;
  for (int length = kMaxLength; length >= 1; --length) {
    for (int64_t i = 0; i < count[length]; ++i, x += length * unit_) {
      int slot = length;
      if (last < unit_ && x + length * unit_ > row.pixels) {
        slot = 0;
        if (length != short_length_ || last != short_last_) {
          if (!Emit(0)) return false;
          short_length_ = length;
          short_last_ = last;
        }
      }
      waiting_[slot][waits_[slot]++] = {row.input + x * input_stride_,
                                        row.output + x * output_stride_};
      if (waits_[slot] == max_segments_[length] && !Emit(slot)) return false;
    }
  }
  return true;
}

}  // namespace tfrewprune
