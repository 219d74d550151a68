// SPDX-License-Identifier: Apache-2.0
//
// Convolution by the band kernels (kernels/band.h), which read the NHWC image
// as it is, or a padded copy of it.
#ifndef TFREWPRUNE_OPERATORS_DIRECT_CONV_H_
#define TFREWPRUNE_OPERATORS_DIRECT_CONV_H_

#include "format/payload.h"
#include "kernels/band.h"
#include "kernels/convolution.h"
#include "operators/band_tables.h"
#include "operators/buffer.h"
#include "operators/residual.h"
#include "operators/thread_pool.h"
#include "operators/tiling.h"
#include "operators/workspace.h"

namespace tfrewprune {

class DirectConv {
 public:
  // As Conv2D::Prepare. `tables` belongs to the same weights.
  const char* Prepare(const BandedView& weights, const ConvGeometry& geometry,
                      const BandTables& tables, const Kernels& kernels,
                      ThreadPool* pool, Workspace* workspace);

  // After tables->PackBias(). Allocates nothing.
  void Invoke(const float* input, float* output, const Residual& residual);

 private:
  // `rows` rows of `width` neighbouring output pixels; strides in floats.
  struct PixelGrid {
    int64_t rows, width;
    int64_t input_row_stride, input_pixel_stride;
    int64_t output_row_stride, output_pixel_stride;
  };

  const char* PrepareTiles(const Kernels& kernels, const PixelGrid& grid);
  void Run(int tasks, ThreadPool::Function function);
  void PadTask(int task);
  void ComputeTask(int task);
  void AddResidual(int i) const;  // once it has all its bands

  BandedView weights_ = {};
  ConvGeometry geometry_ = {};
  const BandTables* tables_ = nullptr;
  ThreadPool* pool_ = nullptr;
  Workspace* workspace_ = nullptr;  // one padded image

  const BandKernelRow* kernel_[16];
  Tiling tiling_;
  BandLayer layer_ = {};
  Buffer<int32_t> offset_;
  bool padded_ = false;
  int64_t plane_rows_ = 0;
  int64_t plane_pitch_ = 0;  // floats between rows of what the tiles read
  int runs_ = 0;             // images worked on one after the other
  int tile_tasks_ = 1, band_tasks_ = 1;

  // Of the image at work.
  const float* input_ = nullptr;
  float* output_ = nullptr;
  Residual residual_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_DIRECT_CONV_H_
