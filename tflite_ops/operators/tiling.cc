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
  shapes_ = shapes;
  shape_count_ = count;
  unit_ = unit;
  input_stride_ = input_stride;
  output_stride_ = output_stride;
  tiles_ = segments_ = 0;
  short_length_ = short_last_ = 0;
  tap_begin_ = tap_end_ = part_begin_ = part_end_ = 0;
  down_.waits = false;
  for (int length = 0; length <= kMaxLength; ++length) {
    waiting_[length].segments = waiting_[length].part = 0;
    shape_of_[length] = -1;
    max_segments_[length] = 0;
    cost_[length] = 0;
  }
  for (int i = 0; i < count; ++i) {
    const TileShape& shape = shapes[i];
    if (shape.part > 0 || shape.down > 0) continue;
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

int Tiling::FindShape(int length, int segments, int part, int down) const {
  for (int i = 0; i < shape_count_; ++i) {
    const TileShape& shape = shapes_[i];
    if (shape.length == length && shape.max_segments >= segments &&
        shape.part == part && shape.down == down) {
      return i;
    }
  }
  return -1;
}

bool Tiling::Emit(int slot) {
  Waiting& w = waiting_[slot];
  if (w.segments == 0) return true;
  if (!Grow(&tile_, tiles_, &tile_capacity_)) return false;
  const int length = SlotLength(slot);
  Tile& tile = tile_[tiles_++];
  tile = {};
  tile.segment = static_cast<uint32_t>(segments_);
  tile.segments = static_cast<uint8_t>(w.segments);
  tile.last = static_cast<uint8_t>(slot == 0 ? short_last_ : unit_);
  tile.length = static_cast<uint16_t>((length - 1) * unit_ + tile.last);
  tile.part_begin = part_begin_;
  tile.part_end = part_end_;
  const bool all_part = w.part == w.segments;
  tile.tap_begin = all_part ? part_begin_ : tap_begin_;
  tile.tap_end = all_part ? part_end_ : tap_end_;
  int shape = FindShape(length, w.segments, all_part ? 0 : w.part, 0);
  if (down_.waits && slot != 0 &&
      (all_part || (tap_begin_ == 0 && tap_end_ == down_.taps))) {
    const int units = static_cast<int>((down_.pixels + unit_ - 1) / unit_);
    const int with = FindShape(length, w.segments, w.part, units);
    if (with >= 0) {
      shape = with;
      tile.down = true;
      tile.tap_begin = 0;
      tile.tap_end = down_.taps;
    }
  }
  tile.shape = static_cast<uint16_t>(shape);
  for (int i = 0; i < w.segments; ++i) {
    if (!Grow(&segment_, segments_, &segment_capacity_)) return false;
    segment_[segments_++] = w.segment[i];
  }
  w.segments = w.part = 0;
  return !tile.down || EmitDown(&tile);
}

// The run down a column, as the last segment of `tile`.
bool Tiling::EmitDown(Tile* tile) {
  if (!Grow(&segment_, segments_, &segment_capacity_)) return false;
  segment_[segments_++] = down_.segment;
  tile->down = true;
  tile->down_pixels = static_cast<uint16_t>(down_.pixels);
  tile->down_last = static_cast<uint8_t>((down_.pixels - 1) % unit_ + 1);
  down_.waits = false;
  return true;
}

bool Tiling::EmitAll() {
  for (int slot = kMaxLength; slot >= 0; --slot) {
    if (!Emit(slot)) return false;
  }
  return true;
}

bool Tiling::Flush() {
  if (!EmitAll()) return false;
  if (!down_.waits) return true;
  if (!Grow(&tile_, tiles_, &tile_capacity_)) return false;
  Tile& tile = tile_[tiles_++];
  tile = {};
  tile.segment = static_cast<uint32_t>(segments_);
  tile.shape =
      static_cast<uint16_t>(shape_of_[(down_.pixels + unit_ - 1) / unit_]);
  tile.tap_end = down_.taps;
  return EmitDown(&tile);
}

bool Tiling::AddDown(const Segment& segment, int64_t pixels, int taps) {
  const int64_t units = (pixels + unit_ - 1) / unit_;
  if (units > kMaxLength || shape_of_[units] < 0) return false;
  down_ = {true, segment, pixels, taps};
  return true;
}

// Makes [begin, end) one of the two tap ranges; tells which.
bool Tiling::SetTaps(int begin, int end, bool* part) {
  int waits = 0, part_waits = 0;
  for (const Waiting& w : waiting_) {
    waits += w.segments;
    part_waits += w.part;
  }
  const bool full = begin == tap_begin_ && end == tap_end_;
  *part = !full && part_waits > 0 && begin == part_begin_ && end == part_end_;
  if (full || *part) return true;
  if (waits > 0 && part_waits == 0) {
    if (begin >= tap_begin_ && end <= tap_end_) {
      part_begin_ = begin;
      part_end_ = end;
      *part = true;
      return true;
    }
    if (begin <= tap_begin_ && end >= tap_end_) {
      // Those that wait become the part-time ones.
      part_begin_ = tap_begin_;
      part_end_ = tap_end_;
      tap_begin_ = begin;
      tap_end_ = end;
      for (int slot = 0; slot <= kMaxLength; ++slot) {
        Waiting& w = waiting_[slot];
        if (w.segments == 0) continue;
        w.part = w.segments;
      }
      return true;
    }
  }
  if (!EmitAll()) return false;
  tap_begin_ = begin;
  tap_end_ = end;
  return true;
}

bool Tiling::Append(int slot, const Segment& segment, bool part) {
  Waiting* w = &waiting_[slot];
  const int length = SlotLength(slot);
  const int parts = w->part + part, segments = w->segments + 1;
  if (parts > 0 && parts < segments &&
      FindShape(length, max_segments_[length], parts, 0) < 0 && !Emit(slot)) {
    return false;
  }
  w->segment[w->segments] = segment;
  if (part) {
    w->segment[w->segments] = w->segment[w->part];
    w->segment[w->part++] = segment;
  }
  return ++w->segments < max_segments_[length] || Emit(slot);
}

bool Tiling::Add(const PixelRow& row) {
  bool part;
  if (!SetTaps(row.tap_begin, row.tap_end, &part)) return false;
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
      if (!Append(
              slot,
              {row.input + x * input_stride_, row.output + x * output_stride_},
              part)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace tfrewprune
