// SPDX-License-Identifier: Apache-2.0
#include "operators/packed_operator.h"

#include <cinttypes>
#include <cstdio>

#include "isa/denormals.h"

namespace tfrewprune {

const char* PackedOperator::ReadPayload(const void* data, size_t bytes) {
  irregular_ = PayloadLayout(data, bytes) == kIrregularLayout;
  return irregular_ ? ParseIrregular(data, bytes, &segments_)
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
  if (irregular_) {
    snprintf(text, text_size,
             "%" PRIu64 " weights kept in %u segments of %u channels",
             segments_.weight_count, segments_.segment_count,
             segments_.chunk_channels);
  } else {
    snprintf(text, text_size, "%u bands of %u rows, %" PRIu64 " columns kept",
             bands_.band_count, bands_.band_rows, bands_.column_count);
  }
}

const char* PackedOperator::PrepareConv2D(const ConvGeometry& geometry,
                                          Activation activation,
                                          const Kernels* kernels,
                                          ThreadPool* pool,
                                          Workspace* workspace, bool sums) {
  fully_connected_ = false;
  return irregular_
             ? irregular_conv2d_.Prepare(segments_, geometry, activation,
                                         kernels->isa, pool, workspace, sums)
             : banded_conv2d_.Prepare(bands_, geometry, activation, kernels,
                                      pool, workspace, sums);
}

const char* PackedOperator::PrepareFullyConnected(int batch,
                                                  Activation activation,
                                                  const Kernels* kernels,
                                                  ThreadPool* pool,
                                                  Workspace* workspace) {
  fully_connected_ = true;
  return irregular_
             ? irregular_fully_connected_.Prepare(segments_, batch, activation,
                                                  kernels->isa, pool, workspace)
             : banded_fully_connected_.Prepare(bands_, batch, activation,
                                               kernels, pool, workspace);
}

void PackedOperator::Invoke(const float* input, const float* bias,
                            const float* residual, float* output) {
  const FlushDenormals flush;
  if (irregular_) {
    if (fully_connected_) {
      irregular_fully_connected_.Invoke(input, bias, output);
    } else {
      irregular_conv2d_.Invoke(input, bias, output, residual);
    }
  } else if (fully_connected_) {
    banded_fully_connected_.Invoke(input, bias, output);
  } else {
    banded_conv2d_.Invoke(input, bias, output, residual);
  }
}

}  // namespace tfrewprune
