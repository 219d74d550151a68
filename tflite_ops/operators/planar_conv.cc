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
// Planes of a column are small beside the others, but for vast dilations.
constexpr int64_t kMostDownFloats = 64 << 10;
constexpr double kTransposeCycles = 70;  // of 16 x 16 floats
// Workers take bands of one block where there are as many for each of them, in
// so many tasks: the last ones should be short.
constexpr int kBandsPerThread = 4;
constexpr int kTasksPerThread = 16;
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
  if (const char* error = JoinPixels(&g)) return error;

  down_ = false;
  shapes_ = 0;
  for (int i = 0; i < kernels.planar_count; ++i) {
    const PlanarKernelRow& row = kernels.planar[i];
    if (row.band_rows != static_cast<int>(weights.band_rows)) continue;
    if (shapes_ == kMostShapes) return "more planar kernels than places";
    unit_ = row.unit;
    kernel_[shapes_] = &row;
    shape_[shapes_++] = {row.length, row.max_segments,
                         UnitCycles(row.length * row.max_segments), row.part,
                         row.down};
  }
  const int64_t tile_pixels = kRegisters * 16 / weights.band_rows;
  if (const char* error = layout_.Prepare(g, tile_pixels, unit_, threads_)) {
    return error;
  }
  staged_ = tile_pixels > kPixelsPerSet * CacheSets(weights.rows);
  if (const char* error = PrepareBlocks()) return error;
  if (const char* error = PrepareColumns()) return error;
  if (!PrepareThreads()) return kOutOfMemory;

  static_cast<PlanesLayer&>(layer_) =
      MakePlanesLayer(weights, g, tables, start_.get(), tap_offset_.get(),
                      layout_.channel_stride());
  layer_.down_tap_offset = down_tap_offset_.get();
  layer_.down_channel_stride =
      down_planes_.channel_stride() * ptrdiff_t{sizeof(float)};
  layer_.down_output_stride = layer_.output_stride * g.out_w;
  down_layer_ = layer_;
  down_layer_.tap_offset = layer_.down_tap_offset;
  down_layer_.channel_stride = layer_.down_channel_stride;
  down_layer_.output_stride = layer_.down_output_stride;

  planes_floats_ = layout_.floats() + (down_ ? down_planes_.floats() : 0);
  const int64_t planes =
      planes_floats_ * (sharing_ == Sharing::kPlanes ? 1 : threads_);
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
  const int64_t taps = int64_t{g.kernel_h} * g.kernel_w;
  if (!tap_offset_.Allocate(taps) || !down_tap_offset_.Allocate(taps) ||
      !StartsOfKernelRows(weights_, static_cast<uint32_t>(g.kernel_w) * g.in_c,
                          g.kernel_h, &start_)) {
    return kOutOfMemory;
  }
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t x = tap % g.kernel_w * g.dilation_w;
    const int64_t y = tap / g.kernel_w * g.dilation_h;
    tap_offset_[tap] = static_cast<ptrdiff_t>(
        (layout_.TapOffset(y, x) - tap * g.in_c * layout_.channel_stride()) *
        int64_t{sizeof(float)});
    if (!down_) continue;
    down_tap_offset_[tap] = static_cast<ptrdiff_t>(
        (down_planes_.TapOffset(static_cast<int>(tap / g.kernel_w),
                                static_cast<int>(tap % g.kernel_w)) -
         tap * g.in_c * down_planes_.channel_stride()) *
        int64_t{sizeof(float)});
  }
  return nullptr;
}

void PlanarConv::BeginTiles() {
  tiling_.Begin(shape_, shapes_, unit_, 1, weights_.rows);
}

bool PlanarConv::AddTiles(Block* block) {
  const ConvGeometry& g = geometry_;
  block->tile = tiling_.tiles();
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
  block->tile_end = tiling_.tiles();
  return true;
}

const char* PlanarConv::PrepareBlocks() {
  const ConvGeometry& g = geometry_;
  const int block_rows = layout_.block_rows();
  const int block_pixels = layout_.block_pixels();
  BeginTiles();
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

  return blocks_ == 1 ? PrepareDown() : nullptr;
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
// takes that pixel of all of them, if its transposition is worth it.
const char* PlanarConv::PrepareDown() {
  const ConvGeometry& g = geometry_;
  if (staged_ || g.out_h == 1 || g.out_w % unit_ != 1) return nullptr;
  if (const char* error = down_planes_.Prepare(g, g.out_w - 1)) return error;
  const int64_t floats = down_planes_.floats();
  if (floats > kMostDownFloats) return nullptr;
  const double without = TileCycles();
  down_ = true;
  BeginTiles();
  if (AddTiles(&block_[0]) &&
      TileCycles() + kTransposeCycles / 256 * floats < without) {
    return nullptr;
  }
  down_ = false;
  BeginTiles();
  return AddTiles(&block_[0]) ? nullptr : kOutOfMemory;
}

// Where it is fair every worker takes whole blocks. A single block is stored by
// every worker for itself: reading planes that lie in another core's cache
// takes longer than transposing them again. Else all work on one block after
// the other, first on its transposition, then on its tiles and bands.
bool PlanarConv::PrepareThreads() {
  const ConvGeometry& g = geometry_;
  const int64_t block_pixels =
      int64_t{layout_.block_rows()} * layout_.block_pixels();
  const uint64_t bytes =
      weights_.column_count * weights_.band_rows * sizeof(float);
  const int bands = static_cast<int>(weights_.band_count);
  bands_at_once_ = Max(1, bands);
  if (bytes > 2 * kBandBytes) {
    bands_at_once_ = Max(1, static_cast<int64_t>(bands * kBandBytes / bytes));
  }
  const int64_t busiest = DivideUp(blocks_, threads_) * block_pixels * threads_;
  tile_tasks_ = band_tasks_ = 1;
  sharing_ = Sharing::kNothing;
  if (threads_ == 1 || blocks_ == 0 ||
      0.9 * static_cast<double>(busiest) <= double(g.out_h) * g.out_w) {
    return true;
  }
  const int tiles = block_[0].tile_end - block_[0].tile;
  if (blocks_ == 1 && bands >= kBandsPerThread * threads_) {
    sharing_ = Sharing::kBlock;
    const int tasks = kTasksPerThread * threads_;
    band_tasks_ = static_cast<int>(Min(bands, tasks));
    tile_tasks_ = static_cast<int>(Min(tiles, DivideUp(tasks, band_tasks_)));
    return worker_.Allocate(threads_);
  }
  sharing_ = Sharing::kPlanes;
  band_tasks_ = static_cast<int>(Max(1, Min(bands, 4 * threads_)));
  tile_tasks_ =
      static_cast<int>(Max(1, Min(tiles, DivideUp(4 * threads_, band_tasks_))));
  return true;
}

}  // namespace tfrewprune
