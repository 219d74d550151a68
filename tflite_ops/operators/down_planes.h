// SPDX-License-Identifier: Apache-2.0
//
// The planes of the runs down an output column (kernels/planar.h): where the
// pixels of a row are one more than its units hold, a run down the last column
// takes those of all rows. A channel holds, for every column of the kernel and
// every remainder of the rows by the stride, the pixels of that input column
// with that remainder, and zeros below them, which are also those above what
// follows.
#ifndef TFREWPRUNE_OPERATORS_DOWN_PLANES_H_
#define TFREWPRUNE_OPERATORS_DOWN_PLANES_H_

#include "kernels/convolution.h"
#include "kernels/planar.h"
#include "operators/buffer.h"

namespace tfrewprune {

class DownPlanes {
 public:
  // For output column `x` of all rows. nullptr, or what went wrong.
  const char* Prepare(const ConvGeometry& geometry, int x);

  int64_t floats() const { return floats_; }
  int64_t channel_stride() const { return channel_stride_; }
  // From the planes to what the tap (kernel row, kernel column) of the first
  // pixel reads, channel 0.
  int64_t TapOffset(int kernel_y, int kernel_x) const;

  // Of one image.
  void Store(const float* input, TransposeKernel transpose,
             float* planes) const;

 private:
  // The pixels of one input column and remainder of the rows.
  struct Slot {
    int64_t begin, floats;  // from the first of the channel
    int64_t lead;           // rows above the image that taps reach
    int64_t input;          // floats from the image to the first pixel
    int64_t pixels;         // 0: outside of the image
  };

  ConvGeometry geometry_ = {};
  int64_t first_ = 0, channel_stride_ = 0, floats_ = 0;
  Buffer<Slot> slot_;  // kernel columns x strides; floats 0: not read
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_DOWN_PLANES_H_
