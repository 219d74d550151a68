// SPDX-License-Identifier: Apache-2.0
//
// PlanarConv at work: what Prepare (planar_conv.cc) laid out.
#include "operators/planar_conv.h"

namespace tfrewprune {
namespace {

// Input rows that one task transposes when several threads share a block.
constexpr int kRowsPerTask = 2;

}  // namespace

void PlanarConv::RunKernel(const PlanarLayer& layer, const Tile& tile,
                           uint32_t band, uint32_t band_end,
                           const float* planes, float* output,
                           const Segment* segments) const {
  PlanarExtent extent;
  extent.tap_begin = static_cast<uint32_t>(tile.tap_begin);
  extent.tap_end = static_cast<uint32_t>(tile.tap_end);
  extent.part_begin = static_cast<uint32_t>(tile.part_begin);
  extent.part_end = static_cast<uint32_t>(tile.part_end);
  extent.down_last = tile.down_last;
  if (tile.segments == 0) {
    extent.last = tile.down_last;
    kernel_[tile.shape]->kernel[0](down_layer_, band, band_end, extent, planes,
                                   output, segments);
    return;
  }
  extent.last = tile.last;
  kernel_[tile.shape]->kernel[tile.segments - 1](layer, band, band_end, extent,
                                                 planes, output, segments);
}

// The end of the bands that follow `band` with one run of output rows.
uint32_t PlanarConv::RunEnd(uint32_t band, uint32_t band_end) const {
  const uint32_t height = weights_.band_rows;
  uint32_t end = band;
  while (end < band_end && layer_.full_run[end] &&
         layer_.row[uint64_t{end} * height] ==
             layer_.row[uint64_t{band} * height] +
                 static_cast<int32_t>((end - band) * height)) {
    ++end;
  }
  return end;
}

void PlanarConv::RunTile(const Tile& tile, const float* planes, uint32_t band,
                         uint32_t band_end, float* stage) const {
  const Segment* segments = tiling_.segments(tile);
  if (!staged_) {
    RunKernel(layer_, tile, band, band_end, planes, output_, segments);
    return;
  }
  while (band < band_end) {
    uint32_t stop =
        static_cast<uint32_t>(Min(band_end, int64_t{band} + stage_bands_));
    stop = RunEnd(band, stop);
    if (stop == band) {  // scattered rows
      RunKernel(layer_, tile, band, band + 1, planes, output_, segments);
      ++band;
      continue;
    }
    const int64_t row = layer_.row[uint64_t{band} * weights_.band_rows];
    const int64_t pitch = stage_layer_.output_stride;
    Segment staged[Tiling::kMaxSegments];
    for (int s = 0; s < tile.segments; ++s) {
      staged[s] = {segments[s].input, s * tile.length * pitch - row};
    }
    RunKernel(stage_layer_, tile, band, stop, planes, stage, staged);
    const size_t bytes =
        size_t{stop - band} * weights_.band_rows * sizeof(float);
    for (int s = 0; s < tile.segments; ++s) {
      float* to = output_ + segments[s].output + row;
      const float* from = stage + s * tile.length * pitch;
      for (int p = 0; p < tile.length; ++p) {
        memcpy(to, from, bytes);
        to += layer_.output_stride;
        from += pitch;
      }
    }
    band = stop;
  }
}

void PlanarConv::RunBands(const float* planes, int tile_begin, int tile_end,
                          uint32_t band, uint32_t band_end, int worker) {
  float* stage = workspace_->get() + stage_first_ + worker * stage_floats_;
  const bool first = band == 0;
  const bool all = first && band_end == weights_.band_count;
  do {
    const uint32_t stop =
        static_cast<uint32_t>(Min(band_end, int64_t{band} + bands_at_once_));
    for (int i = tile_begin; i < tile_end; ++i) {
      const Tile& tile = tiling_.tile(i);
      RunTile(tile, planes, band, stop, stage);
      if (stop < band_end) continue;
      if (first) FillMissingRows(tile);
      if (all) AddResidual(tile);
    }
    band = stop;
  } while (band < band_end);
}

void PlanarConv::FillMissingRows(const Tile& tile) const {
  const Segment* segments = tiling_.segments(tile);
  for (int s = 0; s < tile.segments; ++s) {
    tables_->FillMissingRows(output_ + segments[s].output, tile.length,
                             layer_.output_stride);
  }
  if (tile.down) {
    tables_->FillMissingRows(output_ + segments[tile.segments].output,
                             tile.down_pixels, layer_.down_output_stride);
  }
}

void PlanarConv::AddResidual(const Tile& tile) const {
  const Segment* segments = tiling_.segments(tile);
  for (int s = 0; s < tile.segments; ++s) {
    residual_.Complete(segments[s].output, tile.length * layer_.output_stride,
                       output_);
  }
  if (!tile.down) return;
  const int64_t first = segments[tile.segments].output;
  for (int p = 0; p < tile.down_pixels; ++p) {
    residual_.Complete(first + p * layer_.down_output_stride,
                       layer_.output_stride, output_);
  }
}

void PlanarConv::Run(int tasks, ThreadPool::Function function) {
  if (threads_ > 1 && tasks > 1) {
    pool_->Run(tasks, function, this);
  } else {
    for (int task = 0; task < tasks; ++task) function(this, task, 0);
  }
}

int PlanarConv::TransposeTasks() const {
  return static_cast<int>(DivideUp(layout_.StoredRows(*shared_), kRowsPerTask));
}

// Some rows of the shared block; the last task is what else there is.
void PlanarConv::TransposeTask(int task) {
  float* planes = workspace_->get();
  if (task == TransposeTasks()) {
    StoreRest(*shared_, planes);
    return;
  }
  layout_.StoreRows(*shared_, input_, transpose_, planes, task * kRowsPerTask,
                    static_cast<int>(Min(layout_.StoredRows(*shared_),
                                         (task + 1) * kRowsPerTask)));
}

void PlanarConv::StoreBlock(const Block& block, float* planes) const {
  layout_.StoreRows(block, input_, transpose_, planes, 0,
                    layout_.StoredRows(block));
  StoreRest(block, planes);
}

// What rows do not hold.
void PlanarConv::StoreRest(const Block& block, float* planes) const {
  layout_.ClearBorders(block, planes);
  if (down_) down_planes_.Store(input_, transpose_, planes + layout_.floats());
}

// All of one block.
void PlanarConv::BlockTask(int task, int worker) {
  const Block& block = block_[task];
  float* planes = workspace_->get() + worker * planes_floats_;
  StoreBlock(block, planes);
  RunBands(planes, block.tile, block.tile_end, 0, weights_.band_count, worker);
}

// The next task of the worker's share, or of another's: as often as there are
// tasks.
int PlanarConv::TakeTask(int worker) {
  const int tasks = tile_tasks_ * band_tasks_;
  for (int i = worker;; i = i + 1 < threads_ ? i + 1 : 0) {
    const uint32_t begin = static_cast<uint32_t>(tasks * i / threads_);
    const uint32_t end = static_cast<uint32_t>(tasks * (i + 1) / threads_);
    const uint32_t task =
        begin + __atomic_fetch_add(&worker_[i].taken, 1, __ATOMIC_RELAXED);
    if (task < end) return static_cast<int>(task);
  }
}

// Some tiles and bands of a block.
void PlanarConv::TileTask(int task, const Block& block, const float* planes,
                          int worker) {
  const int64_t tiles = block.tile_end - block.tile;
  const int64_t t = task % tile_tasks_;
  const uint64_t b = task / tile_tasks_;
  const uint64_t bands = weights_.band_count;
  RunBands(planes, block.tile + static_cast<int>(tiles * t / tile_tasks_),
           block.tile + static_cast<int>(tiles * (t + 1) / tile_tasks_),
           static_cast<uint32_t>(bands * b / band_tasks_),
           static_cast<uint32_t>(bands * (b + 1) / band_tasks_), worker);
}

// Of the only block, which every worker stores for itself.
void PlanarConv::OwnPlanesTask(int worker) {
  float* planes = workspace_->get() + worker * planes_floats_;
  if (worker_[worker].image != image_) {
    StoreBlock(block_[0], planes);
    worker_[worker].image = image_;
  }
  TileTask(TakeTask(worker), block_[0], planes, worker);
}

void PlanarConv::RunShared(const Block& block) {
  shared_ = &block;
  if (sharing_ == Sharing::kPlanes) {
    Run(TransposeTasks() + 1, [](void* context, int task, int) {
      static_cast<PlanarConv*>(context)->TransposeTask(task);
    });
    Run(tile_tasks_ * band_tasks_, [](void* context, int task, int worker) {
      PlanarConv* self = static_cast<PlanarConv*>(context);
      self->TileTask(task, *self->shared_, self->workspace_->get(), worker);
    });
  } else {
    for (int i = 0; i < threads_; ++i) worker_[i].taken = 0;
    Run(tile_tasks_ * band_tasks_, [](void* context, int, int worker) {
      static_cast<PlanarConv*>(context)->OwnPlanesTask(worker);
    });
  }
  if (band_tasks_ == 1 || residual_.values == nullptr) return;
  // Only now every tile has all its bands.
  Run(block.tile_end - block.tile, [](void* context, int task, int) {
    PlanarConv* self = static_cast<PlanarConv*>(context);
    self->AddResidual(self->tiling_.tile(self->shared_->tile + task));
  });
}

void PlanarConv::Invoke(const float* input, float* output,
                        const Residual& residual) {
  const ConvGeometry& g = geometry_;
  const int64_t in_image = int64_t{g.in_h} * g.in_w * g.in_c;
  const int64_t out_image = int64_t{g.out_h} * g.out_w * weights_.rows;
  for (int n = 0; n < g.batch; ++n) {
    input_ = input + n * in_image;
    output_ = output + n * out_image;
    residual_ = residual.Image(n * out_image);
    ++image_;
    if (sharing_ == Sharing::kNothing) {
      Run(blocks_, [](void* context, int task, int worker) {
        static_cast<PlanarConv*>(context)->BlockTask(task, worker);
      });
      continue;
    }
    for (int b = 0; b < blocks_; ++b) RunShared(block_[b]);
  }
}

}  // namespace tfrewprune
