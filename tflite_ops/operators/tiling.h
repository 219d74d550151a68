// SPDX-License-Identifier: Apache-2.0
//
// Cuts rows of output pixels into the tiles of the kernels at hand.
#ifndef TFREWPRUNE_OPERATORS_TILING_H_
#define TFREWPRUNE_OPERATORS_TILING_H_

#include "kernels/direct.h"
#include "operators/buffer.h"

namespace tfrewprune {

// A tile the kernels offer: up to `max_segments` segments of `length` units,
// which take `cycles` a column when all are there. `part` of them may lack some
// kernel rows that the others read; a run of `down` units may go with them.
struct TileShape {
  int length;
  int max_segments;
  double cycles;
  int part = 0, down = 0;
};

// Some output pixels next to each other. Only rows with the same taps share a
// tile, but for a few part-time segments.
struct PixelRow {
  int64_t input, output;  // of the first pixel, floats from the bases
  int64_t pixels;
  int tap_begin, tap_end;  // kernel rows that lie inside of the image
};

struct Tile {
  uint32_t segment;  // first of its segments
  uint16_t shape;    // index into the shapes
  uint8_t segments;  // along rows, all of one length; 0 = there is only the
  bool down;         // run down a column, which follows them
  uint8_t last;      // pixels of the last unit of every segment
  uint8_t down_last;
  uint16_t length;  // pixels of a segment
  uint16_t down_pixels;
  int32_t tap_begin, tap_end;
  int32_t part_begin, part_end;  // of the part-time segments
};

class Tiling {
 public:
  static constexpr int kMaxLength = 16;    // units of a segment
  static constexpr int kMaxSegments = 16;  // of a tile

  // Starts anew; the shapes are read until the last tile. `unit` pixels make a
  // unit; strides are floats from pixel to pixel. One shape must have length 1.
  void Begin(const TileShape* shapes, int count, int unit, int64_t input_stride,
             int64_t output_stride);

  // Other strides from here on; nothing may wait.
  void SetStrides(int64_t input_stride, int64_t output_stride) {
    input_stride_ = input_stride;
    output_stride_ = output_stride;
  }

  // Adds pixels. The row is cut into segments of the cheapest lengths; they
  // wait until a tile of their length is full, so that the rows of narrow maps
  // fill the registers as well as those of wide ones. False when memory is out.
  bool Add(const PixelRow& row);

  // Adds a run down an output column, which reads all `taps` kernel rows; call
  // it before the rows, so that it finds the tile to go with. False when no
  // shape is as long.
  bool AddDown(const Segment& segment, int64_t pixels, int taps);

  // Makes tiles of all that wait: call it after the last row, and where tiles
  // must not reach across.
  bool Flush();

  int tiles() const { return static_cast<int>(tiles_); }
  const Tile& tile(int i) const { return tile_[i]; }
  const Segment* segments(const Tile& tile) const {
    return segment_.get() + tile.segment;
  }

 private:
  // Segments of one slot: `part` part-time ones first.
  struct Waiting {
    int segments, part;
    Segment segment[kMaxSegments];
  };
  struct Down {
    bool waits;
    Segment segment;
    int64_t pixels;
    int taps;
  };

  void Cut(int64_t units, int64_t* count) const;
  // The shape for `part` part-time segments of `segments`, or -1.
  int FindShape(int length, int segments, int part, int down) const;
  int SlotLength(int slot) const { return slot == 0 ? short_length_ : slot; }
  bool Emit(int slot);
  bool EmitDown(Tile* tile);
  bool EmitAll();
  bool SetTaps(int begin, int end, bool* part);
  bool Append(int slot, const Segment& segment, bool part);

  const TileShape* shapes_ = nullptr;
  int shape_count_ = 0;
  int shape_of_[kMaxLength + 1];
  int max_segments_[kMaxLength + 1];
  double cost_[kMaxLength + 1];  // cycles a column and segment, 0 = no shape
  int unit_ = 1;
  int64_t input_stride_ = 0, output_stride_ = 0;

  // What waits: segments of one tap range and part-time ones of another within
  // it; those that end in a short unit wait apart, in slot 0.
  int tap_begin_ = 0, tap_end_ = 0;
  int part_begin_ = 0, part_end_ = 0;
  Waiting waiting_[kMaxLength + 1];
  int short_length_ = 0, short_last_ = 0;
  Down down_ = {};

  uint64_t tiles_ = 0, segments_ = 0;
  Buffer<Tile> tile_;
  Buffer<Segment> segment_;
  uint64_t tile_capacity_ = 0, segment_capacity_ = 0;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_TILING_H_
