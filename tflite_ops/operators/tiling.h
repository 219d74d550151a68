// SPDX-License-Identifier: Apache-2.0
//
// Cuts rows of output pixels into the tiles of the kernels at hand.
#ifndef TFREWPRUNE_OPERATORS_TILING_H_
#define TFREWPRUNE_OPERATORS_TILING_H_

#include "kernels/band.h"
#include "operators/buffer.h"

namespace tfrewprune {

// A tile the kernels offer: up to `max_segments` segments of `length` units,
// which take `cycles` a column when all are there.
struct TileShape {
  int length;
  int max_segments;
  double cycles;
};

// Some output pixels next to each other. Only rows with the same taps share a
// tile.
struct PixelRow {
  int64_t input, output;  // of the first pixel, floats from the bases
  int64_t pixels;
  int tap_begin, tap_end;  // kernel rows that lie inside of the image
};

struct Tile {
  uint32_t segment;  // first of its segments
  uint16_t shape;    // index into the shapes
  uint8_t segments;
  uint8_t last;     // pixels of the last unit of every segment
  uint16_t length;  // pixels of a segment
  int32_t tap_begin, tap_end;
};

class Tiling {
 public:
  static constexpr int kMaxLength = 16;    // units of a segment
  static constexpr int kMaxSegments = 16;  // of a tile

  // Starts anew. `unit` pixels make a unit; strides are floats from pixel to
  // pixel. One shape must have length 1.
  void Begin(const TileShape* shapes, int count, int unit, int64_t input_stride,
             int64_t output_stride);

  // Adds pixels. The row is cut into segments of the cheapest lengths; they
  // wait until a tile of their length is full, so that the rows of narrow maps
  // fill the registers as well as those of wide ones. False when memory is out.
  bool Add(const PixelRow& row);

  // Makes tiles of all that wait: call it after the last row, and where tiles
  // must not reach across.
  bool Flush();

  int tiles() const { return static_cast<int>(tiles_); }
  const Tile& tile(int i) const { return tile_[i]; }
  const Segment* segments(const Tile& tile) const {
    return segment_.get() + tile.segment;
  }

 private:
  void Cut(int64_t units, int64_t* count) const;
  bool Emit(int slot);

  int shape_of_[kMaxLength + 1];
  int max_segments_[kMaxLength + 1];
  double cost_[kMaxLength + 1];  // cycles a column and segment, 0 = no shape
  int unit_ = 1;
  int64_t input_stride_ = 0, output_stride_ = 0;

  // What waits: segments of one tap range; those that end in a short unit wait
  // apart, in slot 0.
  int tap_begin_ = 0, tap_end_ = 0;
  Segment waiting_[kMaxLength + 1][kMaxSegments];
  int waits_[kMaxLength + 1];
  int short_length_ = 0, short_last_ = 0;

  uint64_t tiles_ = 0, segments_ = 0;
  Buffer<Tile> tile_;
  Buffer<Segment> segment_;
  uint64_t tile_capacity_ = 0, segment_capacity_ = 0;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_TILING_H_
