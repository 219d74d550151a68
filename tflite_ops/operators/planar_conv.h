// SPDX-License-Identifier: Apache-2.0
//
// Convolution by the direct kernels over planes: the pixels that a tile reads
// for a column lie next to each other instead of a pixel apart, in one or two
// cache lines.
#ifndef TFREWPRUNE_OPERATORS_PLANAR_CONV_H_
#define TFREWPRUNE_OPERATORS_PLANAR_CONV_H_

#include "operators/planes_driver.h"

namespace tfrewprune {

class PlanarConv : public PlanesDriver<PlanarConv> {
 public:
  static double Cycles(const Problem& problem);
  const char* Prepare(const Problem& problem);
  void Invoke(const Tensors& tensors);

 private:
  friend class PlanesDriver<PlanarConv>;
  bool AddTiles(Block* block);
  int32_t* Offsets() const { return reinterpret_cast<int32_t*>(Shared()); }
  void OffsetsTask(int task);
  void RunItem(int item, const BandValues& values, const float* planes,
               uint32_t band, uint32_t band_end, float* stage) const;
  void FillMissingRows(int item) const {
    BandedDriver::FillMissingRows(tiling_, item, weights_.rows);
  }
  void AddResidual(int item) const {
    BandedDriver::AddResidual(tiling_, item, weights_.rows);
  }

  Tiling tiling_;
  // The offsets of the columns are scratch, made in every Invoke: kept, they
  // would be 6 % of the payload.
  DirectLayer layer_ = {};
  OffsetsKernel plane_offsets_ = nullptr;
  int offset_tasks_ = 1;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PLANAR_CONV_H_
