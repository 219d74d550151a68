// SPDX-License-Identifier: Apache-2.0
//
// Fully connected layer with irregular weights (payload layout 1, taps 1).
#ifndef TFREWPRUNE_OPERATORS_IRREGULAR_FULLY_CONNECTED_H_
#define TFREWPRUNE_OPERATORS_IRREGULAR_FULLY_CONNECTED_H_

#include "format/irregular.h"
#include "operators/irregular_conv2d.h"

namespace tfrewprune {

class IrregularFullyConnected {
 public:
  // As FullyConnected::Prepare, for weights of layout 1.
  const char* Prepare(const IrregularView& weights, int batch,
                      Activation activation, Isa isa, ThreadPool* pool,
                      Workspace* workspace = nullptr);

  // bias [rows] or nullptr. Allocates nothing.
  void Invoke(const float* input, const float* bias, float* output);

 private:
  template <class Index>
  void RunTask(int task);

  IrregularView weights_ = {};
  int batch_ = 0;
  Activation activation_ = Activation::kNone;
  ThreadPool* pool_ = nullptr;
  bool vectors_ = false;    // small batches: one vector after the other
  IrregularConv2D pixels_;  // else: a 1x1 convolution over the batch
  int tasks_ = 1;
  Buffer<uint32_t> first_;  // chunks x (tasks + 1): first segment

  const float* input_ = nullptr;
  float* output_ = nullptr;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_IRREGULAR_FULLY_CONNECTED_H_
