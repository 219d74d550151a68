// SPDX-License-Identifier: Apache-2.0
//
// Sparse convolution: payload + geometry -> tables (Prepare), images -> images
// (Invoke). Implicit GEMM, no im2col.
#ifndef TFREWPRUNE_OPERATORS_CONV2D_H_
#define TFREWPRUNE_OPERATORS_CONV2D_H_

#include "format/payload.h"
#include "kernels/band.h"
#include "kernels/convolution.h"
#include "operators/band_tables.h"
#include "operators/buffer.h"
#include "operators/thread_pool.h"
#include "operators/tiling.h"

namespace tfrewprune {

class Conv2D {
 public:
  // Allocates everything Invoke needs; may be called again (resized input).
  // `weights` and what it points to, `kernels` and `pool` (nullptr = one
  // thread) must outlive the operator. Returns nullptr, or what is wrong.
  const char* Prepare(const BandedView& weights, const ConvGeometry& geometry,
                      Activation activation, const Kernels* kernels,
                      ThreadPool* pool);

  // NHWC in, NHWC out; bias [rows] or nullptr. Allocates nothing.
  void Invoke(const float* input, const float* bias, float* output);

 private:
  void Run(int tasks, ThreadPool::Function function);
  void PadTask(int task);
  void ComputeTask(int task);

  BandedView weights_ = {};
  ConvGeometry geometry_ = {};
  Activation activation_ = Activation::kNone;
  const Kernels* kernels_ = nullptr;
  ThreadPool* pool_ = nullptr;

  BandTables tables_;
  Tiling tiling_;
  BandLayer layer_ = {};
  Buffer<int32_t> offset_;
  Buffer<float> plane_;     // one padded image, borders stay zero
  bool padded_ = false;
  int64_t plane_pitch_ = 0;  // floats between rows of what the tiles read
  int runs_ = 0;             // images worked on one after the other
  int tile_tasks_ = 1, band_tasks_ = 1;
  uint32_t bands_at_once_ = 1;

  // Of the image at work.
  const float* input_ = nullptr;
  float* output_ = nullptr;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_CONV2D_H_
