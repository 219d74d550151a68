// SPDX-License-Identifier: Apache-2.0
//
// Plain loops over any problem: the oracle of the tests, and what is left where
// no other driver can do a layer.
#ifndef TFREWPRUNE_OPERATORS_REFERENCE_LOOPS_H_
#define TFREWPRUNE_OPERATORS_REFERENCE_LOOPS_H_

#include "operators/driver.h"

namespace tfrewprune {

class ReferenceLoops {
 public:
  static double Cycles(const Problem& problem);
  const char* Prepare(const Problem& problem);
  void Invoke(const Tensors& tensors);

 private:
  Problem problem_;
  BandedView bands_ = {};
  IrregularView segments_ = {};
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_REFERENCE_LOOPS_H_
