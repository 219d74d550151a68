// SPDX-License-Identifier: Apache-2.0
#include "operators/planar_conv.h"

namespace tfrewprune {
namespace {

// Offsets that one task makes when several threads share the work.
constexpr int64_t kTaskOffsets = 16 << 10;

// The most pixels of a tile: nothing but registers bounds it.
int64_t MostPixels(const Problem& problem) {
  return TilePixels(*problem.kernels, problem.bands->band_rows, INT32_MAX);
}

}  // namespace

double PlanarConv::Cycles(const Problem& problem) {
  // Narrow bands would leave lanes empty: the flat kernels fill them with
  // pixels.
  if (!Supports(problem) ||
      static_cast<int>(problem.bands->band_rows) < problem.kernels->lanes) {
    return kUnsupported;
  }
  const int64_t most = MostPixels(problem);
  ConvGeometry g = problem.geometry;
  PlanesLayout layout;
  if (most == 0 || JoinPixels(&g) != nullptr ||
      layout.Prepare(g, most, most, false, problem.threads()) != nullptr) {
    return kUnsupported;
  }
  const BandedView& w = *problem.bands;
  const double columns = static_cast<double>(w.column_count);
  if (!problem.Affords(
          sizeof(float) * (columns + double(problem.threads()) *
                                         static_cast<double>(layout.floats())) +
          TableBytes(problem))) {
    return kUnsupported;
  }
  const int64_t image = int64_t{g.out_h} * g.out_w;
  const double blocks = double(g.batch) * layout.blocks();
  const double tiles = double(g.batch) * DivideUp(image, most);
  const double pixels = double(g.batch) * image / tiles;  // on average
  const double sums = columns * KernelRowShare(g) *
                      ColumnCycles(FmasOfBands(problem), pixels, 0);
  const double work = tiles * (sums + w.band_count * StoreCycles(w, pixels)) +
                      blocks * WidenCycles(problem);
  const double transposed =
      kTransposeCycles * blocks * static_cast<double>(layout.floats());
  // One block is transposed by every thread.
  const double sharers = layout.blocks() > 1 ? problem.threads() : 1;
  return kSetUpCycles + (work + kOffsetCycles * columns) / problem.threads() +
         transposed / sharers;
}

const char* PlanarConv::Prepare(const Problem& problem) {
  if (const char* error = Begin(problem)) return error;
  const int64_t most = MostPixels(problem);
  if (const char* error =
          layout_.Prepare(geometry_, most, most, false, threads_)) {
    return error;
  }
  if (const char* error = tiling_.Begin(*problem.kernels, weights_.band_rows,
                                        most, 1, weights_.rows)) {
    return error;
  }
  if (!MakeBlocks([&](Block* block) { return AddTiles(block); })) {
    return kOutOfMemory;
  }
  const int64_t columns = static_cast<int64_t>(weights_.column_count);
  offset_tasks_ = static_cast<int>(
      threads_ == 1 ? 1 : Min(2 * threads_, 1 + columns / kTaskOffsets));
  plane_offsets_ = problem.kernels->plane_offsets;
  const char* error = PreparePlanes(*problem.kernels, 1, 0, columns + 2);
  layer_ = MakeDirectLayer(1, weights_.rows);
  return error;
}

void PlanarConv::OffsetsTask(int task) {
  const ConvGeometry& g = geometry_;
  const uint64_t bands = weights_.band_count;
  OffsetsJob job;
  job.step = static_cast<uint32_t>(layout_.channel_stride() * sizeof(float));
  job.channels = static_cast<uint32_t>(g.in_c);
  job.tap_offset = tap_offset_.get();
  const uint64_t end = bands * (task + 1) / offset_tasks_;
  for (uint64_t band = bands * task / offset_tasks_; band < end; ++band) {
    const uint32_t* start = start_.get() + band * (g.kernel_h + 1);
    for (int y = 0; y < g.kernel_h; ++y) {
      job.column = static_cast<const uint16_t*>(weights_.column) + start[y];
      job.count = start[y + 1] - start[y];
      job.tap = static_cast<uint32_t>(y * g.kernel_w);
      job.tap_end = static_cast<uint32_t>((y + 1) * g.kernel_w);
      job.offset = Offsets() + start[y];
      plane_offsets_(job);
    }
  }
}

void PlanarConv::Invoke(const Tensors& tensors) {
  layer_.offset = Offsets();
  Run(
      offset_tasks_,
      [](void* self, int task, int) {
        static_cast<PlanarConv*>(self)->OffsetsTask(task);
      },
      this);
  PlanesDriver::Invoke(tensors);
}

bool PlanarConv::AddTiles(Block* block) {
  const ConvGeometry& g = geometry_;
  block->item = tiling_.tiles();
  for (int y = block->y; y < block->y_end; ++y) {
    PixelRow row;
    row.pixels = block->x_end - block->x;
    row.input = (y - block->y) * layout_.pitch();
    row.output = (int64_t{y} * g.out_w + block->x) * weights_.rows;
    KernelRowsInside(g, y, &row.tap_begin, &row.tap_end);
    if (!tiling_.Add(row)) return false;
  }
  if (!tiling_.Flush()) return false;
  block->item_end = tiling_.tiles();
  return true;
}

void PlanarConv::RunItem(int item, const BandValues& values,
                         const float* planes, uint32_t band, uint32_t band_end,
                         float*) const {
  const Tile& tile = tiling_.tile(item);
  DirectLayer layer = layer_;
  layer.value = values.value;
  layer.value_begin = values.begin;
  tile.kernel(layer, band, band_end, tile.tap_begin, tile.tap_end, planes,
              output_, tiling_.segments(tile));
}

}  // namespace tfrewprune
