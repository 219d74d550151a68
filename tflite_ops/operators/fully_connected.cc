// SPDX-License-Identifier: Apache-2.0
#include "operators/fully_connected.h"

#include "kernels/select.h"

namespace tfrewprune {
namespace {

// Up to this batch one vector after the other is faster than a tile of few
// pixels (its FMA chains are too few to hide their latency).
constexpr int kGemvBatch = 3;
// A task below this many bytes of weights is not worth a hand-off.
constexpr uint64_t kTaskBytes = 64 << 10;

}  // namespace

const char* FullyConnected::Prepare(const BandedView& weights, int batch,
                                    Activation activation,
                                    const Kernels* kernels, ThreadPool* pool,
                                    Workspace* workspace) {
  weights_ = weights;
  batch_ = batch;
  activation_ = activation;
  pool_ = pool;
  gemv_ = nullptr;
  if (batch > kGemvBatch || kernels->isa == Isa::kReference) {
    ConvGeometry geometry = {};
    geometry.batch = geometry.in_h = geometry.out_h = 1;
    geometry.in_w = geometry.out_w = batch;
    geometry.in_c = static_cast<int>(weights.columns);
    geometry.kernel_h = geometry.kernel_w = 1;
    geometry.stride_h = geometry.stride_w = 1;
    geometry.dilation_h = geometry.dilation_w = 1;
    return pixels_.Prepare(weights, geometry, activation, kernels, pool,
                           workspace);
  }
  gemv_ = SelectGemv(*kernels, weights.band_rows, weights.index_bytes);
  if (gemv_ == nullptr) {
    return "no kernel for this band height: expected 4, 8, 16 or 32 rows";
  }
  if (const char* error = tables_.Prepare(weights, activation)) return error;
  layer_.value = weights.value;
  layer_.band_start = weights.band_start;
  layer_.column = weights.column;
  layer_.row = tables_.row();
  layer_.full_run = tables_.full_run();
  layer_.minimum = tables_.minimum();
  layer_.maximum = tables_.maximum();

  // Tasks of about equally many columns, whatever the bands look like.
  const int threads = pool == nullptr ? 1 : pool->threads();
  const uint64_t bytes =
      weights.column_count * weights.band_rows * sizeof(float);
  uint64_t tasks = bytes / kTaskBytes;
  if (tasks > 2u * threads) tasks = 2u * threads;
  if (tasks < 1 || threads == 1) tasks = 1;
  tasks_ = static_cast<int>(tasks);
  if (!task_band_.Allocate(tasks + 1)) return kOutOfMemory;
  uint32_t band = 0;
  for (uint64_t t = 0; t < tasks; ++t) {
    const uint64_t start = weights.column_count * t / tasks;
    while (band < weights.band_count && weights.band_start[band] < start) {
      ++band;
    }
    task_band_[t] = t == 0 ? 0 : band;
  }
  task_band_[tasks] = weights.band_count;
  return nullptr;
}

void FullyConnected::GemvTask(int task) {
  gemv_(layer_, task_band_[task], task_band_[task + 1], input_, output_);
}

void FullyConnected::Invoke(const float* input, const float* bias,
                            float* output) {
  if (gemv_ == nullptr) {
    pixels_.Invoke(input, bias, output);
    return;
  }
  layer_.bias = tables_.PackedBias(bias);
  for (int n = 0; n < batch_; ++n) {
    input_ = input + int64_t{n} * weights_.columns;
    output_ = output + int64_t{n} * weights_.rows;
    if (tasks_ > 1) {
      pool_->Run(
          tasks_,
          [](void* self, int task, int) {
            static_cast<FullyConnected*>(self)->GemvTask(task);
          },
          this);
    } else {
      GemvTask(0);
    }
    tables_.FillMissingRows(output_, 1, 0);
  }
  if (NeedsPostPass(activation_)) {
    Activate(activation_, output, int64_t{batch_} * weights_.rows);
  }
}

}  // namespace tfrewprune
