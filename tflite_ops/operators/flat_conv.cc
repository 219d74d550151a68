// SPDX-License-Identifier: Apache-2.0
#include "operators/flat_conv.h"

#include "operators/cache_sets.h"

namespace tfrewprune {
namespace {

// Rows that leave the kernels together.
constexpr int kStoredRows = 16;
// Where output pixels fall onto one or two sets of the first-level cache and
// bands are short, stores to more of them than this slow each other down.
constexpr int kMostUnitsOnFewSets = 3;

const FlatKernelRow* FindKernels(const Problem& problem) {
  for (int i = 0; i < problem.kernels->flat_count; ++i) {
    const FlatKernelRow& row = problem.kernels->flat[i];
    if (row.band_rows == static_cast<int>(problem.bands->band_rows))
      return &row;
  }
  return nullptr;
}

// Of a run.
int MostUnits(const FlatKernelRow& kernels, const ConvGeometry& g,
              uint32_t rows) {
  return IsPointwise(g) && CacheSets(rows) <= 2 &&
                 kernels.max_units > kMostUnitsOnFewSets
             ? kMostUnitsOnFewSets
             : kernels.max_units;
}

int64_t RunPixels(const FlatKernelRow& kernels) {
  return int64_t{kernels.max_units} * kFlatUnit;
}

// They follow each other in the output.
int64_t StoredPixels(const FlatRun& run) {
  int64_t pixels = 0;
  for (uint32_t stored : run.stored) pixels += __builtin_popcount(stored);
  return pixels;
}

}  // namespace

double FlatConv::Cycles(const Problem& problem) {
  if (!Supports(problem)) return kUnsupported;
  const FlatKernelRow* kernels = FindKernels(problem);
  ConvGeometry g = problem.geometry;
  PlanesLayout layout;
  if (kernels == nullptr || JoinPixels(&g) != nullptr ||
      layout.Prepare(g, RunPixels(*kernels), kFlatUnit, true,
                     problem.threads()) != nullptr) {
    return kUnsupported;
  }
  const BandedView& w = *problem.bands;
  const double blocks = double(g.batch) * layout.blocks();
  // Of a block, with the gaps between its rows.
  const int64_t units = DivideUp(
      (layout.block_rows() - 1) * layout.pitch() + layout.block_pixels(),
      kFlatUnit);
  const int64_t runs = DivideUp(units, MostUnits(*kernels, g, w.rows));
  if (!problem.Affords(sizeof(float) * double(problem.threads()) *
                           static_cast<double>(layout.floats()) +
                       sizeof(FlatRun) * blocks / g.batch *
                           static_cast<double>(runs) +
                       TableBytes(problem))) {
    return kUnsupported;
  }
  const double longest = static_cast<double>(DivideUp(units, runs));
  const double column =
      FlatColumnCycles(kernels->band_rows, longest, problem.fmas_a_cycle());
  const double columns = column * static_cast<double>(w.column_count) *
                         KernelRowShare(g) * static_cast<double>(units) /
                         longest;
  const double beside = FlatRunCycles(problem.fmas_a_cycle()) * w.band_count *
                        static_cast<double>(runs);
  const double transposed =
      kTransposeCycles * static_cast<double>(layout.floats());
  return kSetUpCycles +
         blocks * (columns + beside + transposed + WidenCycles(problem)) /
             problem.threads();
}

const char* FlatConv::Prepare(const Problem& problem) {
  if (const char* error = Begin(problem)) return error;
  kernels_ = FindKernels(problem);
  const ConvGeometry& g = geometry_;
  const int max_units = MostUnits(*kernels_, g, weights_.rows);
  if (const char* error =
          layout_.Prepare(g, RunPixels(*kernels_), kFlatUnit, true, threads_)) {
    return error;
  }
  runs_.Begin(g, layout_.pitch(), weights_.rows, max_units,
              problem.fmas_a_cycle(), static_cast<int>(weights_.band_rows),
              static_cast<double>(weights_.column_count) /
                  static_cast<double>(Max(1, weights_.band_count)));
  const auto add_runs = [&](Block* block) {
    block->item = runs_.runs();
    if (!runs_.Add(*block)) return false;
    block->item_end = runs_.runs();
    return true;
  };
  if (!MakeBlocks(add_runs)) return kOutOfMemory;
  const char* error =
      PreparePlanes(*problem.kernels, kStoredRows / weights_.band_rows,
                    int64_t{kStoredRows} * kFlatUnit * max_units, 0);
  PrepareLayer();
  return error;
}

void FlatConv::PrepareLayer() {
  layer_.start = start_.get();
  layer_.start_stride = static_cast<uint32_t>(geometry_.kernel_h) + 1;
  layer_.column = static_cast<const uint16_t*>(weights_.column);
  layer_.channel_stride =
      static_cast<ptrdiff_t>(layout_.channel_stride() * int64_t{sizeof(float)});
  layer_.tap_scale = TapScale(static_cast<uint32_t>(geometry_.in_c));
  layer_.tap_offset = tap_offset_.get();
  layer_.bias = tables_.bias();
  layer_.row = tables_.row();
  layer_.full_run = tables_.full_run();
  layer_.output_stride = static_cast<ptrdiff_t>(weights_.rows);
  layer_.minimum = tables_.minimum();
  layer_.maximum = tables_.maximum();
}

void FlatConv::RunItem(int item, const BandValues& values, const float* planes,
                       uint32_t band, uint32_t band_end, float* stage) const {
  const FlatRun& run = runs_.run(item);
  PlanesLayer layer = layer_;
  layer.value = static_cast<const float*>(values.value);
  layer.value_begin = values.begin;
  kernels_->kernel[run.units - 1](layer, band, band_end, run, planes, output_,
                                  stage);
}

void FlatConv::FillMissingRows(int item) const {
  const FlatRun& run = runs_.run(item);
  tables_.FillMissingRows(output_ + run.output, StoredPixels(run),
                          layer_.output_stride);
}

void FlatConv::AddResidual(int item) const {
  const FlatRun& run = runs_.run(item);
  residual_.Complete(run.output, StoredPixels(run) * layer_.output_stride,
                     output_);
}

}  // namespace tfrewprune
