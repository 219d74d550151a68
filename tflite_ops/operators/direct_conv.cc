// SPDX-License-Identifier: Apache-2.0
#include "operators/direct_conv.h"

#include "operators/cache_sets.h"
#include "operators/integers.h"

namespace tfrewprune {
namespace {

// Floats and offsets that one task makes when several threads share the work.
constexpr int64_t kPrepareFloats = 16 << 10;
constexpr int kLineBytes = 64;
// Offsets are bytes of 32 bits.
constexpr double kMostFloats = INT32_MAX / sizeof(float);
// Tiles whose input has about so many bytes take turns.
constexpr int64_t kInputBytes = 256 << 10;
// From so many bytes on weights are asked for ahead.
constexpr uint64_t kColdBytes = 64 << 10;
// Pixels of a tile that may share a set of the first-level cache (8 ways or
// more): more of them evict each other from column to column.
constexpr int64_t kPixelsPerSet = 7;

// In cycles: a line of the window of a tile that is not in the first-level
// cache any more, beside FMAs, and one that shares the second with much else.
constexpr double kFirstMiss = 0.25, kSecondMiss = 0.4;
// Bytes of windows where these begin, and where they are all lines.
constexpr double kFirstBegin = 16 << 10, kFirstEnd = 48 << 10;
constexpr double kSecondBegin = 64 << 10, kSecondEnd = 192 << 10;
constexpr double kCopyCycles = 0.3;  // a float of the copy

// Where `bytes` are between begin and end, from 0 to 1.
double Ramp(double bytes, double begin, double end) {
  return bytes < begin ? 0 : bytes > end ? 1 : (bytes - begin) / (end - begin);
}

// Of a column and a tile of so many pixels.
double TileColumnCycles(const Problem& problem, const ConvGeometry& g,
                        double pixels) {
  const BandedView& w = *problem.bands;
  const int64_t count = static_cast<int64_t>(pixels);
  const int64_t reach =
      int64_t{g.kernel_w - 1} * g.dilation_w + 1 + (count - 1) * g.stride_w;
  const double window = double(sizeof(float)) * g.in_c * g.kernel_h *
                        Min(reach, g.kernel_w * count);
  // Columns that a band keeps share the lines of 16 channels.
  const double kept = double(w.column_count) / Max(1, w.band_count) / w.columns;
  double none = 1 - kept;  // the chance that all 16 of a line are gone
  for (int doubling = 0; doubling < 4; ++doubling) none *= none;
  const double lines = kept < 0.01 ? pixels : pixels * (1 - none) / (16 * kept);
  const int64_t sets = CacheSets(int64_t{g.stride_w} * g.in_c);
  const double conflicts = sets == 1 ? 0.5 : sets == 2 ? 1.0 / 7 : 0;
  const double waits =
      conflicts * pixels +
      kFirstMiss * lines * Ramp(window, kFirstBegin, kFirstEnd);
  return ColumnCycles(FmasOfBands(problem), pixels, waits) +
         kSecondMiss * lines * Ramp(window, kSecondBegin, kSecondEnd);
}

int64_t MostPixels(const ConvGeometry& g, bool half) {
  const int64_t stride = int64_t{g.stride_w} * g.in_c;
  return kPixelsPerSet * CacheSets(half ? DivideUp(stride, 2) : stride);
}

}  // namespace

double DirectConv::Cycles(const Problem& problem) {
  return Cycles(problem, false);
}

double HalfDirectConv::Cycles(const Problem& problem) {
  Problem half = problem;
  return WithHalfKernels(&half) ? DirectConv::Cycles(half, true) : kUnsupported;
}

double DirectConv::Cycles(const Problem& problem, bool half) {
  if (problem.bands == nullptr) return kUnsupported;
  const BandedView& w = *problem.bands;
  const Kernels& kernels = *problem.kernels;
  ConvGeometry g = problem.geometry;
  if (JoinPixels(&g) != nullptr) return kUnsupported;
  const int64_t most = TilePixels(kernels, w.band_rows, MostPixels(g, half));
  if (most == 0) return kUnsupported;
  const int64_t image = int64_t{g.out_h} * g.out_w;
  const double tiles = double(g.batch) * DivideUp(image, most);
  const double pixels = double(g.batch) * image / (tiles > 0 ? tiles : 1);
  const double column = TileColumnCycles(problem, g, pixels);
  const double columns =
      tiles * column * static_cast<double>(w.column_count) * KernelRowShare(g);
  const double beside = tiles * w.band_count * StoreCycles(w, pixels);
  ImageBorder border;
  border.Prepare(g, half);
  const double copied = double(border.width()) * g.in_h * g.in_c;
  const double offsets = 2.0 * static_cast<double>(w.column_count);
  if (copied > kMostFloats ||
      !problem.Affords(sizeof(float) * (copied + offsets) +
                       TableBytes(problem))) {
    return kUnsupported;
  }
  const double once =
      kSetUpCycles + kOffsetCycles * static_cast<double>(w.column_count) +
      kCopyCycles * g.batch * copied + g.batch * WidenCycles(problem);
  return (columns + beside + once) / problem.threads();
}

const char* DirectConv::Prepare(const Problem& problem) {
  if (const char* error = Begin(problem)) return error;
  const ConvGeometry& g = geometry_;
  border_.Prepare(g, half_);
  const int64_t copied = border_.width() * g.in_h * g.in_c;
  const int64_t columns = static_cast<int64_t>(weights_.column_count);
  image_.first = DivideUp(copied * value_bytes(), 64) * 16;
  copy_.first = image_.first + (border_.whole() ? 0 : columns + 2);
  const int64_t used = copy_.first + (copied > 0 ? columns + 2 : 0);
  bands_at_once_ = BandsAtOnce(1);
  if (!ReserveScratch(used, bands_at_once_)) return kOutOfMemory;
  prepare_tasks_ = 1;
  if (threads_ > 1) {
    prepare_tasks_ =
        static_cast<int>(Min(2 * threads_, 1 + used / kPrepareFloats));
  }

  image_.width = g.in_w;
  copy_.width = border_.width();
  if (!PrepareStarts() || !PrepareTaps(&image_) || !PrepareTaps(&copy_)) {
    return kOutOfMemory;
  }
  const int64_t pixel = int64_t{g.in_c} * g.stride_w;
  image_.layer = MakeDirectLayer(pixel, weights_.rows);
  copy_.layer = border_.whole()
                    ? image_.layer
                    : MakeDirectLayer(copy_.width * g.in_c * g.stride_h,
                                      int64_t{weights_.rows} * g.out_w);
  if (const char* error =
          PrepareTiles(half_ ? *problem.half_kernels : *problem.kernels)) {
    return error;
  }
  PrepareTasks();
  return nullptr;
}

bool DirectConv::PrepareTaps(Source* source) {
  const ConvGeometry& g = geometry_;
  return TapOffsets(
      1,
      [&](int64_t y, int64_t x) {
        return (y * g.dilation_h * source->width + x * g.dilation_w) * g.in_c;
      },
      &source->tap_offset);
}

const char* DirectConv::PrepareTiles(const Kernels& kernels) {
  const ConvGeometry& g = geometry_;
  if (const char* error =
          tiling_.Begin(kernels, weights_.band_rows, MostPixels(g, half_),
                        int64_t{g.stride_w} * g.in_c, weights_.rows)) {
    return error;
  }
  if (!AddRows() || !tiling_.Flush()) return kOutOfMemory;
  copy_tile_ = border_.whole() ? 0 : tiling_.tiles();
  if (border_.whole()) return nullptr;
  tiling_.SetStrides(int64_t{g.stride_h} * copy_.width * g.in_c,
                     int64_t{weights_.rows} * g.out_w);
  return AddSides() && tiling_.Flush() ? nullptr : kOutOfMemory;
}

// Along the rows of the image.
bool DirectConv::AddRows() {
  const ConvGeometry& g = geometry_;
  const int64_t x = border_.inside();
  if (x >= border_.inside_end()) return true;
  for (int y = 0; y < g.out_h; ++y) {
    PixelRow row;
    row.pixels = border_.inside_end() - x;
    row.output = (int64_t{y} * g.out_w + x) * weights_.rows;
    KernelRowsInside(g, y, &row.tap_begin, &row.tap_end);
    row.input = border_.whole()
                    ? border_.FirstTap(y, x)
                    : (int64_t{y} * g.stride_h - g.pad_top) * g.in_w +
                          x * g.stride_w - g.pad_left;
    row.input *= g.in_c;
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
      if (x == border_.inside()) x = border_.inside_end();
      if (x >= g.out_w) break;
      row.input = border_.FirstTap(y, x) * g.in_c;
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
  tiles_at_once_ = Max(1, tiles);
  // Converted weights were just written.
  cold_ = (half_ || weights_.value.floats() != nullptr) &&
          weight_bytes() >= kColdBytes;
  if (bands_at_once_ < bands) {
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

// What must be there before the tiles: part `task` of it.
void DirectConv::PrepareTask(int task) {
  const uint32_t bands = weights_.band_count;
  const uint32_t begin =
      static_cast<uint32_t>(uint64_t{bands} * task / prepare_tasks_);
  const uint32_t end =
      static_cast<uint32_t>(uint64_t{bands} * (task + 1) / prepare_tasks_);
  if (!offsets_made_ && !border_.whole()) MakeOffsets(image_, begin, end);
  if (copy_.width == 0) return;
  if (!offsets_made_) MakeOffsets(copy_, begin, end);
  const int64_t rows = geometry_.in_h;
  const int64_t first = rows * task / prepare_tasks_;
  const int64_t stop = rows * (task + 1) / prepare_tasks_;
  float* copy = workspace_->get();
  if (half_ && border_.unpadded()) {  // perhaps one row of all pixels
    const int64_t count = rows * geometry_.in_w * geometry_.in_c;
    const int64_t begin = count * task / prepare_tasks_;
    narrow()(input_ + begin, count * (task + 1) / prepare_tasks_ - begin,
             reinterpret_cast<Half*>(copy) + begin);
  } else if (half_) {
    border_.CopyRows(input_, first, stop, narrow(),
                     reinterpret_cast<Half*>(copy));
  } else {
    border_.CopyRows(input_, first, stop, copy);
  }
}

void DirectConv::MakeOffsets(const Source& source, uint32_t band,
                             uint32_t band_end) {
  const ConvGeometry& g = geometry_;
  const uint32_t channels = static_cast<uint32_t>(g.in_c);
  const uint32_t bytes = static_cast<uint32_t>(value_bytes());
  int32_t* offset = Offsets(source);
  const ptrdiff_t* tap_offset = source.tap_offset.get();
  const uint16_t* column = static_cast<const uint16_t*>(weights_.column);
  const uint32_t* start = start_.get() + uint64_t{band} * (g.kernel_h + 1);
  for (; band < band_end; ++band, ++start) {
    for (int y = 0; y < g.kernel_h; ++y, ++start) {
      if (weights_.index_bytes == 2 && g.dilation_w == 1) {
        // A kernel row's columns lie in the image as they do in the kernel.
        const uint32_t row = static_cast<uint32_t>(tap_offset[y * g.kernel_w]);
        for (uint32_t i = start[0]; i < start[1]; ++i) {
          offset[i] = static_cast<int32_t>(column[i] * bytes + row);
        }
        continue;
      }
      for (uint32_t i = start[0]; i < start[1]; ++i) {
        const uint32_t c = weights_.Column(i);
        offset[i] = static_cast<int32_t>(
            c * bytes + static_cast<uint32_t>(tap_offset[c / channels]));
      }
    }
  }
}

DirectConv::Layers DirectConv::LayersOf(const BandValues& values) const {
  Layers layers = {image_.layer, copy_.layer};
  layers.image.value = layers.copy.value = values.value;
  layers.image.value_begin = layers.copy.value_begin = values.begin;
  return layers;
}

void DirectConv::RunTile(int i, const Layers& layers, uint32_t band,
                         uint32_t band_end) const {
  const Tile& tile = tiling_.tile(i);
  const bool copied = i >= copy_tile_;
  tile.kernel(copied ? layers.copy : layers.image, band, band_end,
              tile.tap_begin, tile.tap_end, copied ? workspace_->get() : input_,
              output_, tiling_.segments(tile));
}

// The first tile meets weights that come from memory: the CPU's own
// prefetching, which stops at every page, is late. (Asking inside of the
// kernels costs all other tiles 2 to 5 %.)
void DirectConv::RunFirstTile(int i, const Layers& layers, uint32_t band,
                              uint32_t band_end) const {
  const uint64_t stride = uint64_t{weights_.band_rows} * value_bytes();
  const char* value = static_cast<const char*>(layers.image.value);
  for (; band < band_end; ++band) {
    if (band + 1 < band_end) {
      const char* end = value + weights_.band_start[band + 2] * stride;
      for (const char* w = value + weights_.band_start[band + 1] * stride;
           w < end; w += kLineBytes) {
        __builtin_prefetch(w);
      }
    }
    RunTile(i, layers, band, band + 1);
  }
}

int64_t DirectConv::OutputStride(int i) const {
  return i < copy_tile_ ? image_.layer.output_stride
                        : copy_.layer.output_stride;
}

void DirectConv::ComputeTask(int task, int worker) {
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
      const Layers layers = LayersOf(KernelValues(band, stop, worker));
      for (int i = static_cast<int>(tile); i < tile_stop; ++i) {
        if (i == tile && cold_) {
          RunFirstTile(i, layers, static_cast<uint32_t>(band),
                       static_cast<uint32_t>(stop));
        } else {
          RunTile(i, layers, static_cast<uint32_t>(band),
                  static_cast<uint32_t>(stop));
        }
        if (stop < band_end) continue;
        if (band_task == 0) FillMissingRows(tiling_, i, OutputStride(i));
        if (band_tasks_ == 1 && residual_.values != nullptr) {
          AddResidual(tiling_, i, OutputStride(i));
        }
      }
      band = stop;
    } while (band < band_end);
  }
}

void DirectConv::Invoke(const Tensors& tensors) {
  BeginInvoke(tensors);
  image_.layer.offset = Offsets(image_);
  copy_.layer.offset = Offsets(copy_);
  offsets_made_ = false;
  for (int n = 0; n < geometry_.batch; ++n) {
    BeginImage(n);
    if (!offsets_made_ || copy_.width > 0) {
      Run(
          prepare_tasks_,
          [](void* self, int task, int) {
            static_cast<DirectConv*>(self)->PrepareTask(task);
          },
          this);
      offsets_made_ = true;
    }
    Run(
        tile_tasks_ * band_tasks_,
        [](void* self, int task, int worker) {
          static_cast<DirectConv*>(self)->ComputeTask(task, worker);
        },
        this);
    if (band_tasks_ == 1 || residual_.values == nullptr) continue;
    Run(
        tiling_.tiles(),
        [](void* context, int task, int) {
          const DirectConv* self = static_cast<DirectConv*>(context);
          self->AddResidual(self->tiling_, task, self->OutputStride(task));
        },
        this);
  }
}

}  // namespace tfrewprune
