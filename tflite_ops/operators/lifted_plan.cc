// SPDX-License-Identifier: Apache-2.0
#include "operators/lifted_plan.h"

namespace tfrewprune {
namespace {

// Accumulators and lifted inputs of a panel should stay in the second cache.
// Panels of pointwise convolutions share no inputs, so that small ones cost
// nothing: 1x1 layers at 8x take 6 to 15 % less time (Zen 4).
constexpr int64_t kSecondCache = 640 << 10;
constexpr int64_t kSmallPanel = 160 << 10;
constexpr int64_t kMostOffset = 65535;

// Cycles, measured on 16-lane vectors (Zen 5); only their ratios matter.
constexpr double kVectorWeight = 0.52;  // FMA with a memory operand
constexpr double kBlockWeight = 0.5;    // splat and offset of a weight
constexpr double kRowWeight = 0.06;     // address of each further block row
constexpr double kLeastWeight = 1.25;   // splat, offset and address alone
constexpr double kVectorSegment = 2.5;  // sum and store of an accumulator
constexpr double kBlockSegment = 4.0;   // loop overhead of a segment
constexpr double kMissFactor = 1.08;    // inputs beyond the first cache
constexpr double kLift = 5.0;           // a lifted vector
constexpr double kLower = 5.0;          // a vector of outputs

int PartSize(int total, int parts) {
  return static_cast<int>(DivideUp(total, parts));
}

// Places of `pixels` outputs and all their taps.
int64_t Reach(int64_t pixels, int64_t stride, int64_t kernel,
              int64_t dilation) {
  return (pixels - 1) * stride + (kernel - 1) * dilation + 1;
}

// Dilated and strided kernels may leave most of the image unread: then the taps
// of a panel are lifted next to each other, tap by tap.
void SetPanels(LiftedAxis* axis, int panels, int stride, int kernel,
               int dilation) {
  axis->panels = panels;
  axis->panel = PartSize(axis->tile, panels);
  axis->stride = stride;
  axis->dilation = dilation;
  if (int64_t{axis->panel} * kernel <
      Reach(axis->panel, stride, kernel, dilation)) {
    axis->stride = 1;
    axis->dilation = axis->panel;
  }
  axis->reach = Reach(axis->panel, axis->stride, kernel, axis->dilation);
}

class Planner {
 public:
  Planner(const IrregularView& weights, const ConvGeometry& geometry,
          const IrregularKernels& kernels)
      : w_(weights), g_(geometry), k_(kernels) {}

  bool Run(LiftedPlan* best, double* cycles) {
    for (int rows = 1; rows <= k_.lanes; rows *= 2) {
      LiftedPlan plan = {};
      plan.y.lanes = rows;
      plan.x.lanes = k_.lanes / rows;
      plan.y.tile = PartSize(g_.out_h, plan.y.lanes);
      plan.x.tile = PartSize(g_.out_w, plan.x.lanes);
      if (CutPanels(&plan)) ChooseBlock(plan, best);
    }
    *cycles = best_cost_;
    return best_cost_ >= 0;
  }

 private:
  // Halves the panels until they fit the second cache and 16-bit offsets.
  bool CutPanels(LiftedPlan* plan) const {
    int panels_y = 1, panels_x = 1;
    for (;;) {
      SetPanels(&plan->y, panels_y, g_.stride_h, g_.kernel_h, g_.dilation_h);
      SetPanels(&plan->x, panels_x, g_.stride_w, g_.kernel_w, g_.dilation_w);
      plan->phase = (plan->x.reach - 1) / plan->x.stride + 1;
      plan->row_stride = plan->phase * plan->x.stride;
      plan->channel_stride = plan->y.reach * plan->row_stride | 1;
      const int64_t lifted = plan->channel_stride * w_.chunk_channels;
      const bool fits = lifted <= kMostOffset;
      if (fits && (lifted + plan->panel_vectors() * w_.rows) * k_.lanes *
                          int64_t{sizeof(float)} <=
                      (w_.taps == 1 ? kSmallPanel : kSecondCache)) {
        return true;
      }
      if (plan->y.panel > 1) {
        panels_y = PartSize(plan->y.tile, PartSize(plan->y.panel, 2));
      } else if (plan->x.panel > 1) {
        panels_x = PartSize(plan->x.tile, PartSize(plan->x.panel, 2));
      } else {
        return fits;
      }
    }
  }

  void ChooseBlock(LiftedPlan plan, LiftedPlan* best) {
    for (int h = 1; h <= kIrregularHeight && h <= plan.y.panel; ++h) {
      for (int w = 1; w <= kIrregularWidth && w <= plan.x.panel; ++w) {
        if (k_.block[h - 1][w - 1] == nullptr) break;
        plan.y.block = h;
        plan.x.block = w;
        const double cost = Cost(plan);
        if (best_cost_ < 0 || cost < best_cost_) {
          best_cost_ = cost;
          *best = plan;
        }
      }
    }
  }

  double Cost(const LiftedPlan& p) const {
    const double blocks =
        double(DivideUp(p.y.panel, p.y.block)) * DivideUp(p.x.panel, p.x.block);
    const double vectors = double(p.panel_vectors());
    // Inputs under a block: dilated kernels leave out rows and columns.
    const int64_t in_h =
        Min(Reach(p.y.block, g_.stride_h, g_.kernel_h, g_.dilation_h),
            int64_t{p.y.block} * g_.kernel_h);
    const int64_t in_w =
        Min(Reach(p.x.block, g_.stride_w, g_.kernel_w, g_.dilation_w),
            int64_t{p.x.block} * g_.kernel_w);
    const bool misses =
        in_h * in_w * w_.chunk_channels * k_.lanes * int64_t{sizeof(float)} >
        k_.first_cache;
    double weight = kVectorWeight * vectors / blocks + kBlockWeight +
                    kRowWeight * (p.y.block - 1);
    if (weight < kLeastWeight) weight = kLeastWeight;
    if (misses) weight *= kMissFactor;
    const double compute =
        double(w_.weight_count) * weight * blocks +
        w_.segment_count * (kVectorSegment * vectors + kBlockSegment * blocks);
    const double positions = static_cast<double>(p.positions(g_));
    return double(p.y.panels) * p.x.panels *
           (compute + kLift * positions * g_.in_c + kLower * vectors * w_.rows);
  }

  const IrregularView& w_;
  const ConvGeometry& g_;
  const IrregularKernels& k_;
  double best_cost_ = -1;
};

}  // namespace

void LiftedAxis::FindInputs(int conv_stride, int kernel, int conv_dilation,
                            int32_t* input) const {
  for (int64_t i = 0; i < reach; ++i) input[i] = -1;
  for (int64_t p = 0; p < panel; ++p) {
    for (int64_t t = 0; t < kernel; ++t) {
      input[p * stride + t * dilation] =
          static_cast<int32_t>(p * conv_stride + t * conv_dilation);
    }
  }
}

bool PlanLifted(const IrregularView& weights, const ConvGeometry& geometry,
                const IrregularKernels& kernels, LiftedPlan* plan,
                double* cycles) {
  // Far beyond 16-bit offsets.
  if (weights.taps > kMostOffset) return false;
  return Planner(weights, geometry, kernels).Run(plan, cycles);
}

}  // namespace tfrewprune
