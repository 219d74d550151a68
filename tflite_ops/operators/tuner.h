// SPDX-License-Identifier: Apache-2.0
//
// Chooses drivers by measuring them, for all layers of a delegate together:
// within one budget of time, each layer once, with a file to remember.
#ifndef TFREWPRUNE_OPERATORS_TUNER_H_
#define TFREWPRUNE_OPERATORS_TUNER_H_

#include <pthread.h>

#include "isa/caches.h"
#include "operators/tuning.h"
#include "operators/tuning_cache.h"

namespace tfrewprune {

struct TunerOptions {
  double budget = 0.05;              // seconds, of all layers together
  const char* cache_path = nullptr;  // nullptr: no file
  Clock now = MonotonicSeconds;
};

// Where a choice came from.
enum class Origin { kPredicted, kMeasured, kAlike, kRemembered };
const char* OriginName(Origin origin);

class Tuner {
 public:
  // Reads the file, if there is one. nullptr when memory is out.
  static Tuner* Create(const TunerOptions& options);
  // nullptr is fine. Writes what the file does not have yet.
  static void Destroy(Tuner* tuner);

  // What a layer may want to spend; nothing once it was chosen for.
  struct Claim {
    double round = 0;  // seconds of a round of trials
    double layer = 0;  // cycles of one run
  };
  // The packed weights of a layer.
  struct Payload {
    uint64_t hash;
    const void* data;
    size_t bytes;
  };
  // Tells of a layer before the first choice is made, so that all share the
  // budget by their time.
  void Announce(const Problem& problem, const Payload& payload, Claim* claim);

  struct Chosen {
    Choice choice;
    Origin origin = Origin::kPredicted;
    double gain = 1;  // measured, over the predicted choice
  };
  // Measures unless the answer is known or the budget is spent. Any thread may
  // call it; one at a time measures.
  Chosen Choose(const Problem& problem, const Payload& payload, Claim* claim);

  // Why the file could not be written, once; nullptr when it could.
  const char* TakeWriteError();
  double spent() const { return spent_; }  // seconds

 private:
  explicit Tuner(const TunerOptions& options) : options_(options) {}
  ~Tuner();

  bool Known(const Problem& problem, uint64_t payload, Chosen* chosen);
  double Share(const Claim& claim) const;
  Meanwhile MeanwhileOf(const Payload& payload) const;
  void Take(Claim* claim);
  void Write();

  TunerOptions options_;
  size_t last_cache_bytes_ = LastCacheBytes();
  char* path_ = nullptr;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;  // guards all below
  TuningCache exact_;      // by payload and problem, as in the file
  TuningCache alike_;      // by what counts, in this process
  TuningCache announced_;  // likewise
  int claims_ = 0, announced_layers_ = 0;
  double waiting_ = 0;           // rounds of all claims
  double announced_cycles_ = 0;  // layers of all claims ever
  size_t announced_bytes_ = 0;   // payloads of all layers
  double most_activations_ = 0;  // bytes, of one of them
  double spent_ = 0;             // seconds
  bool changed_ = false;         // since the file was written
  const char* write_error_ = nullptr;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_TUNER_H_
