// SPDX-License-Identifier: Apache-2.0
//
// Convolution by the flat kernels (kernels/flat.h): the image is worked on in
// blocks of output rows; the input under a block is transposed to planes in a
// scratch of cache size, then all runs of the block go over all bands.
#ifndef TFREWPRUNE_OPERATORS_FLAT_CONV_H_
#define TFREWPRUNE_OPERATORS_FLAT_CONV_H_

#include "format/payload.h"
#include "kernels/convolution.h"
#include "kernels/flat.h"
#include "operators/band_tables.h"
#include "operators/buffer.h"
#include "operators/flat_layout.h"
#include "operators/flat_runs.h"
#include "operators/residual.h"
#include "operators/thread_pool.h"
#include "operators/workspace.h"

namespace tfrewprune {

class FlatConv {
 public:
  // True when `kernels` has flat kernels for these weights.
  static bool Supports(const Kernels& kernels, const BandedView& weights);

  // As Conv2D::Prepare. `tables` belongs to the same weights.
  const char* Prepare(const BandedView& weights, const ConvGeometry& geometry,
                      const BandTables& tables, const Kernels& kernels,
                      ThreadPool* pool, Workspace* workspace);

  // After tables->PackBias(). Allocates nothing.
  void Invoke(const float* input, float* output, const Residual& residual);

 private:
  struct Block : FlatBlock {
    int run, run_end;
  };
  const char* PrepareBlocks();
  void ChooseTasks();
  // Of all bands and runs in the ranges.
  void RunBands(const float* planes, int run, int run_end, uint32_t band,
                uint32_t band_end, float* stage) const;
  void AddResidual(const FlatRun& run) const;  // once it has all its bands
  // Where a task's runs begin when several threads share a block.
  int FirstRun(int task) const {
    const int64_t runs = shared_->run_end - shared_->run;
    return shared_->run + static_cast<int>(runs * task / run_tasks_);
  }
  void Run(int tasks, ThreadPool::Function function);
  float* Planes(int worker) const {
    return workspace_->get() +
           (block_parallel_ ? worker : 0) * layout_.floats();
  }
  float* Stage(int worker) const {
    return workspace_->get() + first_stage_ + worker * stage_floats_;
  }

  BandedView weights_ = {};
  ConvGeometry geometry_ = {};  // pointwise: one row of all pixels
  const BandTables* tables_ = nullptr;
  ThreadPool* pool_ = nullptr;
  // Planes, one for every worker or one for all, then the workers' stages.
  Workspace* workspace_ = nullptr;
  int64_t first_stage_ = 0, stage_floats_ = 0;
  int threads_ = 1;
  TransposeKernel transpose_ = nullptr;
  const FlatKernelRow* kernels_ = nullptr;
  int max_units_ = 1;  // of a run

  FlatLayout layout_;
  int64_t bands_at_once_ = 1;
  bool block_parallel_ = false;
  int band_tasks_ = 1, run_tasks_ = 1;
  Buffer<ptrdiff_t> tap_offset_;
  Buffer<uint32_t> start_;
  Buffer<Block> block_;
  int blocks_ = 0;
  FlatRuns runs_;
  PlanesLayer layer_ = {};

  // Of the Invoke at work.
  const float* input_ = nullptr;
  float* output_ = nullptr;
  Residual residual_;
  const Block* shared_ = nullptr;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_FLAT_CONV_H_
