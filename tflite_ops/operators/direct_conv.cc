// SPDX-License-Identifier: Apache-2.0
#include "operators/direct_conv.h"

#include "kernels/planar.h"
#include "operators/integers.h"
#include "operators/planar_layout.h"

namespace tfrewprune {
namespace {

// Floats and offsets that one task makes when several threads share the work.
constexpr int64_t kPrepareFloats = 16 << 10;
constexpr int kMaxShapes = 16;
// Offsets are bytes of 32 bits.
constexpr double kMostFloats = INT32_MAX / sizeof(float);
// Tiles run over bands of about so many bytes of weights, one after the other,
// before the next bands come: more weights would have to come from afar again
// for every tile. Tiles whose input has about so many bytes take turns.
constexpr uint64_t kBandBytes = 192 << 10;
constexpr int64_t kInputBytes = 256 << 10;
// Pixels of a tile that may share a set of the first-level cache (8 ways or
// more): more of them evict each other from column to column.
constexpr int64_t kPixelsPerSet = 7;
// Borders apart make more and emptier tiles: not worth it for few pixels.
constexpr int64_t kSmallImage = 100;

// Two FMAs and two loads a cycle, a chain of dependent FMAs takes four.
double TileCycles(const Kernels& kernels, const BandKernelRow& row,
                  int segments) {
  const double vectors =
      row.band_rows > kernels.lanes
          ? static_cast<double>(row.band_rows) / kernels.lanes
          : 1.0;
  const double pixels = row.length * segments;
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
  threads_ = pool == nullptr ? 1 : pool->threads();
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

  ChooseWindows();
  if (double(copied_.width) * copy_rows_ * g.in_c > kMostFloats) {
    return "input image too large: one padded image must stay below 2 GiB";
  }
  const int64_t copied = copied_.width * copy_rows_ * g.in_c;
  const int64_t columns = static_cast<int64_t>(weights.column_count);
  in_place_.first = DivideUp(copied, 16) * 16;
  copied_.first = in_place_.first + (whole_ ? 0 : columns + 1);
  const int64_t used = copied_.first + (copied > 0 ? columns + 1 : 0);
  if (!workspace->Reserve(used)) return kOutOfMemory;
  prepare_tasks_ = 1;
  if (threads_ > 1) {
    prepare_tasks_ =
        static_cast<int>(Min(2 * threads_, 1 + used / kPrepareFloats));
  }

  if (!StartsOfKernelRows(weights_, static_cast<uint32_t>(g.kernel_w) * g.in_c,
                          g.kernel_h, &start_) ||
      !PrepareTaps(&in_place_) || !PrepareTaps(&copied_)) {
    return kOutOfMemory;
  }
  const int64_t pixel = int64_t{g.in_c} * g.stride_w;
  PrepareLayer(&in_place_, pixel, weights.rows);
  if (whole_) {
    PrepareLayer(&copied_, pixel, weights.rows);
  } else {
    PrepareLayer(&copied_, copied_.width * g.in_c * g.stride_h,
                 int64_t{weights.rows} * g.out_w);
  }
  if (const char* error = PrepareTiles(kernels)) return error;
  PrepareTasks();
  return nullptr;
}

// Which output columns need a copy, and of what.
void DirectConv::ChooseWindows() {
  const ConvGeometry& g = geometry_;
  const int64_t reach_w = int64_t{g.kernel_w - 1} * g.dilation_w + 1;
  const int64_t reach_h = int64_t{g.kernel_h - 1} * g.dilation_h + 1;
  // What the taps of all output pixels reach.
  const int64_t need_w = int64_t{g.out_w - 1} * g.stride_w + reach_w;
  const int64_t need_h = int64_t{g.out_h - 1} * g.stride_h + reach_h;
  in_place_.width = g.in_w;
  inside_ = Min(DivideUp(g.pad_left, g.stride_w), g.out_w);
  const int64_t room = int64_t{g.in_w} + g.pad_left - reach_w;
  inside_end_ = room < 0 ? 0 : Min(room / g.stride_w + 1, g.out_w);
  window_[0] = window_[1] = {};
  if (inside_ > 0) {
    window_[0] = {-int64_t{g.pad_left}, (inside_ - 1) * g.stride_w + reach_w,
                  0};
  }
  if (inside_end_ < g.out_w) {
    const int64_t x = inside_end_ * g.stride_w - g.pad_left;
    window_[1] = {x, need_w - g.pad_left - x, window_[0].width};
  }
  copied_.width = window_[0].width + window_[1].width;
  copy_y_ = 0;
  copy_rows_ = g.in_h;
  const bool padded = copied_.width > 0 || g.pad_top > 0 || need_h > g.in_h;
  whole_ = padded && (inside_ >= inside_end_ || 2 * copied_.width > need_w ||
                      int64_t{g.out_h} * g.out_w < kSmallImage);
  if (!whole_) return;
  inside_ = 0;
  inside_end_ = g.out_w;
  window_[0] = {-int64_t{g.pad_left}, Max(need_w, 0), 0};
  window_[1] = {};
  copied_.width = window_[0].width;
  copy_y_ = -int64_t{g.pad_top};
  copy_rows_ = Max(need_h, 0);
}

bool DirectConv::PrepareTaps(Source* source) {
  const ConvGeometry& g = geometry_;
  const int64_t taps = int64_t{g.kernel_h} * g.kernel_w;
  if (!source->tap_offset.Allocate(taps)) return false;
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t x = tap % g.kernel_w * g.dilation_w;
    const int64_t y = tap / g.kernel_w * g.dilation_h;
    source->tap_offset[tap] = static_cast<int32_t>(
        (y * source->width + x - tap) * g.in_c * int64_t{sizeof(float)});
  }
  return true;
}

// Strides in floats.
void DirectConv::PrepareLayer(Source* source, int64_t pixel_stride,
                              int64_t output_stride) {
  BandLayer& layer = source->layer;
  layer.value = weights_.value;
  layer.start = start_.get();
  layer.start_stride = static_cast<uint32_t>(geometry_.kernel_h) + 1;
  layer.bias = tables_->bias();
  layer.row = tables_->row();
  layer.full_run = tables_->full_run();
  layer.pixel_stride =
      static_cast<ptrdiff_t>(pixel_stride * int64_t{sizeof(float)});
  layer.output_stride = static_cast<ptrdiff_t>(output_stride);
  layer.minimum = tables_->minimum();
  layer.maximum = tables_->maximum();
}

const char* DirectConv::PrepareTiles(const Kernels& kernels) {
  const ConvGeometry& g = geometry_;
  const int64_t pixel = int64_t{g.stride_w} * g.in_c;
  const int64_t most_pixels = kPixelsPerSet * CacheSets(pixel);
  TileShape shape[kMaxShapes];
  int shapes = 0;
  for (int i = 0; i < kernels.band_count; ++i) {
    const BandKernelRow& row = kernels.band[i];
    if (row.band_rows != static_cast<int>(weights_.band_rows)) continue;
    const int segments =
        static_cast<int>(Min(row.max_segments, most_pixels / row.length));
    if (segments == 0) continue;
    kernel_[shapes] = &row;
    shape[shapes++] = {row.length, segments,
                       TileCycles(kernels, row, segments)};
  }
  if (shapes == 0) {
    return "no kernel for this band height: expected 4, 8, 16 or 32 rows";
  }
  tiling_.Begin(shape, shapes, 1, pixel, weights_.rows);
  if (!AddRows() || !tiling_.Flush()) return kOutOfMemory;
  side_tile_ = whole_ ? 0 : tiling_.tiles();
  if (whole_) return nullptr;
  tiling_.SetStrides(int64_t{g.stride_h} * copied_.width * g.in_c,
                     int64_t{weights_.rows} * g.out_w);
  return AddSides() && tiling_.Flush() ? nullptr : kOutOfMemory;
}

// Along the rows of the image.
bool DirectConv::AddRows() {
  const ConvGeometry& g = geometry_;
  if (inside_ >= inside_end_) return true;
  const int64_t width = whole_ ? copied_.width : g.in_w;
  for (int y = 0; y < g.out_h; ++y) {
    PixelRow row;
    row.pixels = inside_end_ - inside_;
    row.output = (int64_t{y} * g.out_w + inside_) * weights_.rows;
    if (whole_) {
      row.tap_begin = 0;
      row.tap_end = g.kernel_h;
      row.input = int64_t{y} * g.stride_h * width * g.in_c;
    } else {
      KernelRowsInside(g, y, &row.tap_begin, &row.tap_end);
      row.input = ((int64_t{y} * g.stride_h - g.pad_top) * width +
                   inside_ * g.stride_w - g.pad_left) *
                  g.in_c;
    }
    if (!tiling_.Add(row)) return false;
  }
  return true;
}

// Down the columns left and right of those.
bool DirectConv::AddSides() {
  const ConvGeometry& g = geometry_;
  for (int y = 0, y_end = 0; y < g.out_h; y = y_end) {
    PixelRow row;
    KernelRowsInside(g, y, &row.tap_begin, &row.tap_end);
    for (y_end = y + 1; y_end < g.out_h; ++y_end) {
      int begin, end;
      KernelRowsInside(g, y_end, &begin, &end);
      if (begin != row.tap_begin || end != row.tap_end) break;
    }
    row.pixels = y_end - y;
    for (int64_t x = 0; x < g.out_w; ++x) {
      if (x == inside_) x = inside_end_;
      if (x >= g.out_w) break;
      const Window& window = window_[x < inside_ ? 0 : 1];
      const int64_t at = x * g.stride_w - g.pad_left - window.x + window.at;
      row.input =
          ((int64_t{y} * g.stride_h - g.pad_top) * copied_.width + at) * g.in_c;
      row.output = (int64_t{y} * g.out_w + x) * weights_.rows;
      if (!tiling_.Add(row)) return false;
    }
  }
  return true;
}

void DirectConv::PrepareTasks() {
  const ConvGeometry& g = geometry_;
  const int64_t tiles = tiling_.tiles();
  const int64_t bands = weights_.band_count;
  bands_at_once_ = Max(1, bands);
  tiles_at_once_ = Max(1, tiles);
  const uint64_t bytes =
      weights_.column_count * weights_.band_rows * sizeof(float);
  if (bytes > 2 * kBandBytes) {
    bands_at_once_ =
        Max(1, static_cast<int64_t>(weights_.band_count * kBandBytes / bytes));
    const int64_t input = int64_t{g.in_h} * g.in_w * g.in_c * sizeof(float);
    tiles_at_once_ = Max(1, DivideUp(tiles, DivideUp(input, kInputBytes)));
  }
  tile_tasks_ = band_tasks_ = 1;
  if (threads_ == 1) return;
  tile_tasks_ = static_cast<int>(Max(1, Min(tiles, 4 * threads_)));
  if (tile_tasks_ < 4 * threads_) {
    band_tasks_ = static_cast<int>(
        Max(1, Min(bands, DivideUp(4 * threads_, tile_tasks_))));
  }
}

void DirectConv::Run(int tasks, ThreadPool::Function function) {
  if (threads_ > 1 && tasks > 1) {
    pool_->Run(tasks, function, this);
  } else {
    for (int task = 0; task < tasks; ++task) function(this, task, 0);
  }
}

// What must be there before the tiles: part `task` of it.
void DirectConv::PrepareTask(int task) {
  const uint64_t columns = weights_.column_count;
  const uint64_t begin = columns * task / prepare_tasks_;
  const uint64_t end = columns * (task + 1) / prepare_tasks_;
  if (!whole_) MakeOffsets(in_place_, begin, end);
  if (copied_.width == 0) return;
  MakeOffsets(copied_, begin, end);
  CopyRows(copy_rows_ * task / prepare_tasks_,
           copy_rows_ * (task + 1) / prepare_tasks_);
}

void DirectConv::MakeOffsets(const Source& source, uint64_t begin,
                             uint64_t end) {
  int32_t* offset = Offsets(source);
  const int32_t* tap_offset = source.tap_offset.get();
  constexpr uint32_t kFloat = sizeof(float);
  const uint32_t channels = static_cast<uint32_t>(geometry_.in_c);
  if (weights_.index_bytes == 2) {
    const uint16_t* column = static_cast<const uint16_t*>(weights_.column);
    const uint64_t scale = TapScale(channels);
    for (uint64_t i = begin; i < end; ++i) {
      offset[i] = static_cast<int32_t>(column[i] * kFloat +
                                       tap_offset[column[i] * scale >> 32]);
    }
  } else {
    for (uint64_t i = begin; i < end; ++i) {
      const uint32_t column = weights_.Column(i);
      offset[i] =
          static_cast<int32_t>(column * kFloat + tap_offset[column / channels]);
    }
  }
}

void DirectConv::CopyRows(int64_t begin, int64_t end) {
  const ConvGeometry& g = geometry_;
  const int64_t pitch = copied_.width * g.in_c;
  for (int64_t row = begin; row < end; ++row) {
    float* to = workspace_->get() + row * pitch;
    const int64_t y = copy_y_ + row;
    if (y < 0 || y >= g.in_h) {
      memset(to, 0, pitch * sizeof(float));
      continue;
    }
    for (const Window& window : window_) {
      const int64_t from = Min(Max(-window.x, 0), window.width);
      const int64_t stop = Max(from, Min(g.in_w - window.x, window.width));
      float* out = to + window.at * g.in_c;
      const float* in = input_ + (y * g.in_w + window.x + from) * g.in_c;
      const size_t pixel = g.in_c * sizeof(float);
      memset(out, 0, from * pixel);
      memcpy(out + from * g.in_c, in, (stop - from) * pixel);
      memset(out + stop * g.in_c, 0, (window.width - stop) * pixel);
    }
  }
}

void DirectConv::RunTile(int i, uint32_t band, uint32_t band_end) const {
  const Tile& tile = tiling_.tile(i);
  const bool copied = i >= side_tile_;
  kernel_[tile.shape]->kernel[tile.segments - 1](
      copied ? copied_.layer : in_place_.layer, band, band_end,
      static_cast<uint32_t>(tile.tap_begin),
      static_cast<uint32_t>(tile.tap_end), copied ? workspace_->get() : input_,
      output_, tiling_.segments(tile));
}

void DirectConv::FillMissingRows(int i) const {
  const Tile& tile = tiling_.tile(i);
  const BandLayer& layer = i < side_tile_ ? in_place_.layer : copied_.layer;
  for (int s = 0; s < tile.segments; ++s) {
    tables_->FillMissingRows(output_ + tiling_.segments(tile)[s].output,
                             tile.length, layer.output_stride);
  }
}

void DirectConv::AddResidual(int i) const {
  if (residual_.values == nullptr) return;
  const Tile& tile = tiling_.tile(i);
  const int64_t stride = i < side_tile_ ? in_place_.layer.output_stride
                                        : copied_.layer.output_stride;
  // Pixels of a row follow each other, those down a column do not.
  const bool row = stride == weights_.rows;
  const int64_t count = row ? stride * tile.length : weights_.rows;
  for (int s = 0; s < tile.segments; ++s) {
    const int64_t output = tiling_.segments(tile)[s].output;
    for (int p = 0; p < (row ? 1 : tile.length); ++p) {
      residual_.Complete(output + p * stride, count, output_);
    }
  }
}

void DirectConv::ComputeTask(int task) {
  const int64_t tile_task = task / band_tasks_, band_task = task % band_tasks_;
  const int64_t tiles = tiling_.tiles(), bands = weights_.band_count;
  const int64_t tile_end = tiles * (tile_task + 1) / tile_tasks_;
  const int64_t band_end = bands * (band_task + 1) / band_tasks_;
  for (int64_t tile = tiles * tile_task / tile_tasks_, tile_stop;
       tile < tile_end; tile = tile_stop) {
    tile_stop = Min(tile_end, tile + tiles_at_once_);
    int64_t band = bands * band_task / band_tasks_;
    do {  // once also where there are no bands
      const int64_t stop = Min(band_end, band + bands_at_once_);
      for (int i = static_cast<int>(tile); i < tile_stop; ++i) {
        RunTile(i, static_cast<uint32_t>(band), static_cast<uint32_t>(stop));
        if (stop < band_end) continue;
        if (band_task == 0) FillMissingRows(i);
        if (band_tasks_ == 1) AddResidual(i);
      }
      band = stop;
    } while (band < band_end);
  }
}

void DirectConv::Invoke(const float* input, float* output,
                        const Residual& residual) {
  const ConvGeometry& g = geometry_;
  const int64_t in_image = int64_t{g.in_h} * g.in_w * g.in_c;
  const int64_t out_image = int64_t{g.out_h} * g.out_w * weights_.rows;
  in_place_.layer.offset = Offsets(in_place_);
  copied_.layer.offset = Offsets(copied_);
  for (int n = 0; n < g.batch; ++n) {
    input_ = input + n * in_image;
    output_ = output + n * out_image;
    residual_ = residual.Image(n * out_image);
    Run(prepare_tasks_, [](void* self, int task, int) {
      static_cast<DirectConv*>(self)->PrepareTask(task);
    });
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
