// SPDX-License-Identifier: Apache-2.0
//
// How the input of kernels over planes is stored: the blocks that a convolution
// is worked on in, and the image under a block, one channel after the other.
//
// A channel holds a part for every remainder of rows and columns by the
// strides; a part holds its rows one after the other, `pitch` floats apart, the
// zeros right of a row being also those left of the next. Rows above and below
// the image may be stored as zeros, so that a run of pixels can begin in one
// row and end in another.
#ifndef TFREWPRUNE_OPERATORS_PLANES_LAYOUT_H_
#define TFREWPRUNE_OPERATORS_PLANES_LAYOUT_H_

#include "kernels/convolution.h"
#include "kernels/kernels.h"
#include "operators/buffer.h"

namespace tfrewprune {

// Output pixels [y, y_end) x [x, x_end) whose input is transposed together, and
// the items, tiles or runs, that take them.
struct PlanesBlock {
  int y, y_end, x, x_end;
  int item, item_end;
};

// Blocks are shared out by threads where that leaves at least so much of the
// time to work.
inline constexpr double kFairShare = 0.9;

class PlanesLayout {
 public:
  // What of a stored row, or of the stored rows, comes from the image.
  struct Span {
    int64_t from, to;
  };

  // Cuts the image into equal blocks: as many for every thread where that is
  // fair, else those of one thread. Blocks that are parts of a row have a
  // multiple of `unit` pixels and at least `run_pixels` unless the row is
  // shorter. `zero_rows`: rows above and below the image are read, too.
  // nullptr, or what went wrong.
  const char* Prepare(const ConvGeometry& geometry, int64_t run_pixels,
                      int64_t unit, bool zero_rows, int threads);

  int64_t blocks() const;  // of an image
  int block_rows() const { return block_rows_; }
  int block_pixels() const { return block_pixels_; }
  int64_t pitch() const { return pitch_; }  // of the rows of a part
  int64_t channel_stride() const { return channel_stride_; }
  int64_t floats() const { return floats_; }  // of one block
  // From an output pixel's place to what the tap (y, x) reads, channel 0.
  int64_t TapOffset(int64_t y, int64_t x) const;

  // Transposes a share of the rows under a block of the image `input`.
  void StoreRows(const PlanesBlock& block, const float* input,
                 TransposeKernel transpose, float* planes, int share,
                 int shares) const;

 private:
  const char* Cut(int64_t run_pixels, int64_t unit, int threads);
  // Input rows or columns whose index has one remainder by the stride.
  struct Phase {
    int64_t reach;  // taps reach this far past the output; -1: there are none
    int64_t index;  // among those with taps
  };
  static int64_t FindPhases(int taps, int dilation, int stride,
                            Buffer<Phase>* phases);
  // Of a channel and of one of its parts, in blocks of that size.
  int64_t ChannelFloats(int64_t rows, int64_t pixels) const;
  int64_t PartFloats(int64_t rows, int64_t pixels) const;
  int64_t Pitch(int64_t pixels) const;
  Span StoredPixels(int64_t x, int64_t x_end, int phase) const;
  Span StoredRows(const PlanesBlock& block, int phase) const;
  int64_t PartOffset(int phase_y, int phase_x) const {
    return (phase_y_[phase_y].index * parts_across_ + phase_x_[phase_x].index) *
           part_floats_;
  }

  ConvGeometry geometry_ = {};
  bool zero_rows_ = false;
  int block_rows_ = 0, block_pixels_ = 0;
  int64_t pitch_ = 0, part_floats_ = 0, channel_stride_ = 0, floats_ = 0;
  int64_t parts_down_ = 0, parts_across_ = 0;
  int64_t reach_ = 0;  // rows that a part has more than its block
  Buffer<Phase> phase_y_, phase_x_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PLANES_LAYOUT_H_
