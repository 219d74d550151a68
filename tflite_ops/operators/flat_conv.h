// SPDX-License-Identifier: Apache-2.0
//
// Convolution by the flat kernels (kernels/flat.h).
#ifndef TFREWPRUNE_OPERATORS_FLAT_CONV_H_
#define TFREWPRUNE_OPERATORS_FLAT_CONV_H_

#include "kernels/flat.h"
#include "operators/flat_runs.h"
#include "operators/planes_driver.h"

namespace tfrewprune {

class FlatConv : public PlanesDriver<FlatConv> {
 public:
  static double Cycles(const Problem& problem);
  const char* Prepare(const Problem& problem);

 private:
  friend class PlanesDriver<FlatConv>;
  void PrepareLayer();
  void RunItem(int item, const BandValues& values, const float* planes,
               uint32_t band, uint32_t band_end, float* stage) const;
  void FillMissingRows(int item) const;
  void AddResidual(int item) const;

  const FlatKernelRow* kernels_ = nullptr;
  FlatRuns runs_;
  PlanesLayer layer_ = {};
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_FLAT_CONV_H_
