// SPDX-License-Identifier: Apache-2.0
//
// Cuts blocks of output pixels into the runs of the flat kernels.
//
// A run may begin in one row and end in another, but then it takes the kernel
// rows that any of them needs (beside the image there are zeros). So rows near
// the border, which need fewer, get runs of their own where that is cheaper.
#ifndef TFREWPRUNE_OPERATORS_FLAT_RUNS_H_
#define TFREWPRUNE_OPERATORS_FLAT_RUNS_H_

#include "kernels/convolution.h"
#include "kernels/flat.h"
#include "operators/buffer.h"
#include "operators/planes_layout.h"

namespace tfrewprune {

// What a run of `units` takes a column, in cycles.
double FlatColumnCycles(int band_rows, double units, int fmas_a_cycle);
// What a run and band take beside their columns.
double FlatRunCycles(int fmas_a_cycle);

class FlatRuns {
 public:
  // Starts anew. Pixels of a block are `pitch` a row; runs have up to
  // `max_units`, output pixels are `output_stride` floats apart, and bands have
  // `band_rows` rows and about `band_columns` columns.
  void Begin(const ConvGeometry& geometry, int64_t pitch, int64_t output_stride,
             int max_units, int fmas_a_cycle, int band_rows,
             double band_columns);

  // Makes the runs of a block. False when memory is out.
  bool Add(const PlanesBlock& block);

  int runs() const { return static_cast<int>(runs_); }
  const FlatRun& run(int i) const { return run_[i]; }

 private:
  // Rows [y, y_end) that share runs.
  struct Part {
    int y, y_end;
    int tap_begin, tap_end;
    double cycles;  // of the cheapest way to join all rows up to y_end
    int first;      // the first part of the last join of that way
  };
  static constexpr int kMostParts = 16;

  static Part Joined(const Part& above, const Part& below);
  int FindParts(const PlanesBlock& block, Part* part) const;
  int64_t Units(const PlanesBlock& block, const Part& part) const;
  double Cycles(int64_t units, int taps) const;
  bool AddPart(const PlanesBlock& block, const Part& part);

  ConvGeometry geometry_ = {};
  int64_t pitch_ = 0, output_stride_ = 0;
  int max_units_ = 1, band_rows_ = 1;
  int fmas_a_cycle_ = 2;
  double tap_columns_ = 0;  // columns of a band in a kernel row
  Buffer<FlatRun> run_;
  uint64_t runs_ = 0, capacity_ = 0;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_FLAT_RUNS_H_
