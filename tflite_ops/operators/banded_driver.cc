// SPDX-License-Identifier: Apache-2.0
#include "operators/banded_driver.h"

#include "operators/cache_sets.h"
#include "operators/integers.h"

namespace tfrewprune {
namespace {

constexpr uint16_t kHalfMagnitude = 0x7fff, kHalfInfinity = 0x7c00;

}  // namespace

const char* BandedDriver::Begin(const Problem& problem) {
  weights_ = *problem.bands;
  geometry_ = problem.geometry;
  pool_ = problem.pool;
  threads_ = problem.threads();
  workspace_ = problem.workspace;
  residual_ = problem.MakeResidual();
  kernels_ = half_ ? problem.half_kernels : problem.kernels;
  if (const char* error = JoinPixels(&geometry_)) return error;
  if (half_ && weights_.value.halves() == nullptr) {
    if (const char* error = RoundWeights()) return error;
  }
  return tables_.Prepare(weights_, problem.kernel_activation());
}

const char* BandedDriver::RoundWeights() {
  const uint64_t count = weights_.column_count * weights_.band_rows;
  if (!rounded_.Allocate(count)) return kOutOfMemory;
  kernels_->narrow(weights_.value.floats(), count, rounded_.get());
  for (uint64_t i = 0; i < count; ++i) {
    if ((rounded_[i].bits & kHalfMagnitude) >= kHalfInfinity) {
      return "precision float16 needs weights that have one: expected "
             "magnitudes below 65520, others need precision float32";
    }
  }
  weights_.value = rounded_.get();
  return nullptr;
}

bool BandedDriver::PrepareStarts() {
  const ConvGeometry& g = geometry_;
  return StartsOfKernelRows(weights_,
                            static_cast<uint32_t>(g.kernel_w) * g.in_c,
                            g.kernel_h, &start_);
}

DirectLayer BandedDriver::MakeDirectLayer(int64_t pixel_stride,
                                          int64_t output_stride) const {
  DirectLayer layer = {};
  layer.start = start_.get();
  layer.start_stride = static_cast<uint32_t>(geometry_.kernel_h) + 1;
  layer.bias = tables_.bias();
  layer.row = tables_.row();
  layer.full_run = tables_.full_run();
  layer.pixel_stride = static_cast<ptrdiff_t>(pixel_stride * value_bytes());
  layer.output_stride = static_cast<ptrdiff_t>(output_stride);
  layer.minimum = tables_.minimum();
  layer.maximum = tables_.maximum();
  return layer;
}

int64_t BandedDriver::BandsAtOnce(int64_t group) const {
  const uint64_t bytes = weight_bytes();
  if (bytes <= 2 * kBandBytes) return Max(1, weights_.band_count);
  const int64_t bands =
      static_cast<int64_t>(weights_.band_count * kBandBytes / bytes);
  return Max(1, bands / group) * group;
}

bool BandedDriver::ReserveScratch(int64_t floats, int64_t bands_at_once) {
  first_value_ = (floats + 15) / 16 * 16;
  value_floats_ = 0;
  if (!half_ && weights_.value.floats() == nullptr) {
    const int64_t bands = weights_.band_count;
    for (int64_t band = 0; band < bands; ++band) {
      const int64_t end = Min(bands, band + bands_at_once);
      const int64_t columns =
          weights_.band_start[end] - weights_.band_start[band];
      value_floats_ = Max(value_floats_, columns * weights_.band_rows);
    }
    value_floats_ = (value_floats_ + 15) / 16 * 16;
  }
  return workspace_->Reserve(first_value_ + value_floats_ * threads_);
}

BandValues BandedDriver::KernelValues(int64_t band, int64_t band_end,
                                      int worker) const {
  if (half_ || weights_.value.floats() != nullptr) {
    return {weights_.value.data(), 0};
  }
  const uint32_t begin = weights_.band_start[band];
  const uint64_t columns = weights_.band_start[band_end] - begin;
  float* value = workspace_->get() + first_value_ + worker * value_floats_;
  const uint64_t rows = weights_.band_rows;
  if (columns == 0) return {value, begin};
  if (const Half* halves = weights_.value.halves()) {
    kernels_->widen(halves + begin * rows, columns * rows, value);
    return {value, begin};
  }
  float* to = value;
  for (; band < band_end; ++band) {
    const uint32_t first = weights_.band_start[band];
    const uint64_t count = (weights_.band_start[band + 1] - first) * rows;
    kernels_->widen_integers(weights_.value.integers() + first * rows, count,
                             tables_.scale() + band * kScales, to);
    to += count;
  }
  return {value, begin};
}

void BandedDriver::BeginInvoke(const Tensors& tensors, bool pack_bias) {
  tensors_ = tensors;
  if (pack_bias && !tensors.again) tables_.PackBias(tensors.bias);
}

void BandedDriver::BeginImage(int n) {
  const ConvGeometry& g = geometry_;
  const int64_t output = int64_t{n} * g.out_h * g.out_w * weights_.rows;
  input_ = tensors_.input + int64_t{n} * g.in_h * g.in_w * g.in_c;
  output_ = tensors_.output + output;
  residual_.values =
      tensors_.residual == nullptr ? nullptr : tensors_.residual + output;
}

void BandedDriver::FillMissingRows(const Tiling& tiling, int i,
                                   int64_t output_stride) const {
  const Tile& tile = tiling.tile(i);
  for (int s = 0; s < tile.segments; ++s) {
    tables_.FillMissingRows(output_ + tiling.segments(tile)[s].output,
                            tile.length, output_stride);
  }
}

void BandedDriver::AddResidual(const Tiling& tiling, int i,
                               int64_t output_stride) const {
  if (residual_.values == nullptr) return;
  const Tile& tile = tiling.tile(i);
  // Pixels of a row follow each other, those down a column do not.
  const bool row = output_stride == weights_.rows;
  const int64_t count = row ? output_stride * tile.length : weights_.rows;
  for (int s = 0; s < tile.segments; ++s) {
    const int64_t output = tiling.segments(tile)[s].output;
    for (int p = 0; p < (row ? 1 : tile.length); ++p) {
      residual_.Complete(output + p * output_stride, count, output_);
    }
  }
}

void BandedDriver::Run(int tasks, ThreadPool::Function function, void* self) {
  if (threads_ > 1 && tasks > 1) {
    pool_->Run(tasks, function, self);
  } else {
    for (int task = 0; task < tasks; ++task) function(self, task, 0);
  }
}

BandFmas FmasOfBands(const Problem& problem) {
  const int height = static_cast<int>(problem.bands->band_rows);
  const int lanes = problem.kernels->lanes;
  if (height <= lanes) return {1, FmasPerCycle(problem.kernels->isa, height)};
  return {static_cast<double>(height) / lanes, problem.fmas_a_cycle()};
}

bool WithHalfKernels(Problem* problem) {
  if (problem->half_kernels == nullptr || problem->bands == nullptr ||
      problem->bands->value.type() == ValueType::kInt8) {
    return false;
  }
  problem->kernels = problem->half_kernels;
  return true;
}

double WidenCycles(const Problem& problem) {
  const BandedView& w = *problem.bands;
  return w.value.floats() != nullptr || problem.kernels->narrow != nullptr
             ? 0
             : kWidenCycles * double(w.column_count) * w.band_rows;
}

double TableBytes(const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  return double(sizeof(uint32_t)) * problem.bands->band_count *
             (g.kernel_h + 1.0) +
         2.0 * sizeof(ptrdiff_t) * g.kernel_h * g.kernel_w;
}

double StoreCycles(const BandedView& weights, double pixels) {
  const double crowded = CacheSets(weights.rows) == 1 ? 90 : 0;
  return 30 + 2.8 / 16 * weights.band_rows * pixels + crowded;
}

}  // namespace tfrewprune
