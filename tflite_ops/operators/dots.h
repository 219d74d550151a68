// SPDX-License-Identifier: Apache-2.0
//
// Irregular weights over few pixels: one dot product after the other. (Where
// pixels are fewer than lanes, most of a lifted image is empty.)
#ifndef TFREWPRUNE_OPERATORS_DOTS_H_
#define TFREWPRUNE_OPERATORS_DOTS_H_

#include "operators/buffer.h"
#include "operators/driver.h"

namespace tfrewprune {

class Dots {
 public:
  static double Cycles(const Problem& problem);
  const char* Prepare(const Problem& problem);
  void Invoke(const Tensors& tensors);

 private:
  bool PrepareOffsets();
  bool SortSegments();
  void CopyImage(const float* image);
  // `kFloats`: weights are floats, else they must be converted.
  template <class Index, bool kFloats>
  float Row(uint32_t row, const float* x) const;
  template <class Index, bool kFloats>
  void RunTask(int task);
  template <class Index>
  ThreadPool::Function TaskOf() const;

  IrregularView weights_ = {};
  const Kernels* kernels_ = nullptr;
  ConvGeometry geometry_ = {};  // pointwise: one row of all pixels
  ThreadPool* pool_ = nullptr;
  Workspace* workspace_ = nullptr;  // the padded image
  Residual residual_;
  float minimum_ = 0, maximum_ = 0;
  int threads_ = 1, tasks_ = 1;
  bool pointwise_ = false;  // then columns are offsets
  bool padded_ = false;     // a copy is read, `reach_` pixels high and wide
  int64_t reach_h_ = 0, reach_w_ = 0;
  Buffer<uint32_t> offset_;  // of each weight: floats from the first tap
  // The segments of row r are segment_[first_[r]] .. segment_[first_[r + 1]]: a
  // row is summed up over all chunks before the next one.
  Buffer<uint32_t> first_, segment_;

  // Of the image at work.
  const float* input_ = nullptr;
  const float* bias_ = nullptr;
  float* output_ = nullptr;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_DOTS_H_
