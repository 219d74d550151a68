// SPDX-License-Identifier: Apache-2.0
//
// One packed layer: weights of any layout, and the driver that was chosen.
#ifndef TFREWPRUNE_OPERATORS_PACKED_OPERATOR_H_
#define TFREWPRUNE_OPERATORS_PACKED_OPERATOR_H_

#include "operators/driver.h"

namespace tfrewprune {

// What an operator runs with, beside its weights and geometry.
struct Resources {
  const Kernels* kernels = nullptr;
  ThreadPool* pool = nullptr;      // nullptr: one thread
  Workspace* workspace = nullptr;  // nullptr: one of its own
  const Driver* driver = nullptr;  // the one to take where it can do the layer
};

class PackedOperator {
 public:
  PackedOperator() = default;
  ~PackedOperator() { DropDriver(); }
  PackedOperator(const PackedOperator&) = delete;
  PackedOperator& operator=(const PackedOperator&) = delete;

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
  // "8 bands of 16 rows, 1200 columns kept, driver direct", for logs.
  void Describe(char* text, size_t text_size) const;

  // Chooses a driver and allocates everything Invoke needs; may be called again
  // (resized input). What `resources` points to must outlive the operator.
  // `residual`: Invoke gets one, which is added before the activation. Returns
  // nullptr, or what is wrong.
  const char* PrepareConv2D(const ConvGeometry& geometry, Activation activation,
                            const Resources& resources, bool residual = false);
  // The input is [batch, columns()].
  const char* PrepareFullyConnected(int batch, Activation activation,
                                    const Resources& resources);
  // The driver of the last Prepare.
  const Driver* driver() const { return driver_; }

  // Allocates nothing. Denormals count as zero in the calling thread, whose
  // mode is restored, as they always do in the threads of a pool.
  void Invoke(const Tensors& tensors);

 private:
  const char* Prepare(const Resources& resources);
  void DropDriver();

  bool irregular_ = false;
  BandedView bands_ = {};
  IrregularView segments_ = {};
  IrregularIndex index_;  // of segments_, where the payload has a mask
  Problem problem_;
  Workspace own_workspace_;
  const Driver* driver_ = nullptr;
  void* state_ = nullptr;  // of the driver
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PACKED_OPERATOR_H_
