// SPDX-License-Identifier: Apache-2.0
#include "operators/planar_conv.h"

#include "operators/cache_sets.h"

namespace tfrewprune {
namespace {

// Where more than this many of a tile's pixels fall onto one of the 64 sets of
// the first-level cache (a dozen ways and the store queue), its stores fight
// for them; they are collected for this many rows first.
constexpr int64_t kPixelsPerSet = 14;
constexpr int64_t kStageRows = 128;
constexpr double kStagedTileCycles = 216;
constexpr double kCopiedTransposeCycles = 0.4;
// Planes of a column are small beside the others, but for vast dilations.
constexpr int64_t kMostDownFloats = 64 << 10;
constexpr int kRegisters = 28;  // accumulators of a full tile
constexpr double kFmaLatency = 4;
// What is left over the FMAs of a column.
constexpr double kColumnOverhead = 1.03;

bool Supports(const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  if (problem.bands == nullptr || problem.bands->index_bytes != 2 ||
      g.batch == 0 || problem.pixels() == 0 ||
      Max(g.stride_h, g.stride_w) > kMostPlanesStride) {
    return false;
  }
  for (int i = 0; i < problem.kernels->planar_count; ++i) {
    if (problem.kernels->planar[i].band_rows ==
        static_cast<int>(problem.bands->band_rows)) {
      return true;
    }
  }
  return false;
}

int64_t TilePixels(const BandedView& weights) {
  return kRegisters * 16 / weights.band_rows;
}

bool Staged(const BandedView& weights) {
  return TilePixels(weights) > kPixelsPerSet * CacheSets(weights.rows);
}

}  // namespace

double PlanarConv::Cycles(const Problem& problem) {
  if (!Supports(problem)) return kUnsupported;
  const BandedView& w = *problem.bands;
  ConvGeometry g = problem.geometry;
  PlanarLayout layout;
  const int threads = problem.threads();
  if (JoinPixels(&g) != nullptr ||
      layout.Prepare(g, TilePixels(w), problem.kernels->planar[0].unit,
                     threads) != nullptr ||
      !problem.Affords(sizeof(float) * double(threads) *
                           static_cast<double>(layout.floats()) +
                       TableBytes(problem))) {
    return kUnsupported;
  }
  const int64_t image = int64_t{g.out_h} * g.out_w;
  const double tiles = double(g.batch) * DivideUp(image, TilePixels(w));
  const double blocks = double(g.batch) *
                        DivideUp(g.out_h, layout.block_rows()) *
                        DivideUp(g.out_w, layout.block_pixels());
  const BandFmas fmas = FmasOfBands(problem);
  // Of a tile as full as they are on average.
  double column = kColumnOverhead * double(g.batch) * image / tiles *
                  fmas.vectors / fmas.fmas_a_cycle;
  if (column < kFmaLatency) column = kFmaLatency;
  const double columns =
      tiles * column * static_cast<double>(w.column_count) * KernelRowShare(g);
  const double pixels = double(g.batch) * image / tiles;
  const double beside =
      tiles * w.band_count *
      (Staged(w) ? kStagedTileCycles : StoreCycles(w, pixels));
  // Pixels that share sets of the first-level cache are copied before.
  const bool copied = int64_t{g.stride_w} * g.in_c % 512 == 0;
  const double transposed =
      (copied ? kCopiedTransposeCycles : kTransposeCycles) * blocks *
      static_cast<double>(layout.floats());
  // One block is transposed by every thread.
  const double sharers = blocks > g.batch ? threads : 1;
  return kSetUpCycles +
         (columns + beside + blocks * WidenCycles(problem)) / threads +
         transposed / sharers;
}

const char* PlanarConv::Prepare(const Problem& problem) {
  if (const char* error = Begin(problem)) return error;
  const Kernels& kernels = *problem.kernels;
  transpose_ = kernels.transpose;
  down_ = false;
  shapes_ = 0;
  for (int i = 0; i < kernels.planar_count; ++i) {
    const PlanarKernelRow& row = kernels.planar[i];
    if (row.band_rows != static_cast<int>(weights_.band_rows)) continue;
    if (shapes_ == kMostShapes) return "more planar kernels than places";
    unit_ = row.unit;
    kernel_[shapes_] = &row;
    shape_[shapes_++] = {row.length, row.max_segments,
                         UnitCycles(row.length * row.max_segments), row.part,
                         row.down};
  }
  const int64_t tile_pixels = TilePixels(weights_);
  if (const char* error =
          layout_.Prepare(geometry_, tile_pixels, unit_, threads_)) {
    return error;
  }
  staged_ = Staged(weights_);
  if (const char* error = PrepareTiles()) return error;
  if (!ChooseSharing(int64_t{layout_.block_rows()} * layout_.block_pixels(),
                     1) ||
      !PrepareStarts() ||
      !TapOffsets(
          layout_.channel_stride(),
          [&](int64_t y, int64_t x) {
            return layout_.TapOffset(y * geometry_.dilation_h,
                                     x * geometry_.dilation_w);
          },
          &tap_offset_) ||
      (down_ && !TapOffsets(
                    down_planes_.channel_stride(),
                    [&](int64_t y, int64_t x) {
                      return down_planes_.TapOffset(static_cast<int>(y),
                                                    static_cast<int>(x));
                    },
                    &down_tap_offset_))) {
    return kOutOfMemory;
  }
  PrepareLayers();
  return ReservePlanes(layout_.floats() + (down_ ? down_planes_.floats() : 0),
                       staged_ ? stage_layer_.output_stride * tile_pixels : 0);
}

void PlanarConv::PrepareLayers() {
  static_cast<PlanesLayer&>(layer_) =
      MakePlanesLayer(weights_, geometry_, tables_, start_.get(),
                      tap_offset_.get(), layout_.channel_stride());
  layer_.down_tap_offset = down_tap_offset_.get();
  layer_.down_channel_stride =
      down_planes_.channel_stride() * ptrdiff_t{sizeof(float)};
  layer_.down_output_stride = layer_.output_stride * geometry_.out_w;
  down_layer_ = layer_;
  down_layer_.tap_offset = layer_.down_tap_offset;
  down_layer_.channel_stride = layer_.down_channel_stride;
  down_layer_.output_stride = layer_.down_output_stride;
  stage_layer_ = layer_;
  stage_bands_ = static_cast<uint32_t>(Max(1, kStageRows / weights_.band_rows));
  stage_layer_.output_stride =
      static_cast<ptrdiff_t>(int64_t{stage_bands_} * weights_.band_rows + 16);
}

void PlanarConv::BeginTiles() {
  tiling_.Begin(shape_, shapes_, unit_, 1, weights_.rows);
}

bool PlanarConv::AddTiles(Block* block) {
  const ConvGeometry& g = geometry_;
  block->item = tiling_.tiles();
  const int64_t across = block->x_end - block->x - (down_ ? 1 : 0);
  if (down_) {
    const Segment segment = {layout_.floats(), across * weights_.rows};
    if (!tiling_.AddDown(segment, g.out_h, g.kernel_h)) return false;
  }
  for (int y = block->y; y < block->y_end; ++y) {
    PixelRow row;
    row.pixels = across;
    KernelRowsInside(g, y, &row.tap_begin, &row.tap_end);
    row.input = layout_.RowOffset(*block, y);
    row.output = (int64_t{y} * g.out_w + block->x) * weights_.rows;
    if (!tiling_.Add(row)) return false;
  }
  if (!tiling_.Flush()) return false;
  block->item_end = tiling_.tiles();
  return true;
}

const char* PlanarConv::PrepareTiles() {
  BeginTiles();
  if (!MakeBlocks(layout_.block_rows(), layout_.block_pixels(),
                  [&](Block* block) { return AddTiles(block); })) {
    return kOutOfMemory;
  }
  return blocks_ != 1 || PrepareDown() ? nullptr : kOutOfMemory;
}

// Cycles that `units` take a column: two FMAs a cycle, but a chain of dependent
// ones takes four cycles each.
double PlanarConv::UnitCycles(int units) const {
  const double cycles = 0.5 * weights_.band_rows * unit_ / 16.0 * units;
  return cycles < 4 ? 4 : cycles;
}

// Of all columns by all tiles.
double PlanarConv::TileCycles() const {
  double cycles = 0;
  for (int i = 0; i < tiling_.tiles(); ++i) {
    const Tile& tile = tiling_.tile(i);
    const PlanarKernelRow& kernel = *kernel_[tile.shape];
    const int units = tile.segments * kernel.length +
                      (tile.down ? tile.down_pixels + unit_ - 1 : 0) / unit_;
    double taps = tile.tap_end - tile.tap_begin;
    if (kernel.part > 0) {
      const double part = tile.part_end - tile.part_begin;
      cycles += UnitCycles(units) * part;
      taps -= part;
    }
    cycles += UnitCycles(units - kernel.part * kernel.length) * taps;
  }
  return cycles / geometry_.kernel_h *
         static_cast<double>(weights_.column_count);
}

// Where rows are one pixel longer than units hold, a run down the last column
// takes that pixel of all of them, if its transposition is worth it. False when
// memory is out.
bool PlanarConv::PrepareDown() {
  const ConvGeometry& g = geometry_;
  if (staged_ || g.out_h == 1 || g.out_w % unit_ != 1) return true;
  if (down_planes_.Prepare(g, g.out_w - 1) != nullptr) return false;
  const int64_t floats = down_planes_.floats();
  if (floats > kMostDownFloats) return true;
  const double without = TileCycles();
  down_ = true;
  BeginTiles();
  if (AddTiles(&block_[0]) &&
      TileCycles() + kTransposeCycles * static_cast<double>(floats) < without) {
    return true;
  }
  down_ = false;
  BeginTiles();
  return AddTiles(&block_[0]);
}

// A share of the rows; the last one is also what rows do not hold.
void PlanarConv::Store(const Block& block, float* planes, int share,
                       int shares) const {
  const int64_t rows = layout_.StoredRows(block);
  layout_.StoreRows(block, input_, transpose_, planes,
                    static_cast<int>(rows * share / shares),
                    static_cast<int>(rows * (share + 1) / shares));
  if (share + 1 < shares) return;
  layout_.ClearBorders(block, planes);
  if (down_) down_planes_.Store(input_, transpose_, planes + layout_.floats());
}

void PlanarConv::RunKernel(const PlanarLayer& layer, const BandValues& values,
                           const Tile& tile, uint32_t band, uint32_t band_end,
                           const float* planes, float* output,
                           const Segment* segments) const {
  PlanarLayer own = tile.segments == 0 ? down_layer_ : layer;
  own.value = values.value;
  own.value_begin = values.begin;
  PlanarExtent extent;
  extent.tap_begin = static_cast<uint32_t>(tile.tap_begin);
  extent.tap_end = static_cast<uint32_t>(tile.tap_end);
  extent.part_begin = static_cast<uint32_t>(tile.part_begin);
  extent.part_end = static_cast<uint32_t>(tile.part_end);
  extent.down_last = tile.down_last;
  if (tile.segments == 0) {
    extent.last = tile.down_last;
    kernel_[tile.shape]->kernel[0](own, band, band_end, extent, planes, output,
                                   segments);
    return;
  }
  extent.last = tile.last;
  kernel_[tile.shape]->kernel[tile.segments - 1](own, band, band_end, extent,
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

void PlanarConv::RunItem(int item, const BandValues& values,
                         const float* planes, uint32_t band, uint32_t band_end,
                         float* stage) const {
  const Tile& tile = tiling_.tile(item);
  const Segment* segments = tiling_.segments(tile);
  if (!staged_) {
    RunKernel(layer_, values, tile, band, band_end, planes, output_, segments);
    return;
  }
  while (band < band_end) {
    uint32_t stop =
        static_cast<uint32_t>(Min(band_end, int64_t{band} + stage_bands_));
    stop = RunEnd(band, stop);
    if (stop == band) {  // scattered rows
      RunKernel(layer_, values, tile, band, band + 1, planes, output_,
                segments);
      ++band;
      continue;
    }
    const int64_t row = layer_.row[uint64_t{band} * weights_.band_rows];
    const int64_t pitch = stage_layer_.output_stride;
    Segment staged[Tiling::kMaxSegments];
    for (int s = 0; s < tile.segments; ++s) {
      staged[s] = {segments[s].input, s * tile.length * pitch - row};
    }
    RunKernel(stage_layer_, values, tile, band, stop, planes, stage, staged);
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

void PlanarConv::FillMissingRows(int item) const {
  const Tile& tile = tiling_.tile(item);
  const Segment* segments = tiling_.segments(tile);
  for (int s = 0; s < tile.segments; ++s) {
    tables_.FillMissingRows(output_ + segments[s].output, tile.length,
                            layer_.output_stride);
  }
  if (tile.down) {
    tables_.FillMissingRows(output_ + segments[tile.segments].output,
                            tile.down_pixels, layer_.down_output_stride);
  }
}

void PlanarConv::AddResidual(int item) const {
  const Tile& tile = tiling_.tile(item);
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

}  // namespace tfrewprune
