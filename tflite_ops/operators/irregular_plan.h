// SPDX-License-Identifier: Apache-2.0
//
// How an irregular convolution is cut up: the lanes' tiles, panels of a tile
// that share lifted inputs, and the block of vectors held in registers.
#ifndef TFREWPRUNE_OPERATORS_IRREGULAR_PLAN_H_
#define TFREWPRUNE_OPERATORS_IRREGULAR_PLAN_H_

#include "format/irregular.h"
#include "kernels/convolution.h"
#include "kernels/irregular.h"

namespace tfrewprune {

// One axis of the plan (all numbers are output pixels unless they say input).
struct IrregularAxis {
  int lanes;   // tiles along this axis
  int tile;    // pixels of a tile
  int panels;  // panels of a tile
  int panel;   // pixels of the largest panel
  int block;   // pixels of the largest block
  int reach;   // input pixels under the largest panel

  // Pieces are as equal as they can be: sizes differ by at most one.
  int PanelBegin(int i) const { return tile * i / panels; }
  int PanelSize(int i) const { return PanelBegin(i + 1) - PanelBegin(i); }
};

// A panel's lifted inputs: vector (row, column) of channel c of the chunk lies
// at c * channel_stride + row * row_stride + Column(column). Columns are stored
// by their remainder by the stride, so that neighbouring outputs find their
// inputs in neighbouring vectors.
struct IrregularPlan {
  IrregularAxis y, x;
  int phase;       // vectors of one remainder
  int row_stride;  // vectors
  int64_t
      channel_stride;  // vectors, odd: channels spread over the cache's sets
  int stride_w;

  int Column(int input_column) const {
    return input_column % stride_w * phase + input_column / stride_w;
  }
  int64_t panel_vectors() const { return int64_t{y.panel} * x.panel; }
};

// Finds the plan with the least predicted time. False when a chunk of channels
// under a single output pixel exceeds 16-bit offsets (vast kernels).
bool PlanIrregular(const IrregularView& weights, const ConvGeometry& geometry,
                   const IrregularKernels& kernels, IrregularPlan* plan);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_IRREGULAR_PLAN_H_
