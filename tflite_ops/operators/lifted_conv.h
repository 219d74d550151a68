// SPDX-License-Identifier: Apache-2.0
//
// Convolution by the irregular kernels (kernels/irregular.h), which work on
// lifted images.
#ifndef TFREWPRUNE_OPERATORS_LIFTED_CONV_H_
#define TFREWPRUNE_OPERATORS_LIFTED_CONV_H_

#include "kernels/irregular.h"
#include "kernels/kernels.h"
#include "operators/buffer.h"
#include "operators/driver.h"
#include "operators/lifted_plan.h"

namespace tfrewprune {

class LiftedConv {
 public:
  static double Cycles(const Problem& problem);
  const char* Prepare(const Problem& problem);
  void Invoke(const Tensors& tensors);

 private:
  // What one worker keeps to itself.
  struct Scratch {
    float* lifted;
    float* accumulator;
    float* value;  // of a chunk, where they are no floats
  };

  const char* PrepareWeights();
  const char* PrepareParts(int threads);
  const char* PreparePositions();
  const char* PrepareLanes();
  // Output rows [part_row_[part], part_row_[part + 1]) of one panel.
  void RunTask(int task, int worker);
  void RunBlocks(int panel, uint32_t segment, uint32_t segment_end,
                 const float* value, uint32_t row, uint32_t rows,
                 const Scratch& scratch) const;
  // The weights of a chunk's segments as kernels read them: where they lie, or
  // converted into the worker's scratch, without their scale.
  const float* FloatValues(uint32_t segment, uint32_t segment_end,
                           const Scratch& scratch) const;
  void ClearIdleRows(int panel, uint32_t row, uint32_t rows,
                     const Scratch& scratch) const;
  void Lower(int panel, uint32_t row, uint32_t rows, const Scratch& scratch,
             float* image) const;
  void AddResidual(int64_t pixels);
  int panels() const { return plan_.y.panels * plan_.x.panels; }

  // function(block's y, x in the panel, height, width, vectors before it).
  template <class Function>
  void EachBlock(int panel, Function function) const;

  IrregularView weights_ = {};
  ConvGeometry geometry_ = {};  // pointwise: all images below each other
  float minimum_ = 0, maximum_ = 0;
  ThreadPool* pool_ = nullptr;
  int threads_ = 1;
  Workspace* workspace_ = nullptr;  // every worker's scratch
  const IrregularKernels* kernels_ = nullptr;
  const Kernels* all_kernels_ = nullptr;  // of the same instruction set
  LiftedPlan plan_ = {};

  Buffer<uint16_t> offset_;           // one for each weight
  Buffer<IrregularSegment> segment_;  // in payload order
  Buffer<uint8_t> idle_row_;          // rows: 1 = keeps no weight
  Buffer<uint32_t> part_row_;         // parts + 1
  Buffer<uint32_t> chunk_part_;       // chunks x (parts + 1): first segment
  int parts_ = 1;
  Buffer<int32_t> position_;  // vectors that some tap reads
  int positions_ = 0;
  Buffer<int32_t> lane_input_;    // panels x positions x lanes
  Buffer<int32_t> lane_output_;   // vectors of all panels x lanes
  Buffer<int64_t> panel_output_;  // first vector of every panel
  uint64_t lifted_floats_ = 0, accumulator_floats_ = 0, value_floats_ = 0;
  Buffer<float> bias_, scale_;

  // Of the Invoke at work.
  const float* input_ = nullptr;
  float* output_ = nullptr;
  Residual residual_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_LIFTED_CONV_H_
