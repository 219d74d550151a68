// SPDX-License-Identifier: Apache-2.0
#include "operators/gemv.h"

#include "operators/integers.h"

namespace tfrewprune {
namespace {

// A task below this many bytes of weights is not worth a hand-off.
constexpr uint64_t kTaskBytes = 64 << 10;
// Weights of more bytes than a core's caches keep are gone through forwards and
// backwards in turn, a piece at a time: what was read last is still near.
constexpr uint64_t kNearBytes = 768 << 10;
constexpr uint64_t kPieceBytes = 256 << 10;
// Weights come from the second-level cache at so many bytes a cycle.
constexpr double kBytesPerCycle = 36;
constexpr double kBandCycles = 60;  // sums of the chains, the store

uint64_t Bytes(const BandedView& weights, ValueType type) {
  return weights.column_count * weights.band_rows * Values::Bytes(type);
}

int Tasks(const Problem& problem, ValueType type) {
  const uint64_t bytes = Bytes(*problem.bands, type);
  const int threads = problem.threads();
  return threads == 1
             ? 1
             : static_cast<int>(Max(1, Min(2 * threads, bytes / kTaskBytes)));
}

}  // namespace

double Gemv::Cycles(const Problem& problem) {
  return problem.bands == nullptr
             ? kUnsupported
             : Cycles(problem, problem.bands->value.type());
}

double HalfGemv::Cycles(const Problem& problem) {
  Problem half = problem;
  return WithHalfKernels(&half) ? Gemv::Cycles(half, ValueType::kFloat16)
                                : kUnsupported;
}

double Gemv::Cycles(const Problem& problem, ValueType type) {
  const ConvGeometry& g = problem.geometry;
  if (!IsPointwise(g)) return kUnsupported;
  const BandedView& w = *problem.bands;
  if (SelectGemv(*problem.kernels, w.band_rows, w.index_bytes, type) ==
      nullptr) {
    return kUnsupported;
  }
  const double columns = static_cast<double>(w.column_count);
  const double read = static_cast<double>(Bytes(w, type)) / kBytesPerCycle;
  const BandFmas band = FmasOfBands(problem);
  const double fmas = columns * (band.vectors / band.fmas_a_cycle + 0.5);
  const double pixel = (read < fmas ? fmas : read) + kBandCycles * w.band_count;
  const double sharers =
      static_cast<double>(Min(Tasks(problem, type), problem.threads()));
  return pixel * g.batch * static_cast<double>(problem.pixels()) / sharers;
}

const char* Gemv::Prepare(const Problem& problem) {
  if (const char* error = Begin(problem)) return error;
  kernel_ = SelectGemv(half_ ? *problem.half_kernels : *problem.kernels,
                       weights_.band_rows, weights_.index_bytes,
                       weights_.value.type());
  if (half_ && !workspace_->Reserve(DivideUp(weights_.columns, 2))) {
    return kOutOfMemory;
  }
  layer_.value = weights_.value.data();
  layer_.band_start = weights_.band_start;
  layer_.column = weights_.column;
  layer_.scale = tables_.scale();
  layer_.row = tables_.row();
  layer_.full_run = tables_.full_run();
  layer_.minimum = tables_.minimum();
  layer_.maximum = tables_.maximum();

  // Tasks of about equally many columns, whatever the bands look like.
  tasks_ = Tasks(problem, weights_.value.type());
  if (!task_band_.Allocate(tasks_ + 1)) return kOutOfMemory;
  uint32_t band = 0;
  for (int t = 0; t < tasks_; ++t) {
    const uint64_t start = weights_.column_count * t / tasks_;
    while (band < weights_.band_count && weights_.band_start[band] < start) {
      ++band;
    }
    task_band_[t] = t == 0 ? 0 : band;
  }
  task_band_[tasks_] = weights_.band_count;

  const uint64_t bytes = Bytes(weights_, weights_.value.type());
  piece_ = weights_.band_count;
  if (bytes > kNearBytes) {
    piece_ = static_cast<uint32_t>(Max(1, piece_ * kPieceBytes / bytes));
  }
  return nullptr;
}

void Gemv::RunTask(int task) {
  const uint32_t begin = task_band_[task];
  uint32_t end = task_band_[task + 1];
  for (; backwards_ && end - begin > piece_; end -= piece_) {
    kernel_(layer_, end - piece_, end, pixel_, output_);
  }
  kernel_(layer_, begin, end, pixel_, output_);
}

void Gemv::Invoke(const Tensors& tensors) {
  BeginInvoke(tensors, false);
  if (!tensors.again) layer_.bias = tables_.PackedBias(tensors.bias);
  BeginImage(0);
  for (int n = 0; n < geometry_.out_w; ++n) {
    pixel_ = input_;
    if (half_) {
      Half* halves = reinterpret_cast<Half*>(workspace_->get());
      narrow()(input_, weights_.columns, halves);
      pixel_ = halves;
    }
    Run(
        tasks_,
        [](void* self, int task, int) {
          static_cast<Gemv*>(self)->RunTask(task);
        },
        this);
    backwards_ = !backwards_;
    if (!tensors.again) tables_.FillMissingRows(output_, 1, 0);
    input_ += weights_.columns;
    output_ += weights_.rows;
  }
  residual_.Complete(0, int64_t{geometry_.out_w} * weights_.rows,
                     tensors.output);
}

}  // namespace tfrewprune
