// SPDX-License-Identifier: Apache-2.0
#include "operators/lifted_conv.h"

#include "operators/integers.h"
#include "operators/widen.h"

namespace tfrewprune {
namespace {

// Pixels of a pointwise convolution do not know of each other, so that those of
// all images are one image.
void JoinImages(ConvGeometry* g) {
  if (!IsPointwise(*g) || int64_t{g->batch} * g->in_h > INT32_MAX) return;
  g->in_h = g->out_h = g->batch * g->in_h;
  g->batch = 1;
}

bool Plan(const Problem& problem, ConvGeometry* geometry, LiftedPlan* plan,
          double* cycles) {
  *geometry = problem.geometry;
  JoinImages(geometry);
  const IrregularKernels* kernels =
      SelectIrregularKernels(problem.kernels->isa);
  return problem.segments != nullptr && kernels != nullptr &&
         geometry->batch > 0 && geometry->out_h > 0 && geometry->out_w > 0 &&
         PlanLifted(*problem.segments, *geometry, *kernels, plan, cycles);
}

}  // namespace

double LiftedConv::Cycles(const Problem& problem) {
  ConvGeometry geometry;
  LiftedPlan plan;
  double cycles;
  if (!Plan(problem, &geometry, &plan, &cycles)) return kUnsupported;
  const IrregularView& w = *problem.segments;
  const double lanes = SelectIrregularKernels(problem.kernels->isa)->lanes;
  const double vectors = static_cast<double>(plan.panel_vectors());
  const double scratch =
      problem.threads() *
      (static_cast<double>(w.chunk_channels * plan.channel_stride) +
       w.rows * vectors);
  const double tables =
      double(plan.y.panels) * plan.x.panels *
      (static_cast<double>(plan.positions(geometry)) + vectors);
  if (!problem.Affords(4 * lanes * (scratch + tables))) return kUnsupported;
  if (w.value.floats() == nullptr) {
    cycles +=
        kWidenCycles * double(w.weight_count) * plan.y.panels * plan.x.panels;
  }
  return cycles * geometry.batch / problem.threads();
}

const char* LiftedConv::Prepare(const Problem& problem) {
  weights_ = *problem.segments;
  pool_ = problem.pool;
  threads_ = problem.threads();
  workspace_ = problem.workspace;
  residual_ = problem.MakeResidual();
  kernels_ = SelectIrregularKernels(problem.kernels->isa);
  all_kernels_ = problem.kernels;
  ActivationRange(problem.kernel_activation(), &minimum_, &maximum_);
  double cycles;
  if (!Plan(problem, &geometry_, &plan_, &cycles)) {
    return "kernel too large to be lifted";
  }
  if (!bias_.Allocate(weights_.rows) || !scale_.Allocate(weights_.rows)) {
    return kOutOfMemory;
  }
  for (uint32_t r = 0; r < weights_.rows; ++r) {
    scale_[r] = weights_.value.Scale(r);
  }
  if (const char* error = PrepareWeights()) return error;
  if (const char* error = PrepareParts(threads_)) return error;
  if (const char* error = PreparePositions()) return error;
  if (const char* error = PrepareLanes()) return error;

  const uint64_t lanes = kernels_->lanes;
  uint32_t most_rows = 0;
  for (int p = 0; p < parts_; ++p) {
    const uint32_t rows = part_row_[p + 1] - part_row_[p];
    if (rows > most_rows) most_rows = rows;
  }
  lifted_floats_ =
      uint64_t{weights_.chunk_channels} * plan_.channel_stride * lanes;
  accumulator_floats_ = uint64_t{most_rows} * plan_.panel_vectors() * lanes;
  value_floats_ = 0;
  if (weights_.value.floats() == nullptr) {
    for (uint32_t chunk = 0; chunk < weights_.chunk_count(); ++chunk) {
      const uint32_t* first =
          chunk_part_.get() + uint64_t{chunk} * (parts_ + 1);
      for (int p = 0; p < parts_; ++p) {
        const int64_t weights = weights_.segment_start[first[p + 1]] -
                                weights_.segment_start[first[p]];
        value_floats_ = Max(value_floats_, DivideUp(weights, 16) * 16);
      }
    }
  }
  const uint64_t worker_floats =
      lifted_floats_ + accumulator_floats_ + value_floats_;
  return workspace_->Reserve(worker_floats * threads_) ? nullptr : kOutOfMemory;
}

// Columns become offsets into the lifted inputs of their chunk.
const char* LiftedConv::PrepareWeights() {
  const IrregularView& w = weights_;
  const ConvGeometry& g = geometry_;
  if (!offset_.Allocate(w.weight_count + kIrregularAhead) ||
      !segment_.Allocate(w.segment_count) || !idle_row_.Allocate(w.rows)) {
    return kOutOfMemory;
  }
  for (uint32_t r = 0; r < w.rows; ++r) idle_row_[r] = 1;
  for (uint32_t s = 0; s < w.segment_count; ++s) {
    const uint32_t row = w.RowId(s);
    const uint32_t begin = w.segment_start[s];
    const uint32_t end = w.segment_start[s + 1];
    segment_[s].row = row;
    segment_[s].first = idle_row_[row];
    segment_[s].count = end - begin;
    idle_row_[row] = 0;
    const uint32_t channel0 = w.Chunk(s) * w.chunk_channels;
    for (uint32_t i = begin; i < end; ++i) {
      const uint32_t column = w.Column(i);
      const uint32_t channel = column / w.taps - channel0;
      const int tap = static_cast<int>(column % w.taps);
      const int y = tap / g.kernel_w * plan_.y.dilation;
      const int x = tap % g.kernel_w * plan_.x.dilation;
      offset_[i] =
          static_cast<uint16_t>(channel * plan_.channel_stride +
                                y * plan_.row_stride + plan_.Column(x));
    }
  }
  return nullptr;
}

// A panel's rows are split among workers only when there are too few panels:
// every worker then lifts the inputs for itself.
const char* LiftedConv::PrepareParts(int threads) {
  const IrregularView& w = weights_;
  const int64_t items = int64_t{geometry_.batch} * panels();
  const uint32_t units = (w.rows - 1) / kernels_->lanes + 1;
  parts_ = threads == 1 || items % threads == 0 ? 1 : threads;
  if (static_cast<uint32_t>(parts_) > units) parts_ = units;
  Buffer<uint64_t> kept;
  if (!kept.Allocate(units) || !part_row_.Allocate(parts_ + 1)) {
    return kOutOfMemory;
  }
  for (uint32_t s = 0; s < w.segment_count; ++s) {
    kept[segment_[s].row / kernels_->lanes] += segment_[s].count;
  }
  uint64_t sum = 0;
  uint32_t unit = 0;
  for (int p = 0; p < parts_; ++p) {
    part_row_[p] = unit * kernels_->lanes;
    const uint64_t target = w.weight_count * (p + 1) / parts_;
    // As many units as come nearest to the target, at least one for this part
    // and each of the later ones.
    do {
      sum += kept[unit++];
    } while (unit + static_cast<uint32_t>(parts_ - 1 - p) < units &&
             sum + kept[unit] / 2 < target);
  }
  part_row_[parts_] = w.rows;

  const uint32_t chunks = w.chunk_count();
  if (!chunk_part_.Allocate(uint64_t{chunks} * (parts_ + 1))) {
    return kOutOfMemory;
  }
  uint32_t s = 0;
  for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
    uint32_t* first = chunk_part_.get() + uint64_t{chunk} * (parts_ + 1);
    for (int p = 0; p < parts_; ++p) {
      while (s < w.segment_count && w.Chunk(s) == chunk &&
             segment_[s].row < part_row_[p]) {
        ++s;
      }
      first[p] = s;
    }
    while (s < w.segment_count && w.Chunk(s) == chunk) ++s;
    first[parts_] = s;
  }
  return nullptr;
}

// Which input pixels are lifted, and to where.
const char* LiftedConv::PreparePositions() {
  const ConvGeometry& g = geometry_;
  const LiftedAxis& y = plan_.y;
  const LiftedAxis& x = plan_.x;
  // The input pixel of each place, from the panel's corner; -1: no tap reads
  // it.
  Buffer<int32_t> from_y, from_x;
  if (!from_y.Allocate(y.reach) || !from_x.Allocate(x.reach) ||
      !position_.Allocate(uint64_t(y.reach) * x.reach)) {
    return kOutOfMemory;
  }
  y.FindInputs(g.stride_h, g.kernel_h, g.dilation_h, from_y.get());
  x.FindInputs(g.stride_w, g.kernel_w, g.dilation_w, from_x.get());
  const uint64_t panel_count = panels();
  const int lanes = kernels_->lanes;
  positions_ = 0;
  for (int i = 0; i < y.reach; ++i) {
    for (int j = 0; j < x.reach; ++j) {
      if (from_y[i] < 0 || from_x[j] < 0) continue;
      position_[positions_++] = i * plan_.row_stride + plan_.Column(j);
    }
  }
  if (!lane_input_.Allocate(panel_count * positions_ * lanes)) {
    return kOutOfMemory;
  }
  int32_t* to = lane_input_.get();
  for (uint64_t panel = 0; panel < panel_count; ++panel) {
    const int panel_y = y.PanelBegin(static_cast<int>(panel / x.panels));
    const int panel_x = x.PanelBegin(static_cast<int>(panel % x.panels));
    for (int i = 0; i < y.reach; ++i) {
      for (int j = 0; j < x.reach; ++j) {
        if (from_y[i] < 0 || from_x[j] < 0) continue;
        for (int l = 0; l < lanes; ++l) {
          const int64_t in_y =
              (int64_t{l / x.lanes} * y.tile + panel_y) * g.stride_h -
              g.pad_top + from_y[i];
          const int64_t in_x =
              (int64_t{l % x.lanes} * x.tile + panel_x) * g.stride_w -
              g.pad_left + from_x[j];
          const bool inside =
              in_y >= 0 && in_y < g.in_h && in_x >= 0 && in_x < g.in_w;
          *to++ = inside ? static_cast<int32_t>((in_y * g.in_w + in_x) * g.in_c)
                         : -1;
        }
      }
    }
  }
  return nullptr;
}

const char* LiftedConv::PrepareLanes() {
  const ConvGeometry& g = geometry_;
  const LiftedAxis& y = plan_.y;
  const LiftedAxis& x = plan_.x;
  const int lanes = kernels_->lanes;
  if (!lane_output_.Allocate(uint64_t(y.tile) * x.tile * lanes) ||
      !panel_output_.Allocate(panels())) {
    return kOutOfMemory;
  }
  int32_t* to = lane_output_.get();
  for (int panel = 0; panel < panels(); ++panel) {
    panel_output_[panel] = (to - lane_output_.get()) / lanes;
    const int panel_y = y.PanelBegin(panel / x.panels);
    const int panel_x = x.PanelBegin(panel % x.panels);
    EachBlock(panel, [&](int block_y, int block_x, int h, int w, int64_t) {
      for (int i = 0; i < h * w; ++i) {
        for (int l = 0; l < lanes; ++l) {
          const int64_t out_y =
              int64_t{l / x.lanes} * y.tile + panel_y + block_y + i / w;
          const int64_t out_x =
              int64_t{l % x.lanes} * x.tile + panel_x + block_x + i % w;
          *to++ = out_y < g.out_h && out_x < g.out_w
                      ? static_cast<int32_t>((out_y * g.out_w + out_x) *
                                             weights_.rows)
                      : -1;
        }
      }
    });
  }
  return nullptr;
}

template <class Function>
void LiftedConv::EachBlock(int panel, Function function) const {
  const int height = plan_.y.PanelSize(panel / plan_.x.panels);
  const int width = plan_.x.PanelSize(panel % plan_.x.panels);
  const int rows = (height + plan_.y.block - 1) / plan_.y.block;
  const int columns = (width + plan_.x.block - 1) / plan_.x.block;
  int64_t vectors = 0;
  for (int i = 0; i < rows; ++i) {
    const int y = height * i / rows;
    const int h = height * (i + 1) / rows - y;
    for (int j = 0; j < columns; ++j) {
      const int x = width * j / columns;
      const int w = width * (j + 1) / columns - x;
      function(y, x, h, w, vectors);
      vectors += int64_t{h} * w;
    }
  }
}

void LiftedConv::RunBlocks(int panel, uint32_t segment, uint32_t segment_end,
                           const float* value, uint32_t row, uint32_t rows,
                           const Scratch& scratch) const {
  const int lanes = kernels_->lanes;
  IrregularRun run;
  run.row_step =
      static_cast<ptrdiff_t>(plan_.row_stride * plan_.y.stride * lanes);
  run.offset = offset_.get() + weights_.segment_start[segment];
  run.value = value;
  run.segment = segment_.get() + segment;
  run.segment_end = segment_.get() + segment_end;
  run.row_begin = row;
  EachBlock(panel, [&](int y, int x, int h, int w, int64_t vectors) {
    run.lifted = scratch.lifted + y * run.row_step + ptrdiff_t{x} * lanes;
    run.accumulator = scratch.accumulator + vectors * rows * lanes;
    kernels_->block[h - 1][w - 1](run);
  });
}

const float* LiftedConv::FloatValues(uint32_t segment, uint32_t segment_end,
                                     const Scratch& scratch) const {
  const uint32_t begin = weights_.segment_start[segment];
  if (const float* floats = weights_.value.floats()) return floats + begin;
  WidenUnscaled(*all_kernels_, weights_.value, begin,
                weights_.segment_start[segment_end] - begin, scratch.value);
  return scratch.value;
}

void LiftedConv::ClearIdleRows(int panel, uint32_t row, uint32_t rows,
                               const Scratch& scratch) const {
  const int lanes = kernels_->lanes;
  for (uint32_t r = 0; r < rows; ++r) {
    if (!idle_row_[row + r]) continue;
    EachBlock(panel, [&](int, int, int h, int w, int64_t vectors) {
      const int64_t row_floats = int64_t{h} * w * lanes;
      memset(scratch.accumulator + vectors * rows * lanes + r * row_floats, 0,
             row_floats * sizeof(float));
    });
  }
}

void LiftedConv::Lower(int panel, uint32_t row, uint32_t rows,
                       const Scratch& scratch, float* image) const {
  const int lanes = kernels_->lanes;
  IrregularLower lower;
  lower.rows = static_cast<int>(rows);
  lower.scale = scale_.get() + row;
  lower.bias = bias_.get() + row;
  lower.minimum = minimum_;
  lower.maximum = maximum_;
  EachBlock(panel, [&](int, int, int h, int w, int64_t vectors) {
    lower.lane_output =
        lane_output_.get() + (panel_output_[panel] + vectors) * lanes;
    lower.pixels = h * w;
    kernels_->lower(lower, scratch.accumulator + vectors * rows * lanes,
                    image + row);
  });
}

void LiftedConv::RunTask(int task, int worker) {
  const ConvGeometry& g = geometry_;
  const int part = task % parts_;
  const int panel = task / parts_ % panels();
  const int64_t n = task / parts_ / panels();
  const uint32_t row = part_row_[part];
  const uint32_t rows = part_row_[part + 1] - row;
  const float* image = input_ + n * g.in_h * g.in_w * g.in_c;
  float* own = workspace_->get() +
               worker * (lifted_floats_ + accumulator_floats_ + value_floats_);
  const Scratch scratch = {own, own + lifted_floats_,
                           own + lifted_floats_ + accumulator_floats_};
  const int lanes = kernels_->lanes;
  IrregularLift lift;
  lift.position = position_.get();
  lift.positions = positions_;
  lift.lane_offset = lane_input_.get() + int64_t{panel} * positions_ * lanes;
  lift.channel_stride = plan_.channel_stride * lanes;
  ClearIdleRows(panel, row, rows, scratch);
  for (uint32_t chunk = 0; chunk < weights_.chunk_count(); ++chunk) {
    const uint32_t* first =
        chunk_part_.get() + uint64_t{chunk} * (parts_ + 1) + part;
    if (first[0] == first[1]) continue;
    const uint32_t channel = chunk * weights_.chunk_channels;
    const uint32_t left = weights_.channels() - channel;
    lift.channels = static_cast<int>(
        left < weights_.chunk_channels ? left : weights_.chunk_channels);
    kernels_->lift(lift, image + channel, scratch.lifted);
    RunBlocks(panel, first[0], first[1],
              FloatValues(first[0], first[1], scratch), row, rows, scratch);
  }
  Lower(panel, row, rows, scratch,
        output_ + n * g.out_h * g.out_w * weights_.rows);
}

void LiftedConv::Invoke(const Tensors& tensors) {
  if (tensors.bias == nullptr) {
    memset(bias_.get(), 0, weights_.rows * sizeof(float));
  } else {
    memcpy(bias_.get(), tensors.bias, weights_.rows * sizeof(float));
  }
  input_ = tensors.input;
  output_ = tensors.output;
  residual_.values = tensors.residual;
  const int tasks = geometry_.batch * panels() * parts_;
  if (threads_ > 1 && tasks > 1) {
    pool_->Run(
        tasks,
        [](void* self, int task, int worker) {
          static_cast<LiftedConv*>(self)->RunTask(task, worker);
        },
        this);
  } else {
    for (int task = 0; task < tasks; ++task) RunTask(task, 0);
  }
  AddResidual(int64_t{geometry_.batch} * geometry_.out_h * geometry_.out_w);
}

// Tasks hold a few rows of many pixels: the sum waits for all of them.
void LiftedConv::AddResidual(int64_t pixels) {
  if (residual_.values == nullptr) return;
  if (threads_ == 1) {
    residual_.Complete(0, pixels * weights_.rows, output_);
    return;
  }
  pool_->Run(
      threads_,
      [](void* context, int task, int) {
        const auto* self = static_cast<LiftedConv*>(context);
        const ConvGeometry& g = self->geometry_;
        const int64_t all = int64_t{g.batch} * g.out_h * g.out_w;
        const int64_t threads = self->threads_;
        const int64_t begin = all * task / threads * self->weights_.rows;
        const int64_t end = all * (task + 1) / threads * self->weights_.rows;
        self->residual_.Complete(begin, end - begin, self->output_);
      },
      this);
}

}  // namespace tfrewprune
