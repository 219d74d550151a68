// SPDX-License-Identifier: Apache-2.0
//
// Cuts rows of output pixels into the tiles of the direct kernels.
#ifndef TFREWPRUNE_OPERATORS_TILING_H_
#define TFREWPRUNE_OPERATORS_TILING_H_

#include "kernels/kernels.h"
#include "operators/buffer.h"

namespace tfrewprune {

// What a direct kernel does for a column and a pixel.
struct BandFmas {
  double vectors;
  int fmas_a_cycle;
};

// Of a column and a tile of so many pixels, whose loads wait for `waits`
// cycles.
double ColumnCycles(const BandFmas& fmas, double pixels, double waits);

// Some output pixels next to each other. Only rows with the same taps share a
// tile.
struct PixelRow {
  int64_t input, output;  // of the first pixel, floats from the bases
  int64_t pixels;
  int tap_begin, tap_end;  // kernel rows that lie inside of the image
};

struct Tile {
  uint32_t segment;  // first of its segments
  uint16_t segments;
  uint16_t length;  // pixels of a segment
  uint32_t tap_begin, tap_end;
  DirectKernel kernel;
};

class Tiling {
 public:
  // Starts anew, with the kernels for bands of so many rows and tiles of at
  // most `most_pixels`. Strides are floats from pixel to pixel. nullptr, or
  // what is wrong.
  const char* Begin(const Kernels& kernels, uint32_t band_rows,
                    int64_t most_pixels, int64_t input_stride,
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

  // Makes tiles of all that wait: call it after the last row, and where tiles
  // must not reach across.
  bool Flush();

  int tiles() const { return static_cast<int>(tiles_); }
  const Tile& tile(int i) const { return tile_[i]; }
  const Segment* segments(const Tile& tile) const {
    return segment_.get() + tile.segment;
  }

 private:
  static constexpr int kMaxLength = 16;    // pixels of a segment
  static constexpr int kMaxSegments = 16;  // of a tile

  // The kernels of one length, and the segments that wait for them.
  struct Shape {
    const DirectKernel* kernel;  // nullptr: there are none
    int most_segments;
    double cycles;  // a column and segment
    int waiting;
    Segment segment[kMaxSegments];
  };

  void Cut(int64_t pixels, int64_t* count) const;
  bool Emit(int length);

  Shape shape_[kMaxLength + 1];  // by length
  int64_t input_stride_ = 0, output_stride_ = 0;
  int tap_begin_ = 0, tap_end_ = 0;  // of what waits

  uint64_t tiles_ = 0, segments_ = 0;
  Buffer<Tile> tile_;
  Buffer<Segment> segment_;
  uint64_t tile_capacity_ = 0, segment_capacity_ = 0;
};

// The most pixels of a tile, not above `most_pixels`; 0: there are no kernels
// for bands of so many rows.
int64_t TilePixels(const Kernels& kernels, uint32_t band_rows,
                   int64_t most_pixels);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_TILING_H_
