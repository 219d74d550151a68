// SPDX-License-Identifier: Apache-2.0
//
// Convolution by the direct kernels (kernels/direct.h), which read the NHWC
// image in place. Above and below the image tiles leave kernel rows out; output
// pixels whose taps reach past its left or right side read a zero-padded copy
// of the few columns there. Small images are copied as a whole.
#ifndef TFREWPRUNE_OPERATORS_DIRECT_CONV_H_
#define TFREWPRUNE_OPERATORS_DIRECT_CONV_H_

#include "operators/banded_driver.h"
#include "operators/image_border.h"
#include "operators/tiling.h"

namespace tfrewprune {

class DirectConv : public BandedDriver {
 public:
  explicit DirectConv(bool half = false) : BandedDriver(half) {}
  static double Cycles(const Problem& problem);
  const char* Prepare(const Problem& problem);
  void Invoke(const Tensors& tensors);

 protected:
  // `half`: with the kernels in float16 arithmetic, which stand in the problem.
  static double Cycles(const Problem& problem, bool half);

 private:
  // An image that tiles read: the input, or what was copied of it.
  struct Source {
    int64_t width;  // pixels of a row
    Buffer<ptrdiff_t> tap_offset;
    int64_t first;  // of its offsets in the workspace
    DirectLayer layer;
  };
  bool PrepareTaps(Source* source);
  const char* PrepareTiles(const Kernels& kernels);
  bool AddRows();
  bool AddSides();
  void PrepareTasks();

  void PrepareTask(int task);
  int32_t* Offsets(const Source& source) const {
    return reinterpret_cast<int32_t*>(workspace_->get() + source.first);
  }
  void MakeOffsets(const Source& source, uint32_t band, uint32_t band_end);
  void ComputeTask(int task, int worker);
  // Both sources' layers with the weights of some bands.
  struct Layers {
    DirectLayer image, copy;
  };
  Layers LayersOf(const BandValues& values) const;
  void RunTile(int i, const Layers& layers, uint32_t band,
               uint32_t band_end) const;
  void RunFirstTile(int i, const Layers& layers, uint32_t band,
                    uint32_t band_end) const;
  int64_t OutputStride(int i) const;  // of a tile

  // In the workspace: the copy, then the offsets of the columns for both
  // sources. Kept, they would be 6 % of the payload; they take 1 to 2 cycles a
  // column to make, which every pixel uses.
  ImageBorder border_;
  Tiling tiling_;
  int copy_tile_ = 0;  // tiles from here on read the copy
  Source image_ = {}, copy_ = {};
  int prepare_tasks_ = 0;
  bool offsets_made_ = false;  // in this Invoke

  bool cold_ = false;  // weights that may have left the caches since
  int64_t tiles_at_once_ = 1, bands_at_once_ = 1;
  int tile_tasks_ = 1, band_tasks_ = 1;
};

// The same in float16 arithmetic, on a copy of the image in halves.
class HalfDirectConv : public DirectConv {
 public:
  HalfDirectConv() : DirectConv(true) {}
  static double Cycles(const Problem& problem);
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_DIRECT_CONV_H_
