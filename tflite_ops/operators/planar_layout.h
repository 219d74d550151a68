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
#include "operators/planes_block.h"

namespace tfrewprune {

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
  int64_t RowOffset(const PlanesBlock& block, int y) const {
    const int64_t top = int64_t{y} * geometry_.stride_h - geometry_.pad_top;
    return (pack_rows_ ? y - block.y : top - InputRow(block)) * row_pitch_;
  }
  int StoredRows(const PlanesBlock& block) const {
    return static_cast<int>(pack_rows_ ? block.y_end - block.y
                                       : InputRowEnd(block) - InputRow(block));
  }
  // Transposes stored rows [begin, end) of a block of the image `input`.
  void StoreRows(const PlanesBlock& block, const float* input,
                 TransposeKernel transpose, float* planes, int begin,
                 int end) const;
  // Call it once a block beside StoreRows.
  void ClearBorders(const PlanesBlock& block, float* planes) const;

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

  // The input rows under a block that lie inside of the image.
  int64_t InputRow(const PlanesBlock& block) const {
    const ConvGeometry& g = geometry_;
    return Min(Max(int64_t{block.y} * g.stride_h - g.pad_top, 0), g.in_h);
  }
  int64_t InputRowEnd(const PlanesBlock& block) const {
    const ConvGeometry& g = geometry_;
    const int64_t bottom = int64_t{block.y_end - 1} * g.stride_h - g.pad_top +
                           int64_t{g.kernel_h - 1} * g.dilation_h + 1;
    return Max(InputRow(block), Min(bottom, g.in_h));
  }
  Span StoredPixels(const PlanesBlock& block, int phase) const;

  ConvGeometry geometry_ = {};
  int block_rows_ = 0, block_pixels_ = 0;
  int64_t row_pitch_ = 0, channel_stride_ = 0, planes_floats_ = 0;
  int64_t first_ = 0;       // floats before the first stored pixel
  bool pack_rows_ = false;  // only input rows under kernel row 0 are stored
  Buffer<Phase> phase_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PLANAR_LAYOUT_H_
