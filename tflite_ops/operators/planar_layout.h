// SPDX-License-Identifier: Apache-2.0
//
// Where the planar kernels (kernels/planar.h) find their input: how large the
// blocks are that a convolution is worked on in, and how the rows of the image
// under a block are stored.
//
// A stored row holds its channels one after the other; a channel holds, for
// every remainder of the columns by the stride, the pixels with that remainder
// and the zeros right of them, which are also those left of what follows.
#ifndef TFREWPRUNE_OPERATORS_PLANAR_LAYOUT_H_
#define TFREWPRUNE_OPERATORS_PLANAR_LAYOUT_H_

#include "kernels/convolution.h"
#include "kernels/planar.h"
#include "operators/buffer.h"
#include "operators/integers.h"

namespace tfrewprune {

// Sets of the first-level cache that lines `stride` floats apart fall onto.
int64_t CacheSets(int64_t stride);

// Output pixels [y, y_end) x [x, x_end), and the input rows under them.
struct PlanarBlock {
  int y, y_end, x, x_end;
  int in_y, in_y_end;
};

class PlanarLayout {
 public:
  // Chooses the block, and where a stored row and its parts lie. A full tile
  // has `tile_pixels`, which come in units. nullptr, or what went wrong.
  const char* Prepare(const ConvGeometry& geometry, int64_t tile_pixels,
                      int unit, int threads);

  int block_rows() const { return block_rows_; }
  int block_pixels() const { return block_pixels_; }
  int64_t row_pitch() const { return row_pitch_; }
  int64_t channel_stride() const { return channel_stride_; }
  int64_t floats() const { return planes_floats_; }  // of one block
  // From the planes to what the tap (y, x) of the first pixel reads, channel 0.
  int64_t TapOffset(int64_t y, int64_t x) const;
  // From the planes of a block to those of its output row y.
  int64_t RowOffset(const PlanarBlock& block, int y) const {
    const int64_t top = int64_t{y} * geometry_.stride_h - geometry_.pad_top;
    return (pack_rows_ ? y - block.y : top - block.in_y) * row_pitch_;
  }

  int StoredRows(const PlanarBlock& block) const {
    return pack_rows_ ? block.y_end - block.y : block.in_y_end - block.in_y;
  }
  // Transposes stored rows [begin, end) of a block of the image `input`.
  void StoreRows(const PlanarBlock& block, const float* input,
                 TransposeKernel transpose, float* planes, int begin,
                 int end) const;
  // Call it once a block beside StoreRows.
  void ClearBorders(const PlanarBlock& block, float* planes) const;

 private:
  // Input columns whose index has one remainder by the stride.
  struct Phase {
    int64_t plane;  // floats from a stored row to this phase's first pixel
    int64_t reach;  // taps reach this many pixels past the output's
    int64_t begin, floats;  // of a stored row that are this phase's
  };

  // A stored row of one phase: pixels [from, to) of `count` come from the
  // image, starting with input column `first` + stride * from.
  struct Span {
    int64_t first, from, to, count;
  };

  Span StoredPixels(const PlanarBlock& block, int phase) const;

  ConvGeometry geometry_ = {};
  int block_rows_ = 0, block_pixels_ = 0;
  int64_t row_pitch_ = 0, channel_stride_ = 0, planes_floats_ = 0;
  int64_t first_ = 0;       // floats before the first stored pixel
  bool pack_rows_ = false;  // only input rows under kernel row 0 are stored
  Buffer<Phase> phase_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PLANAR_LAYOUT_H_
