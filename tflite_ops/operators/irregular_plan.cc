// SPDX-License-Identifier: Apache-2.0
#include "operators/irregular_plan.h"

namespace tfrewprune {
namespace {

// Accumulators and lifted inputs of a panel should stay in the second cache.
constexpr int64_t kSecondCache = 640 << 10;
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

int DivideUp(int a, int b) { return (a + b - 1) / b; }

// Input pixels under `pixels` outputs.
int Reach(int pixels, int stride, int kernel, int dilation) {
  return (pixels - 1) * stride + (kernel - 1) * dilation + 1;
}

void SetPanels(IrregularAxis* axis, int panels, int stride, int kernel,
               int dilation) {
  axis->panels = panels;
  axis->panel = DivideUp(axis->tile, panels);
  axis->reach = Reach(axis->panel, stride, kernel, dilation);
}

int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

class Planner {
 public:
  Planner(const IrregularView& weights, const ConvGeometry& geometry,
          const IrregularKernels& kernels)
      : w_(weights), g_(geometry), k_(kernels) {}

  bool Run(IrregularPlan* best) {
    for (int rows = 1; rows <= k_.lanes; rows *= 2) {
      IrregularPlan plan = {};
      plan.stride_w = g_.stride_w;
      plan.y.lanes = rows;
      plan.x.lanes = k_.lanes / rows;
      plan.y.tile = DivideUp(g_.out_h, plan.y.lanes);
      plan.x.tile = DivideUp(g_.out_w, plan.x.lanes);
      if (CutPanels(&plan)) ChooseBlock(plan, best);
    }
    return best_cost_ >= 0;
  }

 private:
  // Halves the panels until they fit the second cache and 16-bit offsets.
  bool CutPanels(IrregularPlan* plan) const {
    int panels_y = 1, panels_x = 1;
    for (;;) {
      SetPanels(&plan->y, panels_y, g_.stride_h, g_.kernel_h, g_.dilation_h);
      SetPanels(&plan->x, panels_x, g_.stride_w, g_.kernel_w, g_.dilation_w);
      plan->phase = DivideUp(plan->x.reach, g_.stride_w);
      plan->row_stride = plan->phase * g_.stride_w;
      plan->channel_stride = int64_t{plan->y.reach} * plan->row_stride | 1;
      const int64_t lifted = plan->channel_stride * w_.chunk_channels;
      const bool fits = lifted <= kMostOffset;
      if (fits && (lifted + plan->panel_vectors() * w_.rows) * k_.lanes *
                          int64_t{sizeof(float)} <=
                      kSecondCache) {
        return true;
      }
      if (plan->y.panel > 1) {
        panels_y = DivideUp(plan->y.tile, DivideUp(plan->y.panel, 2));
      } else if (plan->x.panel > 1) {
        panels_x = DivideUp(plan->x.tile, DivideUp(plan->x.panel, 2));
      } else {
        return fits;
      }
    }
  }

  void ChooseBlock(IrregularPlan plan, IrregularPlan* best) {
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

  double Cost(const IrregularPlan& p) const {
    const double blocks =
        double(DivideUp(p.y.panel, p.y.block)) * DivideUp(p.x.panel, p.x.block);
    const double vectors = double(p.panel_vectors());
    // Inputs under a block: dilated kernels leave out rows and columns.
    const int64_t in_h =
        Least(Reach(p.y.block, g_.stride_h, g_.kernel_h, g_.dilation_h),
              int64_t{p.y.block} * g_.kernel_h);
    const int64_t in_w =
        Least(Reach(p.x.block, g_.stride_w, g_.kernel_w, g_.dilation_w),
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
    const double positions =
        double(Least(p.y.reach, int64_t{p.y.panel} * g_.kernel_h)) *
        double(Least(p.x.reach, int64_t{p.x.panel} * g_.kernel_w));
    return double(p.y.panels) * p.x.panels *
           (compute + kLift * positions * g_.in_c + kLower * vectors * w_.rows);
  }

  const IrregularView& w_;
  const ConvGeometry& g_;
  const IrregularKernels& k_;
  double best_cost_ = -1;
};

}  // namespace

bool PlanIrregular(const IrregularView& weights, const ConvGeometry& geometry,
                   const IrregularKernels& kernels, IrregularPlan* plan) {
  // Far beyond 16-bit offsets, and 32-bit products would overflow.
  const ConvGeometry& g = geometry;
  if (int64_t{g.kernel_h} * g.dilation_h > kMostOffset ||
      int64_t{g.kernel_w} * g.dilation_w > kMostOffset ||
      g.stride_h > kMostOffset || g.stride_w > kMostOffset) {
    return false;
  }
  return Planner(weights, geometry, kernels).Run(plan);
}

}  // namespace tfrewprune
