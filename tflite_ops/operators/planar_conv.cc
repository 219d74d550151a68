// SPDX-License-Identifier: Apache-2.0
#include "operators/planar_conv.h"

namespace tfrewprune {
namespace {

// Bytes of planes a block may fill: well inside of a second-level cache, with
// room for weights and output; without a halo a first-level cache's worth.
constexpr int64_t kBlockBytes = 384 << 10;
constexpr int64_t kPointwiseBlockBytes = 64 << 10;
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

int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The largest size up to `limit` that cuts `total` into as many parts for every
// thread; a multiple of `unit`.
int64_t FairShare(int64_t total, int64_t limit, int64_t unit, int threads) {
  for (int64_t parts = 1;; ++parts) {
    const int64_t size =
        DivideUp(DivideUp(total, parts * threads), unit) * unit;
    if (size <= limit || size == unit) return Min(size, total);
  }
}

// Sets of the first-level cache that lines `stride` floats apart fall onto.
int64_t CacheSets(int64_t stride) {
  int64_t sets = 1;
  while (sets < 64 && sets * stride % (64 * 16) != 0) sets *= 2;
  return sets;
}

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
  if (const char* error = PrepareLayout()) return error;
  if (const char* error = PrepareColumns()) return error;
  if (const char* error = PrepareBlocks()) return error;

  layer_.value = weights.value;
  layer_.start = start_.get();
  layer_.start_stride = static_cast<uint32_t>(g.kernel_h) + 1;
  layer_.column = static_cast<const uint16_t*>(weights.column);
  layer_.channel_stride = channel_stride_ * ptrdiff_t{sizeof(float)};
  layer_.tap_scale = TapScale(static_cast<uint32_t>(g.in_c));
  layer_.tap_offset = tap_offset_.get();
  layer_.bias = tables.bias();
  layer_.row = tables.row();
  layer_.full_run = tables.full_run();
  layer_.output_stride = static_cast<ptrdiff_t>(weights.rows);
  layer_.minimum = tables.minimum();
  layer_.maximum = tables.maximum();

  const int64_t planes = planes_floats_ * (block_parallel_ ? threads_ : 1);
  const int64_t tile_pixels = kRegisters * 16 / weights.band_rows;
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

// Chooses the block, and where a stored row and its phases lie.
const char* PlanarConv::PrepareLayout() {
  const ConvGeometry& g = geometry_;
  if (!phase_.Allocate(g.stride_w)) return kOutOfMemory;
  for (int p = 0; p < g.stride_w; ++p) phase_[p].reach = -1;
  for (int j = 0; j < g.kernel_w; ++j) {
    const int64_t tap = int64_t{j} * g.dilation_w;
    Phase& phase = phase_[tap % g.stride_w];
    phase.reach = Max(phase.reach, tap / g.stride_w);
  }
  int64_t phases = 0, reach = 0;
  for (int p = 0; p < g.stride_w; ++p) {
    if (phase_[p].reach < 0) continue;
    ++phases;
    reach += phase_[p].reach;
  }
  pack_rows_ = g.kernel_h == 1;
  const int64_t halo_rows = int64_t{g.kernel_h - 1} * g.dilation_h;
  const int64_t row_step = pack_rows_ ? 1 : g.stride_h;
  auto floats = [&](int64_t rows, int64_t pixels) {
    return ((rows - 1) * row_step + halo_rows + 1) * (phases * pixels + reach) *
           g.in_c;
  };
  const bool pointwise = g.kernel_h == 1 && g.kernel_w == 1;
  const int64_t budget =
      (pointwise ? kPointwiseBlockBytes : kBlockBytes) / sizeof(float);
  // Blocks of whole rows; of parts of one row where even that is too much.
  int64_t rows = g.out_h, pixels = g.out_w;
  const int64_t tile = kRegisters * 16 / weights_.band_rows;
  if (g.out_h == 0 || g.out_w == 0 || g.batch == 0) {
    rows = pixels = 1;
  } else {
    while (rows > 1 && floats(rows, pixels) > budget) --rows;
    rows = DivideUp(g.out_h, DivideUp(g.out_h, rows));  // equal blocks
    if (rows == 1 && floats(1, pixels) > budget && pixels > tile) {
      int64_t tiles = DivideUp(pixels, tile);
      while (tiles > 1 && floats(1, tiles * tile) > budget) --tiles;
      pixels = Min(pixels, tiles * tile);
    }
    if (threads_ > 1 && g.out_h == 1) {
      pixels = FairShare(g.out_w, pixels, unit_, threads_);
    } else if (threads_ > 1) {
      rows = FairShare(g.out_h, rows, 1, threads_);
    }
  }
  block_rows_ = static_cast<int>(rows);
  block_pixels_ = static_cast<int>(pixels);

  // A stored row starts with its first pixel of the image, at a cache line; the
  // zeros left of it are those that end the row before.
  const bool part_of_row = pixels < g.out_w;
  int64_t border = 0;
  for (int p = 0; p < g.stride_w; ++p) {
    border = Max(border, DivideUp(Max(g.pad_left - p, 0), g.stride_w));
    border = Max(border, phase_[p].reach);
  }
  const int64_t align = pixels > 8 ? 16 : 8;
  row_pitch_ = 0;
  int last = 0;
  for (int p = 0; p < g.stride_w; ++p) {
    Phase& phase = phase_[p];
    if (phase.reach < 0) continue;
    last = p;
    const int64_t left =
        part_of_row ? 0 : DivideUp(Max(g.pad_left - p, 0), g.stride_w);
    const int64_t count = pixels + phase.reach;
    const int64_t image =
        part_of_row ? count
                    : Min(count, DivideUp(Max(g.in_w + g.pad_left - p, 0),
                                          g.stride_w)) -
                          left;
    phase.plane = row_pitch_ - left;
    phase.begin = row_pitch_;
    phase.floats = DivideUp(Max(image, 0) + border, align) * align;
    row_pitch_ += phase.floats;
  }
  const int64_t stored_rows = (rows - 1) * row_step + halo_rows + 1;
  // Channels within rows: what a tile reads lies on few pages. Sixteen channels
  // are stored together: to sets of their own.
  if (CacheSets(row_pitch_) < 16) {
    row_pitch_ += 16;
    phase_[last].floats += 16;
  }
  channel_stride_ = row_pitch_;
  row_pitch_ *= g.in_c;
  first_ = DivideUp(border, 16) * 16;
  planes_floats_ =
      DivideUp(first_ + row_pitch_ * stored_rows + 64 + border, 16) * 16;
  if (planes_floats_ > INT32_MAX / int64_t{sizeof(float)}) {
    return "input too large: one row of it must stay below 2 GiB";
  }
  return nullptr;
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
    tap_offset_[tap] =
        static_cast<ptrdiff_t>(y * row_pitch_ + phase_[x % g.stride_w].plane +
                               x / g.stride_w + first_ -
                               tap * g.in_c * channel_stride_) *
        ptrdiff_t{sizeof(float)};
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
    row.input = (pack_rows_ ? y - block->y : top - block->in_y) * row_pitch_;
    row.output = (int64_t{y} * g.out_w + block->x) * weights_.rows;
    if (!tiling_.Add(row)) return false;
  }
  if (!tiling_.Flush()) return false;
  block->tile_end = tiling_.tiles();
  return true;
}

const char* PlanarConv::PrepareBlocks() {
  const ConvGeometry& g = geometry_;
  tiling_.Begin(shape_, shapes_, unit_, 1, weights_.rows);
  const int64_t down = DivideUp(g.out_h, block_rows_);
  const int64_t across = DivideUp(g.out_w, block_pixels_);
  if (!block_.Allocate(down * across)) return kOutOfMemory;
  blocks_ = 0;
  for (int64_t i = 0; i < down * across; ++i) {
    Block& block = block_[blocks_++];
    block.y = static_cast<int>(i / across * block_rows_);
    block.x = static_cast<int>(i % across * block_pixels_);
    block.y_end = static_cast<int>(Min(g.out_h, block.y + block_rows_));
    block.x_end = static_cast<int>(Min(g.out_w, block.x + block_pixels_));
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
      DivideUp(blocks_, threads_) * block_rows_ * block_pixels_ * threads_;
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

// Transposes stored rows [begin, end) of a block.
void PlanarConv::TransposeRows(const Block& block, float* planes, int begin,
                               int end) const {
  const ConvGeometry& g = geometry_;
  const bool part_of_row = block_pixels_ < g.out_w;
  const int64_t step = pack_rows_ ? g.stride_h : 1;
  int64_t in_y = pack_rows_ ? int64_t{block.y} * step - g.pad_top : block.in_y;
  in_y += begin * step;
  for (; begin < end && in_y < 0; ++begin) in_y += step;
  const int rows = static_cast<int>(
      Min(end - begin, in_y >= g.in_h ? 0 : DivideUp(g.in_h - in_y, step)));
  if (rows <= 0) return;
  float* first = planes + first_ + begin * row_pitch_;
  if (begin == 0 || in_y < step) {  // no row before it ends in its zeros
    for (int64_t i = 1; i <= first_; ++i) first[-i] = 0.0f;
  }
  for (int p = 0; p < g.stride_w; ++p) {
    if (phase_[p].reach < 0) continue;
    const Span span = StoredPixels(block, p);
    if (part_of_row && span.from == span.to) continue;
    TransposeJob job;
    job.in =
        input_ + (in_y * g.in_w + span.first + span.from * g.stride_w) * g.in_c;
    job.in_stride = ptrdiff_t{g.stride_w} * g.in_c;
    job.in_row_stride = step * g.in_w * g.in_c;
    job.rows = rows;
    job.pixels = static_cast<int>(span.to - span.from);
    job.zeros =
        part_of_row ? 0 : static_cast<int>(phase_[p].floats) - job.pixels;
    job.channels = g.in_c;
    job.out = first + phase_[p].begin + (part_of_row ? span.from : 0);
    job.plane_stride = channel_stride_;
    job.out_row_stride = row_pitch_;
    transpose_(job);
  }
}

PlanarConv::Span PlanarConv::StoredPixels(const Block& block, int phase) const {
  const ConvGeometry& g = geometry_;
  Span span;
  // Stored pixel i is input pixel stride * (x + i) + phase - pad.
  span.first = int64_t{block.x} * g.stride_w + phase - g.pad_left;
  span.count = block.x_end - block.x + phase_[phase].reach;
  span.from = Min(span.count, DivideUp(Max(-span.first, 0), g.stride_w));
  span.to =
      Max(span.from,
          Min(span.count, DivideUp(Max(g.in_w - span.first, 0), g.stride_w)));
  return span;
}

// Zeros left and right of the image where blocks are parts of rows: the borders
// move from block to block. (Else the transposition writes them.)
void PlanarConv::ClearBorders(const Block& block, float* planes) const {
  const ConvGeometry& g = geometry_;
  if (block_pixels_ >= g.out_w) return;
  const int rows = StoredRows(block);
  for (int p = 0; p < g.stride_w; ++p) {
    if (phase_[p].reach < 0) continue;
    const Span span = StoredPixels(block, p);
    if (span.from == 0 && span.to == span.count) continue;
    float* out = planes + first_ + phase_[p].plane;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < g.in_c; ++c) {
        float* row = out + c * channel_stride_ + r * row_pitch_;
        for (int64_t i = 0; i < span.from; ++i) row[i] = 0.0f;
        for (int64_t i = span.to; i < span.count; ++i) row[i] = 0.0f;
      }
    }
  }
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
  for (; band < band_end; band += bands_at_once_) {
    const uint32_t stop =
        static_cast<uint32_t>(Min(band_end, int64_t{band} + bands_at_once_));
    for (int i = tile_begin; i < tile_end; ++i) {
      RunTile(tiling_.tile(i), planes, band, stop, stage);
    }
  }
  if (!first) return;
  for (int i = tile_begin; i < tile_end; ++i) {
    const Tile& tile = tiling_.tile(i);
    const Segment* segments = tiling_.segments(tile);
    for (int s = 0; s < tile.segments; ++s) {
      tables_->FillMissingRows(output_ + segments[s].output, tile.length,
                               layer_.output_stride);
    }
  }
}

void PlanarConv::Run(int tasks, ThreadPool::Function function) {
  if (threads_ > 1 && tasks > 1) {
    pool_->Run(tasks, function, this);
  } else {
    for (int task = 0; task < tasks; ++task) function(this, task, 0);
  }
}

void PlanarConv::Invoke(const float* input, float* output) {
  const ConvGeometry& g = geometry_;
  const int64_t in_image = int64_t{g.in_h} * g.in_w * g.in_c;
  const int64_t out_image = int64_t{g.out_h} * g.out_w * weights_.rows;
  for (int n = 0; n < g.batch; ++n) {
    input_ = input + n * in_image;
    output_ = output + n * out_image;
    if (block_parallel_ || threads_ == 1) {
      Run(blocks_, [](void* context, int task, int worker) {
        PlanarConv* self = static_cast<PlanarConv*>(context);
        const Block& block = self->block_[task];
        float* planes = self->workspace_->get() + worker * self->planes_floats_;
        self->TransposeRows(block, planes, 0, self->StoredRows(block));
        self->ClearBorders(block, planes);
        self->RunBands(planes, block.tile, block.tile_end, 0,
                       self->weights_.band_count, worker);
      });
      continue;
    }
    for (int b = 0; b < blocks_; ++b) {
      shared_ = &block_[b];
      Run(static_cast<int>(DivideUp(StoredRows(*shared_), kRowsPerTask)),
          [](void* context, int task, int) {
            PlanarConv* self = static_cast<PlanarConv*>(context);
            const Block& block = *self->shared_;
            float* planes = self->workspace_->get();
            if (task == 0) self->ClearBorders(block, planes);
            self->TransposeRows(
                block, planes, task * kRowsPerTask,
                static_cast<int>(
                    Min(self->StoredRows(block), (task + 1) * kRowsPerTask)));
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
    }
  }
}

}  // namespace tfrewprune
