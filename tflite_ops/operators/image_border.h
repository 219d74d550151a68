// SPDX-License-Identifier: Apache-2.0
//
// Which output columns of a convolution have taps left or right of the image,
// and a zero-padded copy of what they read. Small images, and those that are
// mostly border, are copied as a whole.
#ifndef TFREWPRUNE_OPERATORS_IMAGE_BORDER_H_
#define TFREWPRUNE_OPERATORS_IMAGE_BORDER_H_

#include "kernels/convolution.h"
#include "kernels/half.h"

namespace tfrewprune {

class ImageBorder {
 public:
  // `whole`: whatever the image.
  void Prepare(const ConvGeometry& geometry, bool whole = false);

  // Output columns [inside, inside_end) are worked on along their rows. They
  // read the image; the copy where `whole`.
  int64_t inside() const { return inside_; }
  int64_t inside_end() const { return inside_end_; }
  bool whole() const { return whole_; }

  // The copy is all of the image, and has nothing beside it.
  bool unpadded() const {
    return whole_ && window_[0].x == 0 && window_[0].width == geometry_.in_w;
  }

  // Of the copy, in pixels, which has the rows of the image; 0: there is none.
  int64_t width() const { return window_[0].width + window_[1].width; }
  // From the copy to what the first tap of an output pixel reads, in pixels.
  int64_t FirstTap(int64_t y, int64_t x) const;

  // Makes rows [begin, end) of the copy `to` of one image.
  void CopyRows(const float* input, int64_t begin, int64_t end,
                float* to) const;
  // Of halves.
  void CopyRows(const float* input, int64_t begin, int64_t end,
                NarrowKernel narrow, Half* to) const;

 private:
  // Input columns [x, x + width), zeros outside of the image, which the copy
  // holds from its column `at` on.
  struct Window {
    int64_t x, width, at;
  };

  template <class T, class Function>
  void Copy(const float* input, int64_t begin, int64_t end, Function copy,
            T* to) const;

  ConvGeometry geometry_ = {};
  int64_t inside_ = 0, inside_end_ = 0;
  bool whole_ = false;
  Window window_[2] = {};  // left and right of the inside
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_IMAGE_BORDER_H_
