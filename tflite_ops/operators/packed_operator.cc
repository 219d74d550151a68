// SPDX-License-Identifier: Apache-2.0
#include "operators/packed_operator.h"

#include <cinttypes>
#include <cstdio>

#include "isa/denormals.h"
#include "operators/buffer.h"

namespace tfrewprune {

const char* PackedOperator::ReadPayload(const void* data, size_t bytes) {
  payload_ = data;
  payload_bytes_ = bytes;
  irregular_ = PayloadLayout(data, bytes) == kIrregularLayout;
  return irregular_ ? ParseIrregular(data, bytes, &segments_, &index_)
                    : ParsePayload(data, bytes, &bands_);
}

void PackedOperator::SetWeights(const BandedView& weights) {
  irregular_ = false;
  bands_ = weights;
}

void PackedOperator::SetWeights(const IrregularView& weights) {
  irregular_ = true;
  segments_ = weights;
}

void PackedOperator::Describe(char* text, size_t text_size) const {
  const char* name = driver_ == nullptr ? "none" : driver_->name;
  if (irregular_) {
    snprintf(text, text_size,
             "%" PRIu64
             " weights kept in %u segments of %u channels, driver %s",
             segments_.weight_count, segments_.segment_count,
             segments_.chunk_channels, name);
  } else {
    snprintf(text, text_size,
             "%u bands of %u rows, %" PRIu64 " columns kept, driver %s",
             bands_.band_count, bands_.band_rows, bands_.column_count, name);
  }
}

void PackedOperator::Announce(const ConvGeometry& geometry,
                              const Resources& resources, bool residual) {
  if (resources.tuner == nullptr || resources.driver != nullptr ||
      SetProblem(geometry, resources, residual) != nullptr) {
    return;
  }
  resources.tuner->Announce(problem_, Payload(), &claim_);
}

const char* PackedOperator::PrepareConv2D(const ConvGeometry& geometry,
                                          Activation activation,
                                          const Resources& resources,
                                          bool residual) {
  problem_.activation = activation;
  if (const char* error = SetProblem(geometry, resources, residual)) {
    return error;
  }
  if (resources.driver == nullptr && resources.tuner != nullptr) {
    chosen_ = resources.tuner->Choose(problem_, Payload(), &claim_);
  } else {
    chosen_ = {};
    chosen_.choice.driver = ChooseDriver(problem_, resources.driver);
  }
  if (chosen_.choice.alone) problem_.pool = nullptr;
  return Prepare(chosen_.choice.driver);
}

const char* PackedOperator::PrepareFullyConnected(int batch,
                                                  Activation activation,
                                                  const Resources& resources) {
  if (irregular_ && segments_.taps != 1) {
    return "payload does not fit a fully connected layer: its taps must be 1";
  }
  return PrepareConv2D(RowOfPixels(batch, columns()), activation, resources);
}

const char* PackedOperator::SetProblem(const ConvGeometry& geometry,
                                       const Resources& resources,
                                       bool residual) {
  problem_.geometry = geometry;
  problem_.residual = residual;
  problem_.bands = irregular_ ? nullptr : &bands_;
  problem_.segments = irregular_ ? &segments_ : nullptr;
  problem_.kernels = resources.kernels;
  problem_.half_kernels = resources.half_kernels;
  problem_.pool = resources.pool;
  problem_.workspace =
      resources.workspace == nullptr ? &own_workspace_ : resources.workspace;
  return CheckProblem(problem_);
}

Tuner::Payload PackedOperator::Payload() {
  if (payload_hash_ == 0) payload_hash_ = Hash(payload_, payload_bytes_);
  return {payload_hash_, payload_, payload_bytes_};
}

const char* PackedOperator::Prepare(const Driver* driver) {
  if (driver != driver_) {
    DropDriver();
    if (posix_memalign(&state_, 64, driver->state_bytes) != 0) {
      state_ = nullptr;
      return kOutOfMemory;
    }
    driver->construct(state_);
    driver_ = driver;
  }
  return driver_->prepare(state_, problem_);
}

void PackedOperator::DropDriver() {
  if (driver_ == nullptr) return;
  driver_->destroy(state_);
  free(state_);
  driver_ = nullptr;
  state_ = nullptr;
}

void PackedOperator::Invoke(const Tensors& tensors) {
  const FlushDenormals flush;
  driver_->invoke(state_, tensors);
  if (NeedsPostPass(problem_.activation)) {
    Activate(problem_.activation, tensors.output,
             problem_.geometry.batch * problem_.pixels() * rows());
  }
}

}  // namespace tfrewprune
