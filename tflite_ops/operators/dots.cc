// SPDX-License-Identifier: Apache-2.0
#include "operators/dots.h"

#include "operators/integers.h"
#include "operators/widen.h"
#include "simd/unroll.h"

namespace tfrewprune {
namespace {

// A task below this many weights is not worth a hand-off.
constexpr uint64_t kTaskWeights = 16 << 10;
// In cycles.
constexpr double kWeight = 0.75;
constexpr double kSegment = 10;  // loop, misprediction of its end
constexpr double kRow = 10;      // sums
// Of weights that are converted first.
constexpr double kWidenedWeight = 0.9, kWidenedSegment = 20;
constexpr double kCopy = 0.3;  // a float of the padded image
// Offsets of 32 bits.
constexpr int64_t kMostFloats = INT32_MAX;

// GNU vectors: native on SSE2 and NEON, plain code elsewhere.
using Four = float __attribute__((vector_size(16)));

Four ValuesAt(const float* value) {
  Four four;
  memcpy(&four, value, sizeof(four));
  return four;
}

Four InputsAt(const uint16_t* column, const float* x) {
  uint64_t c;  // one load for four columns
  memcpy(&c, column, sizeof(c));
  return Four{x[c & 0xffff], x[c >> 16 & 0xffff], x[c >> 32 & 0xffff],
              x[c >> 48]};
}

Four InputsAt(const uint32_t* column, const float* x) {
  return Four{x[column[0]], x[column[1]], x[column[2]], x[column[3]]};
}

// Loads are the bound: one for every input, a quarter for its column and its
// value. Gathers (AVX2, AVX-512) took longer by two thirds on Zen 5. Four sums,
// so that the latency of an addition is not the bound.
struct Sums {
  Four four[4] = {};
  float rest = 0.0f;

  template <class Index>
  void Add(const Index* column, const float* value, uint32_t count,
           const float* x) {
    uint32_t i = 0;
    for (; i + 16 <= count; i += 16) {
      Unroll<4>([&](auto j) TFREWPRUNE_INLINE {
        four[j] +=
            InputsAt(column + i + 4 * j, x) * ValuesAt(value + i + 4 * j);
      });
    }
    for (; i + 4 <= count; i += 4) {
      four[0] += InputsAt(column + i, x) * ValuesAt(value + i);
    }
    for (; i < count; ++i) rest += x[column[i]] * value[i];
  }
  // Converted piece by piece, in the first-level cache.
  template <class Index>
  void AddWidened(const Index* column, const Kernels& kernels,
                  const Values& values, uint64_t begin, uint32_t count,
                  const float* x) {
    constexpr uint32_t kPiece = 256;
    alignas(64) float piece[kPiece];
    for (uint32_t i = 0; i < count; i += kPiece) {
      const uint32_t some = count - i < kPiece ? count - i : kPiece;
      WidenUnscaled(kernels, values, begin + i, some, piece);
      Add(column + i, piece, some, x);
    }
  }
  float All() const {
    const Four all = (four[0] + four[1]) + (four[2] + four[3]);
    return (all[0] + all[1]) + (all[2] + all[3]) + rest;
  }
};

// Pixels that the taps of all outputs reach.
int64_t ReachH(const ConvGeometry& g) {
  return int64_t{g.out_h - 1} * g.stride_h +
         int64_t{g.kernel_h - 1} * g.dilation_h + 1;
}

int64_t ReachW(const ConvGeometry& g) {
  return int64_t{g.out_w - 1} * g.stride_w +
         int64_t{g.kernel_w - 1} * g.dilation_w + 1;
}

bool Padded(const ConvGeometry& g) {
  return g.pad_top > 0 || g.pad_left > 0 || ReachH(g) > g.in_h ||
         ReachW(g) > g.in_w;
}

int Tasks(const Problem& problem) {
  const IrregularView& w = *problem.segments;
  const int64_t pixels = Max(1, problem.geometry.batch * problem.pixels());
  const double work = double(w.weight_count) * static_cast<double>(pixels);
  int64_t tasks = problem.threads();
  if (work < double(tasks) * kTaskWeights) {
    tasks = static_cast<int64_t>(work / kTaskWeights);
  }
  return static_cast<int>(Max(1, Min(tasks, w.rows)));
}

}  // namespace

double Dots::Cycles(const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  if (problem.segments == nullptr || problem.kernels->isa == Isa::kReference ||
      g.batch == 0 || problem.pixels() == 0) {
    return kUnsupported;
  }
  const IrregularView& w = *problem.segments;
  double copied = 0;
  if (Padded(g)) {
    copied = double(ReachH(g)) * ReachW(g) * g.in_c;
    if (copied > kMostFloats || !problem.Affords(sizeof(float) * copied)) {
      return kUnsupported;
    }
  }
  const bool widened = w.value.floats() == nullptr;
  const double pixel =
      (widened ? kWidenedWeight : kWeight) * double(w.weight_count) +
      (widened ? kWidenedSegment : kSegment) * w.segment_count + kRow * w.rows;
  return g.batch *
         (pixel * static_cast<double>(problem.pixels()) / Tasks(problem) +
          kCopy * copied);
}

const char* Dots::Prepare(const Problem& problem) {
  weights_ = *problem.segments;
  geometry_ = problem.geometry;
  kernels_ = problem.kernels;
  pool_ = problem.pool;
  workspace_ = problem.workspace;
  residual_ = problem.MakeResidual();
  ActivationRange(problem.kernel_activation(), &minimum_, &maximum_);
  threads_ = problem.threads();
  tasks_ = Tasks(problem);
  pointwise_ = IsPointwise(geometry_);
  if (const char* error = JoinPixels(&geometry_)) return error;
  const ConvGeometry& g = geometry_;
  padded_ = Padded(g);
  reach_h_ = padded_ ? ReachH(g) : g.in_h;
  reach_w_ = padded_ ? ReachW(g) : g.in_w;
  if (padded_ && !workspace_->Reserve(reach_h_ * reach_w_ * g.in_c)) {
    return kOutOfMemory;
  }
  return PrepareOffsets() && SortSegments() ? nullptr : kOutOfMemory;
}

bool Dots::PrepareOffsets() {
  if (pointwise_) return true;
  const ConvGeometry& g = geometry_;
  if (!offset_.Allocate(weights_.weight_count)) return false;
  for (uint64_t i = 0; i < weights_.weight_count; ++i) {
    const uint32_t column = weights_.Column(i);
    const int64_t tap = column % weights_.taps;
    const int64_t y = tap / g.kernel_w * g.dilation_h;
    const int64_t x = tap % g.kernel_w * g.dilation_w;
    offset_[i] = static_cast<uint32_t>((y * reach_w_ + x) * g.in_c +
                                       column / weights_.taps);
  }
  return true;
}

bool Dots::SortSegments() {
  const IrregularView& w = weights_;
  // One place more: first_[r + 2] counts, first_[r + 1] is the next free place.
  if (!first_.Allocate(uint64_t{w.rows} + 2) ||
      !segment_.Allocate(w.segment_count)) {
    return false;
  }
  for (uint32_t s = 0; s < w.segment_count; ++s) ++first_[w.RowId(s) + 2];
  for (uint64_t r = 0; r < w.rows; ++r) first_[r + 2] += first_[r + 1];
  for (uint32_t s = 0; s < w.segment_count; ++s) {
    segment_[first_[w.RowId(s) + 1]++] = s;
  }
  return true;
}

void Dots::CopyImage(const float* image) {
  const ConvGeometry& g = geometry_;
  const int64_t pixel = g.in_c;
  const int64_t row = reach_w_ * pixel;
  const int64_t left = g.pad_left * pixel;
  const int64_t taken = Min(g.in_w * pixel, row - left);
  float* to = workspace_->get();
  memset(to, 0, reach_h_ * row * sizeof(float));
  for (int64_t y = 0; y < g.in_h && y + g.pad_top < reach_h_ && taken > 0;
       ++y) {
    memcpy(to + (y + g.pad_top) * row + left, image + y * g.in_w * pixel,
           taken * sizeof(float));
  }
}

template <class Index, bool kFloats>
float Dots::Row(uint32_t row, const float* x) const {
  const Index* column = static_cast<const Index*>(
      pointwise_ ? weights_.column : static_cast<const void*>(offset_.get()));
  const uint32_t* start = weights_.segment_start;
  Sums sums;
  for (uint32_t i = first_[row]; i < first_[row + 1]; ++i) {
    const uint32_t begin = start[segment_[i]];
    const uint32_t count = start[segment_[i] + 1] - begin;
    if constexpr (kFloats) {
      sums.Add(column + begin, weights_.value.floats() + begin, count, x);
    } else {
      sums.AddWidened(column + begin, *kernels_, weights_.value, begin, count,
                      x);
    }
  }
  return sums.All() * weights_.value.Scale(row);
}

// The rows of one task.
template <class Index, bool kFloats>
void Dots::RunTask(int task) {
  const ConvGeometry& g = geometry_;
  const uint64_t rows = weights_.rows;
  const uint32_t begin = static_cast<uint32_t>(rows * task / tasks_);
  const uint32_t end = static_cast<uint32_t>(rows * (task + 1) / tasks_);
  float* output = output_;
  for (int64_t p = 0; p < int64_t{g.out_h} * g.out_w; ++p, output += rows) {
    const float* x = input_ + (p / g.out_w * g.stride_h * reach_w_ +
                               p % g.out_w * g.stride_w) *
                                  g.in_c;
    for (uint32_t row = begin; row < end; ++row) {
      float y =
          Row<Index, kFloats>(row, x) + (bias_ == nullptr ? 0.0f : bias_[row]);
      if (y < minimum_) y = minimum_;  // NaN stays NaN
      if (y > maximum_) y = maximum_;
      output[row] = y;
    }
  }
}

template <class Index>
ThreadPool::Function Dots::TaskOf() const {
  if (weights_.value.floats() != nullptr) {
    return [](void* self, int task, int) {
      static_cast<Dots*>(self)->RunTask<Index, true>(task);
    };
  }
  return [](void* self, int task, int) {
    static_cast<Dots*>(self)->RunTask<Index, false>(task);
  };
}

void Dots::Invoke(const Tensors& tensors) {
  const ConvGeometry& g = geometry_;
  const ThreadPool::Function run = pointwise_ && weights_.index_bytes == 2
                                       ? TaskOf<uint16_t>()
                                       : TaskOf<uint32_t>();
  bias_ = tensors.bias;
  const int64_t out_image = int64_t{g.out_h} * g.out_w * weights_.rows;
  for (int n = 0; n < g.batch; ++n) {
    input_ = tensors.input + int64_t{n} * g.in_h * g.in_w * g.in_c;
    output_ = tensors.output + n * out_image;
    if (padded_) {
      CopyImage(input_);
      input_ = workspace_->get();
    }
    if (tasks_ > 1) {
      pool_->Run(tasks_, run, this);
    } else {
      run(this, 0, 0);
    }
  }
  residual_.values = tensors.residual;
  residual_.Complete(0, g.batch * out_image, tensors.output);
}

}  // namespace tfrewprune
