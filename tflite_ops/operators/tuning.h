// SPDX-License-Identifier: Apache-2.0
//
// Measures the drivers that may be the best of a layer. Predictions are made
// from one CPU's figures; on the CPU at hand a run is worth more.
#ifndef TFREWPRUNE_OPERATORS_TUNING_H_
#define TFREWPRUNE_OPERATORS_TUNING_H_

#include "operators/driver.h"

namespace tfrewprune {

// Seconds from some beginning; another one only in tests.
using Clock = double (*)();
double MonotonicSeconds();

// A way to run a layer that is worth a measurement.
struct Candidate {
  Choice choice;
  double cycles;  // predicted
};

class Candidates {
 public:
  static constexpr int kMost = 8;

  // Those that are predicted to take at most twice the least time, the best
  // one first.
  explicit Candidates(const Problem& problem);

  int count() const { return count_; }
  const Candidate& operator[](int i) const { return candidate_[i]; }
  // About what a round takes that times each of them once, on what Sample()
  // leaves of the layer.
  double RoundSeconds(const Problem& problem) const;

 private:
  void Add(const Problem& problem, const Driver& driver, bool alone);

  Candidate candidate_[kMost];
  int count_ = 0;
};

// As much of a layer as tells its drivers apart: a few images of a batch, a few
// rows of large images.
ConvGeometry Sample(const Problem& problem, double cycles);

struct Measured {
  bool decided = false;  // every candidate was timed
  Choice choice;
  double gain = 1;  // of the choice over the predicted one
};

// What the rest of a model does to the caches between two runs of a layer.
// Drivers that are equals when a layer runs over and over differ by 30 % when
// its weights come from memory.
struct Meanwhile {
  size_t read = 0;              // bytes of other weights
  const void* flush = nullptr;  // what has gone to memory since
  size_t flush_bytes = 0;
};

// Runs the candidates in turn, until the best one is clear or `deadline` has
// come. Allocates, and gives all of it back.
Measured Measure(const Problem& problem, const Candidates& candidates,
                 const Meanwhile& meanwhile, double deadline, Clock now);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_TUNING_H_
