// SPDX-License-Identifier: Apache-2.0
//
// One operator over a payload of any layout.
#ifndef TFREWPRUNE_OPERATORS_PACKED_OPERATOR_H_
#define TFREWPRUNE_OPERATORS_PACKED_OPERATOR_H_

#include "format/irregular.h"
#include "format/payload.h"
#include "kernels/convolution.h"
#include "operators/conv2d.h"
#include "operators/fully_connected.h"
#include "operators/irregular_conv2d.h"
#include "operators/irregular_fully_connected.h"
#include "operators/thread_pool.h"
#include "operators/workspace.h"

namespace tfrewprune {

class PackedOperator {
 public:
  // Checks a payload, which must outlive the operator. Returns nullptr, or what
  // is wrong with it.
  const char* ReadPayload(const void* data, size_t bytes);
  // Weights that need no check.
  void SetWeights(const BandedView& weights);
  void SetWeights(const IrregularView& weights);

  uint32_t rows() const { return irregular_ ? segments_.rows : bands_.rows; }
  uint32_t columns() const {
    return irregular_ ? segments_.columns : bands_.columns;
  }
  // "8 bands of 16 rows, 1200 columns kept", for logs.
  void Describe(char* text, size_t text_size) const;

  // As Conv2D::Prepare and FullyConnected::Prepare; the one called last is what
  // Invoke runs.
  const char* PrepareConv2D(const ConvGeometry& geometry, Activation activation,
                            const Kernels* kernels, ThreadPool* pool,
                            Workspace* workspace, bool sums);
  const char* PrepareFullyConnected(int batch, Activation activation,
                                    const Kernels* kernels, ThreadPool* pool,
                                    Workspace* workspace);
  // `residual` is for sums only. Denormals count as zero in the calling thread,
  // whose mode is restored, as they always do in the threads of a pool.
  void Invoke(const float* input, const float* bias, const float* residual,
              float* output);

 private:
  bool irregular_ = false;
  bool fully_connected_ = false;
  BandedView bands_ = {};
  IrregularView segments_ = {};
  Conv2D banded_conv2d_;
  FullyConnected banded_fully_connected_;
  IrregularConv2D irregular_conv2d_;
  IrregularFullyConnected irregular_fully_connected_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PACKED_OPERATOR_H_
