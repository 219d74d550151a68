// SPDX-License-Identifier: Apache-2.0
#include "operators/planar_conv.h"

namespace tfrewprune {
namespace {

// A tile runs over bands of about so many bytes of weights before the next tile
// does: more would have to come from afar again for every tile.
constexpr uint64_t kBandBytes = 192 << 10;
// Where more than this many of a tile's pixels fall onto one of the 64 sets of
// the first-level cache (a dozen ways and the store queue), its stores fight
// for them; they are collected for this many rows first.
constexpr int64_t kPixelsPerSet = 14;
constexpr int64_t kStageRows = 128;
// Input rows that one task transposes when several threads share a block.
constexpr int kRowsPerTask = 4;
constexpr int kRegisters = 28;  // accumulators of a full tile

}  // namespace

bool PlanarConv::Supports(const Kernels& kernels, const BandedView& weights) {
  if (weights.index_bytes != 2) return false;
  for (int i = 0; i < kernels.planar_count; ++i) {
    if (kernels.planar[i].band_rows == static_cast<int>(weights.band_rows)) {
      return true;
    }
  }
  return false;
}

const char* PlanarConv::Prepare(const BandedView& weights,
                                const ConvGeometry& geometry,
                                const BandTables& tables,
                                const Kernels& kernels, ThreadPool* pool,
                                Workspace* workspace) {
  weights_ = weights;
  geometry_ = geometry;
  tables_ = &tables;
  pool_ = pool;
  workspace_ = workspace;
  threads_ = pool == nullptr ? 1 : pool->threads();
  transpose_ = kernels.transpose;
  ConvGeometry& g = geometry_;
  if (g.kernel_h == 1 && g.kernel_w == 1 && g.stride_h == 1 &&
      g.stride_w == 1 && g.pad_top == 0 && g.pad_left == 0 &&
      g.out_h == g.in_h && g.out_w == g.in_w) {
    // Pixels do not know of each other: all of them are one row.
    const int64_t pixels = int64_t{g.batch} * g.out_h * g.out_w;
    if (pixels > INT32_MAX) return "too many pixels for one operator";
    g.batch = g.in_h = g.out_h = 1;
    g.in_w = g.out_w = static_cast<int>(pixels);
  }

  shapes_ = 0;
  for (int i = 0; i < kernels.planar_count; ++i) {
    const PlanarKernelRow& row = kernels.planar[i];
    if (row.band_rows != static_cast<int>(weights.band_rows)) continue;
    unit_ = row.unit;
    const double registers = row.band_rows * row.unit / 16.0;
    // Two FMAs a cycle; a chain of dependent ones takes four cycles each.
    double cycles = 0.5 * registers * row.length * row.max_segments;
    if (cycles < 4) cycles = 4;
    kernel_[shapes_] = &row;
    shape_[shapes_++] = {row.length, row.max_segments, cycles};
  }
  const int64_t tile_pixels = kRegisters * 16 / weights.band_rows;
  if (const char* error = layout_.Prepare(g, tile_pixels, unit_, threads_)) {
    return error;
  }
  if (const char* error = PrepareColumns()) return error;
  if (const char* error = PrepareBlocks()) return error;

  layer_.value = weights.value;
  layer_.start = start_.get();
  layer_.start_stride = static_cast<uint32_t>(g.kernel_h) + 1;
  layer_.column = static_cast<const uint16_t*>(weights.column);
  layer_.channel_stride = layout_.channel_stride() * ptrdiff_t{sizeof(float)};
  layer_.tap_scale = TapScale(static_cast<uint32_t>(g.in_c));
  layer_.tap_offset = tap_offset_.get();
  layer_.bias = tables.bias();
  layer_.row = tables.row();
  layer_.full_run = tables.full_run();
  layer_.output_stride = static_cast<ptrdiff_t>(weights.rows);
  layer_.minimum = tables.minimum();
  layer_.maximum = tables.maximum();

  const int64_t planes = layout_.floats() * (block_parallel_ ? threads_ : 1);
  staged_ = tile_pixels > kPixelsPerSet * CacheSets(weights.rows);
  stage_first_ = planes;
  stage_floats_ = 0;
  if (!staged_) return workspace->Reserve(planes) ? nullptr : kOutOfMemory;
  stage_layer_ = layer_;
  stage_bands_ = static_cast<uint32_t>(Max(1, kStageRows / weights.band_rows));
  const int64_t pitch = int64_t{stage_bands_} * weights.band_rows + 16;
  stage_layer_.output_stride = static_cast<ptrdiff_t>(pitch);
  stage_floats_ = pitch * tile_pixels;
  return workspace->Reserve(planes + stage_floats_ * threads_) ? nullptr
                                                               : kOutOfMemory;
}

// Where each tap's channels begin in the planes, and each kernel row's columns
// in their band.
const char* PlanarConv::PrepareColumns() {
  const ConvGeometry& g = geometry_;
  const uint32_t stride = static_cast<uint32_t>(g.kernel_h) + 1;
  const int64_t taps = int64_t{g.kernel_h} * g.kernel_w;
  if (!tap_offset_.Allocate(taps) ||
      !start_.Allocate(uint64_t{weights_.band_count} * stride)) {
    return kOutOfMemory;
  }
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t x = tap % g.kernel_w * g.dilation_w;
    const int64_t y = tap / g.kernel_w * g.dilation_h;
    tap_offset_[tap] = static_cast<ptrdiff_t>(
        (layout_.TapOffset(y, x) - tap * g.in_c * layout_.channel_stride()) *
        int64_t{sizeof(float)});
  }
  const uint32_t row_columns = static_cast<uint32_t>(g.kernel_w) * g.in_c;
  for (uint32_t b = 0; b < weights_.band_count; ++b) {
    uint32_t* start = start_.get() + uint64_t{b} * stride;
    uint32_t next = 0;  // kernel row whose first column is looked for
    for (uint64_t i = weights_.band_start[b]; i < weights_.band_start[b + 1];
         ++i) {
      const uint32_t tap_y = weights_.Column(i) / row_columns;
      while (next <= tap_y) start[next++] = static_cast<uint32_t>(i);
    }
    while (next < stride) start[next++] = weights_.band_start[b + 1];
  }
  return nullptr;
}

bool PlanarConv::AddTiles(Block* block) {
  const ConvGeometry& g = geometry_;
  block->tile = tiling_.tiles();
  for (int y = block->y; y < block->y_end; ++y) {
    const int64_t top = int64_t{y} * g.stride_h - g.pad_top;
    PixelRow row;
    row.pixels = block->x_end - block->x;
    row.tap_begin =
        top < 0
            ? static_cast<int>(Min(DivideUp(-top, g.dilation_h), g.kernel_h))
            : 0;
    row.tap_end = static_cast<int>(
        Max(row.tap_begin,
            Min(g.kernel_h,
                top >= g.in_h ? 0 : DivideUp(g.in_h - top, g.dilation_h))));
    row.input = layout_.RowOffset(*block, y);
    row.output = (int64_t{y} * g.out_w + block->x) * weights_.rows;
    if (!tiling_.Add(row)) return false;
  }
  if (!tiling_.Flush()) return false;
  block->tile_end = tiling_.tiles();
  return true;
}

const char* PlanarConv::PrepareBlocks() {
  const ConvGeometry& g = geometry_;
  const int block_rows = layout_.block_rows();
  const int block_pixels = layout_.block_pixels();
  tiling_.Begin(shape_, shapes_, unit_, 1, weights_.rows);
  const int64_t down = DivideUp(g.out_h, block_rows);
  const int64_t across = DivideUp(g.out_w, block_pixels);
  if (!block_.Allocate(down * across)) return kOutOfMemory;
  blocks_ = 0;
  for (int64_t i = 0; i < down * across; ++i) {
    Block& block = block_[blocks_++];
    block.y = static_cast<int>(i / across * block_rows);
    block.x = static_cast<int>(i % across * block_pixels);
    block.y_end = static_cast<int>(Min(g.out_h, block.y + block_rows));
    block.x_end = static_cast<int>(Min(g.out_w, block.x + block_pixels));
    const int64_t top = int64_t{block.y} * g.stride_h - g.pad_top;
    const int64_t bottom = int64_t{block.y_end - 1} * g.stride_h - g.pad_top +
                           int64_t{g.kernel_h - 1} * g.dilation_h + 1;
    block.in_y = static_cast<int>(Min(Max(top, 0), g.in_h));
    block.in_y_end = static_cast<int>(Max(block.in_y, Min(bottom, g.in_h)));
    if (!AddTiles(&block)) return kOutOfMemory;
  }

  // Where it is fair every worker takes whole blocks, into planes of its own;
  // else all work on one block after the other, first on its transposition,
  // then on its tiles and bands.
  const uint64_t bytes =
      weights_.column_count * weights_.band_rows * sizeof(float);
  bands_at_once_ = Max(1, weights_.band_count);
  if (bytes > 2 * kBandBytes) {
    bands_at_once_ =
        Max(1, static_cast<int64_t>(weights_.band_count * kBandBytes / bytes));
  }
  const int64_t busiest =
      DivideUp(blocks_, threads_) * block_rows * block_pixels * threads_;
  block_parallel_ = threads_ > 1 && 0.9 * static_cast<double>(busiest) <=
                                        double(g.out_h) * g.out_w;
  tile_tasks_ = band_tasks_ = 1;
  if (threads_ > 1 && !block_parallel_ && blocks_ > 0) {
    const int tiles = block_[0].tile_end - block_[0].tile;
    const int bands = static_cast<int>(weights_.band_count);
    tile_tasks_ = static_cast<int>(Max(1, Min(tiles, 2 * threads_)));
    band_tasks_ = static_cast<int>(
        Max(1, Min(bands, DivideUp(4 * threads_, tile_tasks_))));
  }
  return nullptr;
}

void PlanarConv::RunKernel(const PlanarLayer& layer, const Tile& tile,
                           uint32_t band, uint32_t band_end,
                           const float* planes, float* output,
                           const Segment* segments) const {
  kernel_[tile.shape]->kernel[tile.segments - 1](
      layer, band, band_end, static_cast<uint32_t>(tile.tap_begin),
      static_cast<uint32_t>(tile.tap_end), tile.last, planes, output, segments);
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
}

void PlanarConv::AddResidual(const Tile& tile) const {
  const Segment* segments = tiling_.segments(tile);
  for (int s = 0; s < tile.segments; ++s) {
    residual_.Complete(segments[s].output, tile.length * layer_.output_stride,
                       output_);
  }
}

void PlanarConv::Run(int tasks, ThreadPool::Function function) {
  if (threads_ > 1 && tasks > 1) {
    pool_->Run(tasks, function, this);
  } else {
    for (int task = 0; task < tasks; ++task) function(this, task, 0);
  }
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
    if (block_parallel_ || threads_ == 1) {
      Run(blocks_, [](void* context, int task, int worker) {
        PlanarConv* self = static_cast<PlanarConv*>(context);
        const Block& block = self->block_[task];
        float* planes =
            self->workspace_->get() + worker * self->layout_.floats();
        self->layout_.StoreRows(block, self->input_, self->transpose_, planes,
                                0, self->layout_.StoredRows(block));
        self->layout_.ClearBorders(block, planes);
        self->RunBands(planes, block.tile, block.tile_end, 0,
                       self->weights_.band_count, worker);
      });
      continue;
    }
    for (int b = 0; b < blocks_; ++b) {
      shared_ = &block_[b];
      Run(static_cast<int>(
              DivideUp(layout_.StoredRows(*shared_), kRowsPerTask)),
          [](void* context, int task, int) {
            PlanarConv* self = static_cast<PlanarConv*>(context);
            const Block& block = *self->shared_;
            float* planes = self->workspace_->get();
            if (task == 0) self->layout_.ClearBorders(block, planes);
            self->layout_.StoreRows(
                block, self->input_, self->transpose_, planes,
                task * kRowsPerTask,
                static_cast<int>(Min(self->layout_.StoredRows(block),
                                     (task + 1) * kRowsPerTask)));
          });
      Run(tile_tasks_ * band_tasks_, [](void* context, int task, int worker) {
        PlanarConv* self = static_cast<PlanarConv*>(context);
        const Block& block = *self->shared_;
        const int64_t tiles = block.tile_end - block.tile;
        const int64_t t = task / self->band_tasks_;
        const uint64_t b = task % self->band_tasks_;
        const uint64_t bands = self->weights_.band_count;
        self->RunBands(
            self->workspace_->get(),
            block.tile + static_cast<int>(tiles * t / self->tile_tasks_),
            block.tile + static_cast<int>(tiles * (t + 1) / self->tile_tasks_),
            static_cast<uint32_t>(bands * b / self->band_tasks_),
            static_cast<uint32_t>(bands * (b + 1) / self->band_tasks_), worker);
      });
      if (band_tasks_ == 1 || residual_.values == nullptr) continue;
      // Only now every tile has all its bands.
      Run(tile_tasks_, [](void* context, int task, int) {
        PlanarConv* self = static_cast<PlanarConv*>(context);
        const Block& block = *self->shared_;
        const int64_t tiles = block.tile_end - block.tile;
        const int64_t end = tiles * (task + 1) / self->tile_tasks_;
        for (int64_t i = tiles * task / self->tile_tasks_; i < end; ++i) {
          self->AddResidual(
              self->tiling_.tile(block.tile + static_cast<int>(i)));
        }
      });
    }
  }
}

}  // namespace tfrewprune
