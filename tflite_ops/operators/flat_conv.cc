// SPDX-License-Identifier: Apache-2.0
#include "operators/flat_conv.h"

#include "kernels/planar.h"
#include "operators/planar_layout.h"

namespace tfrewprune {
namespace {

// A run goes over bands of about so many bytes of weights before the next run
// does: more would have to come from afar again for every run.
constexpr uint64_t kBandBytes = 192 << 10;
// Rows that leave the kernels together.
constexpr int kStoredRows = 16;
// Where output pixels fall onto one or two sets of the first-level cache and
// bands are short, stores to more of them than this slow each other down.
constexpr int kMostUnitsOnFewSets = 3;
// Shares of the transposition when several threads share a block.
constexpr int kSharesPerThread = 4;

const FlatKernelRow* FindKernels(const Kernels& kernels, uint32_t band_rows) {
  for (int i = 0; i < kernels.flat_count; ++i) {
    if (kernels.flat[i].band_rows == static_cast<int>(band_rows)) {
      return &kernels.flat[i];
    }
  }
  return nullptr;
}

// They follow each other in the output.
int64_t StoredPixels(const FlatRun& run) {
  int64_t pixels = 0;
  for (uint32_t stored : run.stored) pixels += __builtin_popcount(stored);
  return pixels;
}

}  // namespace

bool FlatConv::Supports(const Kernels& kernels, const BandedView& weights) {
  return weights.index_bytes == 2 &&
         FindKernels(kernels, weights.band_rows) != nullptr;
}

const char* FlatConv::Prepare(const BandedView& weights,
                              const ConvGeometry& geometry,
                              const BandTables& tables, const Kernels& kernels,
                              ThreadPool* pool, Workspace* workspace) {
  weights_ = weights;
  geometry_ = geometry;
  tables_ = &tables;
  pool_ = pool;
  workspace_ = workspace;
  threads_ = pool == nullptr ? 1 : pool->threads();
  transpose_ = kernels.transpose;
  kernels_ = FindKernels(kernels, weights.band_rows);
  max_units_ = kernels_->max_units;
  ConvGeometry& g = geometry_;
  if (const char* error = JoinPixels(&g)) return error;
  if (IsPointwise(g) && CacheSets(weights.rows) <= 2 &&
      max_units_ > kMostUnitsOnFewSets) {
    max_units_ = kMostUnitsOnFewSets;
  }
  if (const char* error = PrepareBlocks()) return error;

  const int64_t taps = int64_t{g.kernel_h} * g.kernel_w;
  if (!tap_offset_.Allocate(taps) ||
      !StartsOfKernelRows(weights, static_cast<uint32_t>(g.kernel_w) * g.in_c,
                          g.kernel_h, &start_)) {
    return kOutOfMemory;
  }
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t y = tap / g.kernel_w * g.dilation_h;
    const int64_t x = tap % g.kernel_w * g.dilation_w;
    tap_offset_[tap] = static_cast<ptrdiff_t>(
        (layout_.TapOffset(y, x) - tap * g.in_c * layout_.channel_stride()) *
        int64_t{sizeof(float)});
  }
  layer_ = MakePlanesLayer(weights, g, tables, start_.get(), tap_offset_.get(),
                           layout_.channel_stride());

  first_stage_ = layout_.floats() * (block_parallel_ ? threads_ : 1);
  stage_floats_ = int64_t{kStoredRows} * kFlatUnit * max_units_;
  return workspace->Reserve(first_stage_ + stage_floats_ * threads_)
             ? nullptr
             : kOutOfMemory;
}

const char* FlatConv::PrepareBlocks() {
  const ConvGeometry& g = geometry_;
  const int64_t run_pixels = int64_t{kernels_->max_units} * kFlatUnit;
  block_parallel_ = false;
  // Where it is fair every worker takes whole blocks, into planes of its own;
  // else all work on one block after the other, first on its transposition,
  // then on its runs and bands.
  for (int attempt = 0; attempt < 2 && !block_parallel_; ++attempt) {
    const int owners = attempt == 0 ? threads_ : 1;
    if (const char* error = layout_.Prepare(g, run_pixels, owners)) {
      return error;
    }
    const int64_t rows = layout_.block_rows(), pixels = layout_.block_pixels();
    const int64_t blocks = DivideUp(g.out_h, rows) * DivideUp(g.out_w, pixels);
    const int64_t busiest =
        DivideUp(blocks, threads_) * rows * pixels * threads_;
    block_parallel_ = threads_ > 1 && 0.9 * static_cast<double>(busiest) <=
                                          double(g.out_h) * g.out_w;
  }

  const int block_rows = layout_.block_rows();
  const int block_pixels = layout_.block_pixels();
  const int64_t down = DivideUp(g.out_h, block_rows);
  const int64_t across = DivideUp(g.out_w, block_pixels);
  if (!block_.Allocate(down * across)) return kOutOfMemory;
  const int64_t bands = Max(1, weights_.band_count);
  runs_.Begin(
      g, layout_.pitch(), weights_.rows, max_units_,
      static_cast<int>(weights_.band_rows),
      static_cast<double>(weights_.column_count) / static_cast<double>(bands));
  blocks_ = 0;
  for (int64_t i = 0; i < down * across; ++i) {
    Block& block = block_[blocks_++];
    block.y = static_cast<int>(i / across * block_rows);
    block.x = static_cast<int>(i % across * block_pixels);
    block.y_end = static_cast<int>(Min(g.out_h, int64_t{block.y} + block_rows));
    block.x_end =
        static_cast<int>(Min(g.out_w, int64_t{block.x} + block_pixels));
    block.run = runs_.runs();
    if (!runs_.Add(block)) return kOutOfMemory;
    block.run_end = runs_.runs();
  }
  ChooseTasks();
  return nullptr;
}

void FlatConv::ChooseTasks() {
  const uint64_t bytes =
      weights_.column_count * weights_.band_rows * sizeof(float);
  const int64_t group = kStoredRows / weights_.band_rows;
  bands_at_once_ = Max(1, weights_.band_count);
  if (bytes > 2 * kBandBytes) {
    const int64_t bands =
        static_cast<int64_t>(weights_.band_count * kBandBytes / bytes);
    bands_at_once_ = Max(1, bands / group) * group;
  }
  run_tasks_ = band_tasks_ = 1;
  if (threads_ > 1 && !block_parallel_ && blocks_ > 0) {
    const int64_t runs = block_[0].run_end - block_[0].run;
    const int64_t groups = DivideUp(weights_.band_count, group);
    run_tasks_ = static_cast<int>(Max(1, Min(runs, 2 * threads_)));
    band_tasks_ = static_cast<int>(
        Max(1, Min(groups, DivideUp(4 * threads_, run_tasks_))));
  }
}

void FlatConv::RunBands(const float* planes, int run_begin, int run_end,
                        uint32_t band, uint32_t band_end, float* stage) const {
  const bool first = band == 0;
  const bool all = first && band_end == weights_.band_count;
  do {
    const uint32_t stop =
        static_cast<uint32_t>(Min(band_end, int64_t{band} + bands_at_once_));
    for (int i = run_begin; i < run_end; ++i) {
      const FlatRun& run = runs_.run(i);
      kernels_->kernel[run.units - 1](layer_, band, stop, run, planes, output_,
                                      stage);
      if (stop < band_end) continue;
      if (first) {
        tables_->FillMissingRows(output_ + run.output, StoredPixels(run),
                                 layer_.output_stride);
      }
      if (all) AddResidual(run);
    }
    band = stop;
  } while (band < band_end);
}

void FlatConv::AddResidual(const FlatRun& run) const {
  residual_.Complete(run.output, StoredPixels(run) * layer_.output_stride,
                     output_);
}

void FlatConv::Run(int tasks, ThreadPool::Function function) {
  if (threads_ > 1 && tasks > 1) {
    pool_->Run(tasks, function, this);
  } else {
    for (int task = 0; task < tasks; ++task) function(this, task, 0);
  }
}

void FlatConv::Invoke(const float* input, float* output,
                      const Residual& residual) {
  const ConvGeometry& g = geometry_;
  const int64_t in_image = int64_t{g.in_h} * g.in_w * g.in_c;
  const int64_t out_image = int64_t{g.out_h} * g.out_w * weights_.rows;
  for (int n = 0; n < g.batch; ++n) {
    input_ = input + n * in_image;
    output_ = output + n * out_image;
    residual_ = residual.Image(n * out_image);
    if (block_parallel_ || threads_ == 1) {
      Run(blocks_, [](void* context, int task, int worker) {
        FlatConv* self = static_cast<FlatConv*>(context);
        const Block& block = self->block_[task];
        float* planes = self->Planes(worker);
        self->layout_.StoreRows(block, self->input_, self->transpose_, planes,
                                0, 1);
        self->RunBands(planes, block.run, block.run_end, 0,
                       self->weights_.band_count, self->Stage(worker));
      });
      continue;
    }
    for (int b = 0; b < blocks_; ++b) {
      shared_ = &block_[b];
      Run(kSharesPerThread * threads_, [](void* context, int task, int) {
        FlatConv* self = static_cast<FlatConv*>(context);
        self->layout_.StoreRows(*self->shared_, self->input_, self->transpose_,
                                self->Planes(0), task,
                                kSharesPerThread * self->threads_);
      });
      Run(run_tasks_ * band_tasks_, [](void* context, int task, int worker) {
        FlatConv* self = static_cast<FlatConv*>(context);
        const int64_t bands = self->weights_.band_count;
        const int64_t group = kStoredRows / self->weights_.band_rows;
        const int64_t groups = DivideUp(bands, group);
        const int r = task / self->band_tasks_;
        const int64_t b = task % self->band_tasks_;
        self->RunBands(
            self->Planes(0), self->FirstRun(r), self->FirstRun(r + 1),
            static_cast<uint32_t>(groups * b / self->band_tasks_ * group),
            static_cast<uint32_t>(
                Min(bands, groups * (b + 1) / self->band_tasks_ * group)),
            self->Stage(worker));
      });
      if (band_tasks_ == 1 || residual_.values == nullptr) continue;
      // Only now every run has all its bands.
      Run(run_tasks_, [](void* context, int task, int) {
        FlatConv* self = static_cast<FlatConv*>(context);
        for (int i = self->FirstRun(task); i < self->FirstRun(task + 1); ++i) {
          self->AddResidual(self->runs_.run(i));
        }
      });
    }
  }
}

}  // namespace tfrewprune
