// SPDX-License-Identifier: Apache-2.0
//
// What an operator computes, and with what: all that a driver looks at to
// predict its time and to prepare. A fully connected layer is a pointwise
// convolution over one row of `batch` pixels.
#ifndef TFREWPRUNE_OPERATORS_PROBLEM_H_
#define TFREWPRUNE_OPERATORS_PROBLEM_H_

#include "format/irregular.h"
#include "format/payload.h"
#include "kernels/convolution.h"
#include "kernels/select.h"
#include "operators/residual.h"
#include "operators/thread_pool.h"
#include "operators/workspace.h"

namespace tfrewprune {

struct Problem {
  const BandedView* bands = nullptr;        // either these
  const IrregularView* segments = nullptr;  // or those
  ConvGeometry geometry = {};
  Activation activation = Activation::kNone;
  bool residual = false;  // Invoke adds one before the activation
  const Kernels* kernels = nullptr;
  const Kernels* half_kernels = nullptr;  // not nullptr: they may be used, too
  ThreadPool* pool = nullptr;             // nullptr: one thread
  Workspace* workspace = nullptr;

  uint32_t rows() const {
    return bands != nullptr ? bands->rows : segments->rows;
  }
  uint32_t columns() const {
    return bands != nullptr ? bands->columns : segments->columns;
  }
  // With all lanes there are.
  int fmas_a_cycle() const {
    return FmasPerCycle(kernels->isa, kernels->lanes);
  }
  int threads() const { return pool == nullptr ? 1 : pool->threads(); }
  // Of one image.
  int64_t pixels() const { return int64_t{geometry.out_h} * geometry.out_w; }
  // Of input and output.
  double ActivationBytes() const;
  // Whether a driver may take so many bytes of tables and scratch: they are in
  // proportion to payload and activations, whatever a geometry claims.
  bool Affords(double bytes) const;
  // What the kernels clamp to: a residual comes before the activation.
  Activation kernel_activation() const {
    return residual ? Activation::kNone : activation;
  }
  // How a driver completes its output; `values` comes with an Invoke.
  Residual MakeResidual() const;
};

// Converting a weight for kernels that read floats, in cycles: most of it is
// the store.
inline constexpr double kWidenCycles = 0.3;

// The geometry of a fully connected layer.
ConvGeometry RowOfPixels(int batch, uint32_t columns);

// nullptr, or why the weights and the geometry are no convolution.
const char* CheckProblem(const Problem& problem);

// The share of kernel rows that lie inside of the image, over all output rows:
// drivers leave the others out.
double KernelRowShare(const ConvGeometry& geometry);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PROBLEM_H_
