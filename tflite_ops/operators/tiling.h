// SPDX-License-Identifier: Apache-2.0
//
// Cuts the output pixels of a layer into the tiles of the kernels at hand.
#ifndef TFREWPRUNE_OPERATORS_TILING_H_
#define TFREWPRUNE_OPERATORS_TILING_H_

#include "kernels/band.h"
#include "operators/buffer.h"

namespace tfrewprune {

// `rows` rows of `width` neighbouring output pixels; strides in floats.
struct PixelGrid {
  int64_t rows, width;
  int64_t input_row_stride, input_pixel_stride;
  int64_t output_row_stride, output_pixel_stride;
};

struct Tile {
  BandKernel kernel;
  uint32_t segment;   // first of its segments
  uint16_t segments;
  uint16_t length;    // pixels of a segment
};

class Tiling {
 public:
  // Covers every pixel exactly once. Rows are cut into segments of one or two
  // lengths; segments of equal length become tiles, also across rows, so that
  // narrow maps fill the registers as well as wide ones.
  const char* Prepare(const Kernels& kernels, int band_rows,
                      const PixelGrid& grid);

  int tiles() const { return tiles_; }
  const Tile& tile(int i) const { return tile_[i]; }
  const Segment* segments(const Tile& tile) const {
    return segment_.get() + tile.segment;
  }

 private:
  int tiles_ = 0;
  Buffer<Tile> tile_;
  Buffer<Segment> segment_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_TILING_H_
