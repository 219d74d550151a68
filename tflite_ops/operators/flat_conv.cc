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
  const BandedView* weights = problem.bands;
  const ConvGeometry& g = problem.geometry;
  if (weights == nullptr || weights->index_bytes != 2 || g.batch == 0 ||
      problem.pixels() == 0 ||
      Max(g.stride_h, g.stride_w) > kMostPlanesStride) {
    return nullptr;
  }
  for (int i = 0; i < problem.kernels->flat_count; ++i) {
    const FlatKernelRow& row = problem.kernels->flat[i];
    if (row.band_rows == static_cast<int>(weights->band_rows)) return &row;
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

// Where it is fair every worker gets whole blocks; else the layout is that of
// one thread.
const char* FairLayout(const ConvGeometry& g, int64_t run_pixels, int threads,
                       FlatLayout* layout) {
  if (const char* error = layout->Prepare(g, run_pixels, threads)) return error;
  const int64_t rows = layout->block_rows(), pixels = layout->block_pixels();
  const int64_t blocks = DivideUp(g.out_h, rows) * DivideUp(g.out_w, pixels);
  const int64_t busiest = DivideUp(blocks, threads) * rows * pixels * threads;
  if (threads == 1 ||
      0.9 * static_cast<double>(busiest) <= double(g.out_h) * g.out_w) {
    return nullptr;
  }
  return layout->Prepare(g, run_pixels, 1);
}

// They follow each other in the output.
int64_t StoredPixels(const FlatRun& run) {
  int64_t pixels = 0;
  for (uint32_t stored : run.stored) pixels += __builtin_popcount(stored);
  return pixels;
}

}  // namespace

double FlatConv::Cycles(const Problem& problem) {
  const FlatKernelRow* kernels = FindKernels(problem);
  ConvGeometry g = problem.geometry;
  FlatLayout layout;
  if (kernels == nullptr || JoinPixels(&g) != nullptr ||
      FairLayout(g, RunPixels(*kernels), problem.threads(), &layout) !=
          nullptr) {
    return kUnsupported;
  }
  const BandedView& w = *problem.bands;
  const double blocks = double(g.batch) *
                        DivideUp(g.out_h, layout.block_rows()) *
                        DivideUp(g.out_w, layout.block_pixels());
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
  transpose_ = problem.kernels->transpose;
  kernels_ = FindKernels(problem);
  const ConvGeometry& g = geometry_;
  const int max_units = MostUnits(*kernels_, g, weights_.rows);
  if (const char* error =
          FairLayout(g, RunPixels(*kernels_), threads_, &layout_)) {
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
  const auto tap_offset = [&](int64_t y, int64_t x) {
    return layout_.TapOffset(y * g.dilation_h, x * g.dilation_w);
  };
  if (!MakeBlocks(layout_.block_rows(), layout_.block_pixels(), add_runs) ||
      !ChooseSharing(int64_t{layout_.block_rows()} * layout_.block_pixels(),
                     kStoredRows / weights_.band_rows) ||
      !PrepareStarts() ||
      !TapOffsets(layout_.channel_stride(), tap_offset, &tap_offset_)) {
    return kOutOfMemory;
  }
  planes_layer_ = MakePlanesLayer(weights_, g, tables_, start_.get(),
                                  tap_offset_.get(), layout_.channel_stride());
  return ReservePlanes(layout_.floats(),
                       int64_t{kStoredRows} * kFlatUnit * max_units);
}

void FlatConv::Store(const Block& block, float* planes, int share,
                     int shares) const {
  layout_.StoreRows(block, input_, transpose_, planes, share, shares);
}

void FlatConv::RunItem(int item, const BandValues& values, const float* planes,
                       uint32_t band, uint32_t band_end, float* stage) const {
  const FlatRun& run = runs_.run(item);
  PlanesLayer layer = planes_layer_;
  layer.value = values.value;
  layer.value_begin = values.begin;
  kernels_->kernel[run.units - 1](layer, band, band_end, run, planes, output_,
                                  stage);
}

void FlatConv::FillMissingRows(int item) const {
  const FlatRun& run = runs_.run(item);
  tables_.FillMissingRows(output_ + run.output, StoredPixels(run),
                          planes_layer_.output_stride);
}

void FlatConv::AddResidual(int item) const {
  const FlatRun& run = runs_.run(item);
  residual_.Complete(run.output,
                     StoredPixels(run) * planes_layer_.output_stride, output_);
}

}  // namespace tfrewprune
