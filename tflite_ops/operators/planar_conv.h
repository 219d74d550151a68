// SPDX-License-Identifier: Apache-2.0
//
// Convolution by the planar kernels (kernels/planar.h).
#ifndef TFREWPRUNE_OPERATORS_PLANAR_CONV_H_
#define TFREWPRUNE_OPERATORS_PLANAR_CONV_H_

#include "operators/down_planes.h"
#include "operators/planar_layout.h"
#include "operators/planes_driver.h"
#include "operators/tiling.h"

namespace tfrewprune {

class PlanarConv : public PlanesDriver<PlanarConv> {
 public:
  static double Cycles(const Problem& problem);
  const char* Prepare(const Problem& problem);

 private:
  friend class PlanesDriver<PlanarConv>;
  const char* PrepareTiles();
  bool PrepareDown();
  void PrepareLayers();
  void BeginTiles();
  bool AddTiles(Block* block);
  double UnitCycles(int units) const;
  double TileCycles() const;

  void Store(const Block& block, float* planes, int share, int shares) const;
  void RunItem(int item, const BandValues& values, const float* planes,
               uint32_t band, uint32_t band_end, float* stage) const;
  void RunKernel(const PlanarLayer& layer, const BandValues& values,
                 const Tile& tile, uint32_t band, uint32_t band_end,
                 const float* planes, float* output,
                 const Segment* segments) const;
  uint32_t RunEnd(uint32_t band, uint32_t band_end) const;
  void FillMissingRows(int item) const;
  void AddResidual(int item) const;

  static constexpr int kMostShapes = 64;
  const PlanarKernelRow* kernel_[kMostShapes];
  TileShape shape_[kMostShapes];
  int shapes_ = 0, unit_ = 1;

  PlanarLayout layout_;
  bool down_ = false;  // the last column has a run and planes of its own
  DownPlanes down_planes_;
  Buffer<ptrdiff_t> down_tap_offset_;
  Tiling tiling_;
  PlanarLayer layer_ = {};
  PlanarLayer down_layer_ = {};  // of tiles that are nothing but that run
  // Output that would fall onto a few cache sets goes through a stage.
  bool staged_ = false;
  uint32_t stage_bands_ = 1;
  PlanarLayer stage_layer_ = {};
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PLANAR_CONV_H_
