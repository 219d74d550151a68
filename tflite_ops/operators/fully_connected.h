// SPDX-License-Identifier: Apache-2.0
//
// Sparse fully connected layer: y[n, :] = activation(W x[n, :] + bias).
#ifndef TFREWPRUNE_OPERATORS_FULLY_CONNECTED_H_
#define TFREWPRUNE_OPERATORS_FULLY_CONNECTED_H_

#include "format/payload.h"
#include "kernels/band.h"
#include "kernels/convolution.h"
#include "operators/band_tables.h"
#include "operators/conv2d.h"
#include "operators/thread_pool.h"

namespace tfrewprune {

class FullyConnected {
 public:
  // As Conv2D::Prepare; the input is [batch, weights.columns].
  const char* Prepare(const BandedView& weights, int batch,
                      Activation activation, const Kernels* kernels,
                      ThreadPool* pool, Workspace* workspace = nullptr);

  // bias [rows] or nullptr. Allocates nothing.
  void Invoke(const float* input, const float* bias, float* output);

 private:
  void GemvTask(int task);

  BandedView weights_ = {};
  int batch_ = 0;
  Activation activation_ = Activation::kNone;
  ThreadPool* pool_ = nullptr;

  GemvKernel gemv_ = nullptr;  // small batches; else `pixels_` does the work
  GemvLayer layer_ = {};
  BandTables tables_;
  Buffer<uint32_t> task_band_;  // first band of each task, and the end
  int tasks_ = 1;
  Conv2D pixels_;  // a 1x1 convolution over the batch

  const float* input_ = nullptr;
  float* output_ = nullptr;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_FULLY_CONNECTED_H_
