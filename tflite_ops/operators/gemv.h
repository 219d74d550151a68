// SPDX-License-Identifier: Apache-2.0
//
// Pointwise layers of few pixels, fully connected ones above all:
// y[n, :] = activation(W x[n, :] + bias), one pixel after the other. (In a tile
// of few pixels FMA chains are too few to hide their latency.)
#ifndef TFREWPRUNE_OPERATORS_GEMV_H_
#define TFREWPRUNE_OPERATORS_GEMV_H_

#include "operators/banded_driver.h"

namespace tfrewprune {

class Gemv : public BandedDriver {
 public:
  explicit Gemv(bool half = false) : BandedDriver(half) {}
  static double Cycles(const Problem& problem);
  const char* Prepare(const Problem& problem);
  void Invoke(const Tensors& tensors);

 protected:
  // With weights of `type` in the kernels.
  static double Cycles(const Problem& problem, ValueType type);

 private:
  void RunTask(int task);

  GemvKernel kernel_ = nullptr;
  GemvLayer layer_ = {};
  Buffer<uint32_t> task_band_;  // first band of each task, and the end
  int tasks_ = 1;
  uint32_t piece_ = 0;  // bands that are gone through forwards in any case
  bool backwards_ = false;
  const void* pixel_ = nullptr;  // at work
};

// The same in float16 arithmetic.
class HalfGemv : public Gemv {
 public:
  HalfGemv() : Gemv(true) {}
  static double Cycles(const Problem& problem);
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_GEMV_H_
