// SPDX-License-Identifier: Apache-2.0
//
// One packed layer: weights of any layout, and the driver that was chosen.
#ifndef TFREWPRUNE_OPERATORS_PACKED_OPERATOR_H_
#define TFREWPRUNE_OPERATORS_PACKED_OPERATOR_H_

#include "operators/driver.h"
#include "operators/tuner.h"

namespace tfrewprune {

// What an operator runs with, beside its weights and geometry.
struct Resources {
  const Kernels* kernels = nullptr;
  const Kernels* half_kernels = nullptr;  // nullptr: float32 arithmetic only
  ThreadPool* pool = nullptr;             // nullptr: one thread
  Workspace* workspace = nullptr;         // nullptr: one of its own
  const Driver* driver = nullptr;  // the one to take where it can do the layer
  Tuner* tuner = nullptr;          // chooses where `driver` does not
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
  // Tells the tuner of the layer, ahead of the first Prepare. Quiet where there
  // is no such layer: that is for Prepare to say.
  void Announce(const ConvGeometry& geometry, const Resources& resources,
                bool residual = false);

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
  // The driver of the last Prepare, how many threads it has, and where the
  // choice came from.
  const Driver* driver() const { return driver_; }
  int threads() const { return problem_.threads(); }
  const Tuner::Chosen& chosen() const { return chosen_; }

  // Allocates nothing. Denormals count as zero in the calling thread, whose
  // mode is restored, as they always do in the threads of a pool.
  void Invoke(const Tensors& tensors);

 private:
  // nullptr, or what is wrong with the problem.
  const char* SetProblem(const ConvGeometry& geometry,
                         const Resources& resources, bool residual);
  Tuner::Payload Payload();
  const char* Prepare(const Driver* driver);
  void DropDriver();

  bool irregular_ = false;
  const void* payload_ = nullptr;
  size_t payload_bytes_ = 0;
  uint64_t payload_hash_ = 0;  // 0: not made yet
  BandedView bands_ = {};
  IrregularView segments_ = {};
  IrregularIndex index_;  // of segments_, where the payload has a mask
  Problem problem_;
  Workspace own_workspace_;
  Tuner::Claim claim_;
  Tuner::Chosen chosen_;
  const Driver* driver_ = nullptr;
  void* state_ = nullptr;  // of the driver
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PACKED_OPERATOR_H_
