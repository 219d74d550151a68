// SPDX-License-Identifier: Apache-2.0
#include "operators/direct_conv.h"

namespace tfrewprune {
namespace {

// Rows of the padded image that one task copies.
constexpr int kPadRows = 8;
constexpr int kMaxShapes = 16;

int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

// Two FMAs and two loads a cycle, a chain of dependent FMAs takes four.
double TileCycles(const Kernels& kernels, const BandKernelRow& row) {
  const double vectors =
      row.band_rows > kernels.lanes
          ? static_cast<double>(row.band_rows) / kernels.lanes
          : 1.0;
  const double pixels = row.length * row.max_segments;
  double cycles = 0.5 * pixels * vectors;
  const double loads = 0.5 * (pixels + vectors);
  if (cycles < loads) cycles = loads;
  return cycles < 4.0 ? 4.0 : cycles;
}

}  // namespace

const char* DirectConv::Prepare(const BandedView& weights,
                                const ConvGeometry& geometry,
                                const BandTables& tables,
                                const Kernels& kernels, ThreadPool* pool,
                                Workspace* workspace) {
  weights_ = weights;
  geometry_ = geometry;
  tables_ = &tables;
  pool_ = pool;
  workspace_ = workspace;
  const ConvGeometry& g = geometry_;
  // What the taps of all output pixels reach.
  const int64_t need_h = int64_t{g.out_h - 1} * g.stride_h +
                         int64_t{g.kernel_h - 1} * g.dilation_h + 1;
  const int64_t need_w = int64_t{g.out_w - 1} * g.stride_w +
                         int64_t{g.kernel_w - 1} * g.dilation_w + 1;
  padded_ =
      g.pad_top > 0 || g.pad_left > 0 || need_h > g.in_h || need_w > g.in_w;
  const int64_t plane_w = padded_ ? need_w : g.in_w;
  const int64_t plane_h = padded_ ? need_h : g.in_h;
  plane_pitch_ = plane_w * g.in_c;
  plane_rows_ = plane_h;
  if (plane_h * plane_pitch_ > INT32_MAX / int64_t{sizeof(float)}) {
    return "input image too large: one padded image must stay below 2 GiB";
  }
  if (padded_ && !workspace->Reserve(plane_h * plane_pitch_)) {
    return kOutOfMemory;
  }

  if (!offset_.Allocate(weights.column_count)) return kOutOfMemory;
  for (uint64_t i = 0; i < weights.column_count; ++i) {
    const int64_t column = weights.Column(i);
    const int64_t channel = column % g.in_c;
    const int64_t tap_x = column / g.in_c % g.kernel_w;
    const int64_t tap_y = column / g.in_c / g.kernel_w;
    offset_[i] =
        static_cast<int32_t>((tap_y * g.dilation_h * plane_pitch_ +
                              tap_x * g.dilation_w * g.in_c + channel) *
                             int64_t{sizeof(float)});
  }

  PixelGrid grid;
  grid.input_row_stride = plane_pitch_ * g.stride_h;
  grid.input_pixel_stride = int64_t{g.in_c} * g.stride_w;
  grid.output_pixel_stride = weights.rows;
  grid.output_row_stride = int64_t{weights.rows} * g.out_w;
  const bool pointwise = !padded_ && g.kernel_h == 1 && g.kernel_w == 1 &&
                         g.stride_h == 1 && g.stride_w == 1 &&
                         g.out_h == g.in_h && g.out_w == g.in_w;
  if (pointwise) {  // all pixels of the batch are one row
    grid.rows = 1;
    grid.width = int64_t{g.batch} * g.out_h * g.out_w;
    runs_ = 1;
  } else {
    grid.rows = g.out_h;
    grid.width = g.out_w;
    runs_ = g.batch;
  }
  if (const char* error = PrepareTiles(kernels, grid)) return error;

  layer_.value = weights.value;
  layer_.band_start = weights.band_start;
  layer_.offset = offset_.get();
  layer_.bias = tables.bias();
  layer_.row = tables.row();
  layer_.full_run = tables.full_run();
  layer_.pixel_stride = grid.input_pixel_stride * ptrdiff_t{sizeof(float)};
  layer_.output_stride = static_cast<ptrdiff_t>(grid.output_pixel_stride);
  layer_.minimum = tables.minimum();
  layer_.maximum = tables.maximum();

  const int threads = pool == nullptr ? 1 : pool->threads();
  const int bands = static_cast<int>(weights.band_count);
  tile_tasks_ =
      threads == 1 ? 1 : static_cast<int>(Min(tiling_.tiles(), 4 * threads));
  if (tile_tasks_ < 1) tile_tasks_ = 1;
  band_tasks_ = 1;
  if (threads > 1 && tile_tasks_ < 4 * threads && bands > 1) {
    band_tasks_ = static_cast<int>(
        Min(bands, (4 * threads + tile_tasks_ - 1) / tile_tasks_));
  }
  return nullptr;
}

const char* DirectConv::PrepareTiles(const Kernels& kernels,
                                     const PixelGrid& grid) {
  TileShape shape[kMaxShapes];
  int shapes = 0;
  for (int i = 0; i < kernels.band_count; ++i) {
    const BandKernelRow& row = kernels.band[i];
    if (row.band_rows != static_cast<int>(weights_.band_rows)) continue;
    kernel_[shapes] = &row;
    shape[shapes++] = {row.length, row.max_segments, TileCycles(kernels, row)};
  }
  if (shapes == 0) {
    return "no kernel for this band height: expected 4, 8, 16 or 32 rows";
  }
  tiling_.Begin(shape, shapes, 1, grid.input_pixel_stride,
                grid.output_pixel_stride);
  for (int64_t r = 0; r < grid.rows; ++r) {
    const PixelRow row = {r * grid.input_row_stride, r * grid.output_row_stride,
                          grid.width, 0, 1};
    if (!tiling_.Add(row)) return kOutOfMemory;
  }
  return tiling_.Flush() ? nullptr : kOutOfMemory;
}

void DirectConv::Run(int tasks, ThreadPool::Function function) {
  if (pool_ != nullptr && tasks > 1) {
    pool_->Run(tasks, function, this);
  } else {
    for (int task = 0; task < tasks; ++task) function(this, task, 0);
  }
}

void DirectConv::PadTask(int task) {
  const ConvGeometry& g = geometry_;
  const int64_t left = Min(int64_t{g.pad_left} * g.in_c, plane_pitch_);
  const int64_t middle = Min(int64_t{g.in_w} * g.in_c, plane_pitch_ - left);
  const int64_t right = plane_pitch_ - left - middle;
  const int64_t end = Min(int64_t{task + 1} * kPadRows, plane_rows_);
  for (int64_t row = int64_t{task} * kPadRows; row < end; ++row) {
    float* to = workspace_->get() + row * plane_pitch_;
    const int64_t y = row - g.pad_top;
    if (y < 0 || y >= g.in_h) {
      memset(to, 0, plane_pitch_ * sizeof(float));
      continue;
    }
    memset(to, 0, left * sizeof(float));
    memcpy(to + left, input_ + y * g.in_w * g.in_c, middle * sizeof(float));
    memset(to + left + middle, 0, right * sizeof(float));
  }
}

void DirectConv::ComputeTask(int task) {
  const int tile_task = task / band_tasks_;
  const int band_task = task % band_tasks_;
  const int tiles = tiling_.tiles();
  const int tile_begin =
      static_cast<int>(int64_t{tiles} * tile_task / tile_tasks_);
  const int tile_end =
      static_cast<int>(int64_t{tiles} * (tile_task + 1) / tile_tasks_);
  const uint32_t bands = weights_.band_count;
  const uint32_t band_begin =
      static_cast<uint32_t>(uint64_t{bands} * band_task / band_tasks_);
  const uint32_t band_end =
      static_cast<uint32_t>(uint64_t{bands} * (band_task + 1) / band_tasks_);
  const float* x = padded_ ? workspace_->get() : input_;
  for (int i = tile_begin; i < tile_end; ++i) {
    const Tile& tile = tiling_.tile(i);
    const Segment* segments = tiling_.segments(tile);
    kernel_[tile.shape]->kernel[tile.segments - 1](layer_, band_begin, band_end,
                                                   x, output_, segments);
    if (band_task != 0) continue;
    for (int s = 0; s < tile.segments; ++s) {
      tables_->FillMissingRows(output_ + segments[s].output, tile.length,
                               layer_.output_stride);
    }
    if (band_tasks_ == 1) AddResidual(i);
  }
}

void DirectConv::AddResidual(int i) const {
  const Tile& tile = tiling_.tile(i);
  const Segment* segments = tiling_.segments(tile);
  for (int s = 0; s < tile.segments; ++s) {
    residual_.Complete(segments[s].output, tile.length * layer_.output_stride,
                       output_);
  }
}

void DirectConv::Invoke(const float* input, float* output,
                        const Residual& residual) {
  const ConvGeometry& g = geometry_;
  const int64_t in_image = int64_t{g.in_h} * g.in_w * g.in_c;
  const int64_t out_image = int64_t{g.out_h} * g.out_w * weights_.rows;
  for (int run = 0; run < runs_; ++run) {
    input_ = input + run * in_image;
    output_ = output + run * out_image;
    residual_ = residual.Image(run * out_image);
    if (padded_) {
      Run(static_cast<int>((plane_rows_ + kPadRows - 1) / kPadRows),
          [](void* self, int task, int) {
            static_cast<DirectConv*>(self)->PadTask(task);
          });
    }
    Run(tile_tasks_ * band_tasks_, [](void* self, int task, int) {
      static_cast<DirectConv*>(self)->ComputeTask(task);
    });
    if (band_tasks_ == 1 || residual_.values == nullptr) continue;
    Run(tiling_.tiles(), [](void* self, int task, int) {
      static_cast<DirectConv*>(self)->AddResidual(task);
    });
  }
}

}  // namespace tfrewprune
