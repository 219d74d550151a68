// SPDX-License-Identifier: Apache-2.0
#include "operators/reference_loops.h"

#include "kernels/irregular_reference.h"
#include "kernels/reference.h"

namespace tfrewprune {

// More than any other driver's.
double ReferenceLoops::Cycles(const Problem&) { return 1e30; }

const char* ReferenceLoops::Prepare(const Problem& problem) {
  problem_ = problem;
  if (problem.bands != nullptr) bands_ = *problem.bands;
  if (problem.segments != nullptr) segments_ = *problem.segments;
  return nullptr;
}

void ReferenceLoops::Invoke(const Tensors& t) {
  const ConvGeometry& g = problem_.geometry;
  if (problem_.bands != nullptr) {
    ReferenceConv2D(bands_, g, Activation::kNone, t.input, t.bias, t.output);
  } else {
    ReferenceIrregularConv2D(segments_, g, Activation::kNone, t.input, t.bias,
                             t.output);
  }
  const int64_t count = g.batch * problem_.pixels() * problem_.rows();
  Residual residual = problem_.MakeResidual();
  residual.values = t.residual;
  residual.Complete(0, count, t.output);
  if (!NeedsPostPass(problem_.activation)) {
    Activate(problem_.activation, t.output, count);
  }
}

}  // namespace tfrewprune
