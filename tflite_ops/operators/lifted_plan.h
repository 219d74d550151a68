// SPDX-License-Identifier: Apache-2.0
//
// How an irregular convolution is cut up: the lanes' tiles, panels of a tile
// that share lifted inputs, and the block of vectors held in registers.
#ifndef TFREWPRUNE_OPERATORS_LIFTED_PLAN_H_
#define TFREWPRUNE_OPERATORS_LIFTED_PLAN_H_

#include "format/irregular.h"
#include "kernels/convolution.h"
#include "kernels/irregular.h"
#include "operators/integers.h"

namespace tfrewprune {

// One axis of the plan (all numbers are output pixels unless they say input).
struct LiftedAxis {
  int lanes;   // tiles along this axis
  int tile;    // pixels of a tile
  int panels;  // panels of a tile
  int panel;   // pixels of the largest panel
  int block;   // pixels of the largest block
  // Where tap t of output pixel p is lifted to: p * stride + t * dilation,
  // below `reach`. Those of the convolution, or less where they leave room
  // between.
  int64_t stride, dilation, reach;

  // Pieces are as equal as they can be: sizes differ by at most one.
  int PanelBegin(int i) const {
    return static_cast<int>(int64_t{tile} * i / panels);
  }
  int PanelSize(int i) const { return PanelBegin(i + 1) - PanelBegin(i); }
  // input[place] = the input pixel that is lifted there, from the first tap of
  // the panel's first output; -1 where no tap reads one. The arguments are the
  // convolution's.
  void FindInputs(int conv_stride, int kernel, int conv_dilation,
                  int32_t* input) const;
};

// A panel's lifted inputs: vector (row, column) of channel c of the chunk lies
// at c * channel_stride + row * row_stride + Column(column). Columns are stored
// by their remainder by the stride, so that neighbouring outputs find their
// inputs in neighbouring vectors.
struct LiftedPlan {
  LiftedAxis y, x;
  int64_t phase;       // vectors of one remainder
  int64_t row_stride;  // vectors
  int64_t
      channel_stride;  // vectors, odd: channels spread over the cache's sets

  int64_t Column(int64_t place) const {
    return place % x.stride * phase + place / x.stride;
  }
  int64_t panel_vectors() const { return int64_t{y.panel} * x.panel; }
  // Places of a panel that some tap reads.
  int64_t positions(const ConvGeometry& g) const {
    return Min(y.reach, int64_t{y.panel} * g.kernel_h) *
           Min(x.reach, int64_t{x.panel} * g.kernel_w);
  }
};

// Finds the plan with the least predicted time, in cycles for one image. False
// when a chunk of channels under a single output pixel exceeds 16-bit offsets
// (vast kernels).
bool PlanLifted(const IrregularView& weights, const ConvGeometry& geometry,
                const IrregularKernels& kernels, LiftedPlan* plan,
                double* cycles);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_LIFTED_PLAN_H_
