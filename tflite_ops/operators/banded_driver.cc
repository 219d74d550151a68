// SPDX-License-Identifier: Apache-2.0
#include "operators/banded_driver.h"

#include "operators/cache_sets.h"
#include "operators/integers.h"

namespace tfrewprune {

const char* BandedDriver::Begin(const Problem& problem) {
  weights_ = *problem.bands;
  geometry_ = problem.geometry;
  pool_ = problem.pool;
  threads_ = problem.threads();
  workspace_ = problem.workspace;
  residual_ = problem.MakeResidual();
  if (const char* error = JoinPixels(&geometry_)) return error;
  return tables_.Prepare(weights_, problem.kernel_activation());
}

bool BandedDriver::PrepareStarts() {
  const ConvGeometry& g = geometry_;
  return StartsOfKernelRows(weights_,
                            static_cast<uint32_t>(g.kernel_w) * g.in_c,
                            g.kernel_h, &start_);
}

int64_t BandedDriver::BandsAtOnce(int64_t group) const {
  const uint64_t bytes = weight_bytes();
  if (bytes <= 2 * kBandBytes) return Max(1, weights_.band_count);
  const int64_t bands =
      static_cast<int64_t>(weights_.band_count * kBandBytes / bytes);
  return Max(1, bands / group) * group;
}

void BandedDriver::BeginInvoke(const Tensors& tensors, bool pack_bias) {
  tensors_ = tensors;
  if (pack_bias) tables_.PackBias(tensors.bias);
}

void BandedDriver::BeginImage(int n) {
  const ConvGeometry& g = geometry_;
  const int64_t output = int64_t{n} * g.out_h * g.out_w * weights_.rows;
  input_ = tensors_.input + int64_t{n} * g.in_h * g.in_w * g.in_c;
  output_ = tensors_.output + output;
  residual_.values =
      tensors_.residual == nullptr ? nullptr : tensors_.residual + output;
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
