// SPDX-License-Identifier: Apache-2.0
#include "operators/tuner.h"

#include "operators/integers.h"

namespace tfrewprune {
namespace {

// Layers whose kept columns differ by less than about this share one
// measurement, as long as they are the same in all else.
constexpr double kAlikeColumns = 0.07;
// Of other layers' weights: more than a second-level cache holds.
constexpr int64_t kMostRead = 3 << 20;
// Rounds below which a measurement is worth nothing, preparations included.
constexpr double kLeastRounds = 4;

// What the time of a layer depends on, but for its weights.
uint64_t ProblemKey(const Problem& problem, uint64_t seed, double columns) {
  const ConvGeometry& g = problem.geometry;
  const BandedView* bands = problem.bands;
  const IrregularView* segments = problem.segments;
  const uint64_t fields[] = {
      uint64_t(g.batch),
      uint64_t(g.in_h),
      uint64_t(g.in_w),
      uint64_t(g.in_c),
      uint64_t(g.out_h),
      uint64_t(g.out_w),
      uint64_t(g.kernel_h),
      uint64_t(g.kernel_w),
      uint64_t(g.stride_h),
      uint64_t(g.stride_w),
      uint64_t(g.dilation_h),
      uint64_t(g.dilation_w),
      uint64_t(g.pad_top),
      uint64_t(g.pad_left),
      uint64_t(problem.residual),
      uint64_t(problem.kernels->isa),
      uint64_t(problem.half_kernels != nullptr),
      uint64_t(problem.threads()),
      uint64_t(problem.rows()),
      bands != nullptr ? bands->band_rows : 0,
      bands != nullptr ? bands->band_count : segments->chunk_count(),
      bands != nullptr ? bands->index_bytes : segments->index_bytes,
      uint64_t(bands != nullptr ? bands->value.type() : segments->value.type()),
      static_cast<uint64_t>(columns),
  };
  return Hash(fields, sizeof(fields), seed);
}

double Columns(const Problem& problem) {
  return problem.bands != nullptr
             ? static_cast<double>(problem.bands->column_count)
             : static_cast<double>(problem.segments->weight_count);
}

uint64_t ExactKey(const Problem& problem, uint64_t payload) {
  return ProblemKey(problem, payload, Columns(problem));
}

uint64_t AlikeKey(const Problem& problem) {
  int step = 0;
  for (double columns = Columns(problem); columns > 1; ++step) {
    columns /= 1 + kAlikeColumns;
  }
  return ProblemKey(problem, 0, step);
}

class Lock {
 public:
  explicit Lock(pthread_mutex_t* mutex) : mutex_(mutex) {
    pthread_mutex_lock(mutex_);
  }
  ~Lock() { pthread_mutex_unlock(mutex_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  pthread_mutex_t* mutex_;
};

}  // namespace

const char* OriginName(Origin origin) {
  static constexpr const char* kNames[] = {
      "predicted", "measured", "measured on a layer like it", "remembered"};
  return kNames[static_cast<int>(origin)];
}

Tuner* Tuner::Create(const TunerOptions& options) {
  void* memory = malloc(sizeof(Tuner));
  if (memory == nullptr) return nullptr;
  Tuner* tuner = new (memory) Tuner(options);
  tuner->options_.cache_path = nullptr;  // the caller's may go
  if (options.cache_path != nullptr) {
    tuner->path_ = strdup(options.cache_path);
    if (tuner->path_ == nullptr) {
      Destroy(tuner);
      return nullptr;
    }
    tuner->exact_.Read(tuner->path_);
  }
  return tuner;
}

void Tuner::Destroy(Tuner* tuner) {
  if (tuner == nullptr) return;
  tuner->Write();
  tuner->~Tuner();
  free(tuner);
}

Tuner::~Tuner() {
  free(path_);
  pthread_mutex_destroy(&mutex_);
}

void Tuner::Announce(const Problem& problem, const Payload& payload,
                     Claim* claim) {
  const Lock lock(&mutex_);
  announced_bytes_ += payload.bytes;
  const double activations = problem.ActivationBytes();
  if (activations > most_activations_) most_activations_ = activations;
  Take(claim);
  Chosen known;
  const uint64_t alike = AlikeKey(problem);
  if (Known(problem, payload.hash, &known) ||
      announced_.Find(alike) != nullptr) {
    return;
  }
  announced_.Add(alike, {});
  const Candidates candidates(problem);
  if (candidates.count() < 2) return;
  claim->round = candidates.RoundSeconds(problem);
  claim->layer = candidates[0].cycles;
  waiting_ += claim->round;
  ++claims_;
  announced_cycles_ += claim->layer;
  ++announced_layers_;
}

// The layer is no longer waited for.
void Tuner::Take(Claim* claim) {
  if (claim->round > 0) {
    waiting_ = --claims_ == 0 ? 0 : waiting_ - claim->round;
  }
  *claim = {};
}

bool Tuner::Known(const Problem& problem, uint64_t payload, Chosen* chosen) {
  const uint64_t key = ExactKey(problem, payload);
  const Choice* choice = exact_.Find(key);
  chosen->origin = Origin::kRemembered;
  if (choice == nullptr) {
    choice = alike_.Find(AlikeKey(problem));
    chosen->origin = Origin::kAlike;
  }
  // Not what a stranger's file says it can do.
  if (choice == nullptr || choice->driver->cycles(problem) == kUnsupported) {
    chosen->origin = Origin::kPredicted;
    return false;
  }
  chosen->choice = *choice;
  if (chosen->origin == Origin::kAlike) {
    exact_.Add(key, chosen->choice);
    changed_ = true;
  }
  return true;
}

// Seconds for measuring a layer that is no longer waited for: its part of
// what is left. Where that is too little for anybody, the longer half of the
// layers takes what it needs, first come, first served.
double Tuner::Share(const Claim& claim) const {
  const double left = options_.budget - spent_;
  if (left <= 0) return 0;
  const double part = left * claim.round / (waiting_ + claim.round);
  const double need = kLeastRounds * claim.round;
  if (part >= need) return part;
  const bool large = claim.layer * announced_layers_ >= 0.5 * announced_cycles_;
  return large && left >= need ? need : 0;
}

Tuner::Chosen Tuner::Choose(const Problem& problem, const Payload& payload,
                            Claim* claim) {
  const Lock lock(&mutex_);
  Take(claim);
  Chosen chosen;
  if (!Known(problem, payload.hash, &chosen)) {
    const Candidates candidates(problem);
    chosen.choice = candidates[0].choice;
    const double share =
        candidates.count() < 2
            ? 0
            : Share({candidates.RoundSeconds(problem), candidates[0].cycles});
    if (share > 0) {
      const double begin = options_.now();
      const Measured measured =
          Measure(problem, candidates, MeanwhileOf(payload), begin + share,
                  options_.now);
      spent_ += options_.now() - begin;
      if (measured.decided) {
        chosen = {measured.choice, Origin::kMeasured, measured.gain};
        exact_.Add(ExactKey(problem, payload.hash), chosen.choice);
        alike_.Add(AlikeKey(problem), chosen.choice);
        changed_ = true;
      }
    }
  }
  if (claims_ == 0) Write();
  return chosen;
}

// Weights of a model that fills half of the last cache are in memory when their
// turn comes (it has more than we know of), those of smaller ones in there.
Meanwhile Tuner::MeanwhileOf(const Payload& payload) const {
  Meanwhile meanwhile;
  if (announced_bytes_ > payload.bytes) {
    meanwhile.read =
        static_cast<size_t>(Min(announced_bytes_ - payload.bytes, kMostRead));
  }
  const double all = static_cast<double>(announced_bytes_) + most_activations_;
  if (meanwhile.read > 0 && all >= 0.5 * double(last_cache_bytes_)) {
    meanwhile.flush = payload.data;
    meanwhile.flush_bytes = payload.bytes;
  }
  return meanwhile;
}

void Tuner::Write() {
  if (!changed_ || path_ == nullptr) return;
  changed_ = false;
  write_error_ = exact_.Write(path_);
}

const char* Tuner::TakeWriteError() {
  const Lock lock(&mutex_);
  const char* error = write_error_;
  write_error_ = nullptr;
  return error;
}

}  // namespace tfrewprune
