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
#include "operators/direct_conv.h"
#include "operators/flat_conv.h"
#include "operators/planar_conv.h"
#include "operators/residual.h"
#include "operators/thread_pool.h"
#include "operators/workspace.h"

namespace tfrewprune {

class Conv2D {
 public:
  // Allocates everything Invoke needs; may be called again (resized input).
  // `weights` and what it points to, `kernels`, `pool` (nullptr = one thread)
  // and `workspace` (nullptr = one of its own) must outlive the operator.
  // `sums`: Invoke gets a residual, and the activation is applied after adding
  // it. Returns nullptr, or what is wrong.
  const char* Prepare(const BandedView& weights, const ConvGeometry& geometry,
                      Activation activation, const Kernels* kernels,
                      ThreadPool* pool, Workspace* workspace = nullptr,
                      bool sums = false);

  // NHWC in, NHWC out; bias [rows] or nullptr; residual as the output.
  // Allocates nothing.
  void Invoke(const float* input, const float* bias, float* output,
              const float* residual = nullptr);

 private:
  int64_t OutputCount() const;

  BandedView weights_ = {};
  ConvGeometry geometry_ = {};
  Activation activation_ = Activation::kNone;
  const Kernels* kernels_ = nullptr;
  Workspace own_workspace_;
  BandTables tables_;
  Residual residual_;
  bool flat_ = false, planar_ = false;  // which of the three does the work
  FlatConv flat_conv_;
  PlanarConv planar_conv_;
  DirectConv direct_conv_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_CONV2D_H_
