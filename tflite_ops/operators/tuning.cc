// SPDX-License-Identifier: Apache-2.0
#include "operators/tuning.h"

#include <time.h>

#include "isa/caches.h"
#include "isa/denormals.h"
#include "operators/integers.h"

namespace tfrewprune {
namespace {

// Worse predictions are not tried.
constexpr double kWorthTrying = 2;
// Below so many cycles a layer may be faster without the pool's hand-offs.
constexpr double kHandOffCycles = 60e3;
// What a sample should take, and the least rows of it: blocks of rows have
// fewer.
constexpr double kSampleCycles = 600e3;
constexpr int kSampleRows = 8, kSampleColumns = 256;
// Larger images are left to the prediction: measuring takes them a second time.
constexpr uint64_t kMostFloats = 16 << 20;
// Of a predicted cycle, on whatever CPU.
constexpr double kSecondsPerCycle = 1 / 3e9;
// One timing lasts at least so long: clocks are read in 20 to 50 ns.
constexpr double kTimedSeconds = 20e-6;
// Candidates that are so much slower than the best one by now are out: first
// timings are rough.
constexpr int kRounds = 24, kRoughRounds = 3, kFineRounds = 10;
constexpr double kRough = 1.2, kFine = 1.04;
constexpr double kClear = 0.99, kClearOnSeveralThreads = 0.95;

// A candidate on the bench.
class Trial {
 public:
  Trial() = default;
  ~Trial() {
    if (state_ == nullptr) return;
    driver_->destroy(state_);
    free(state_);
  }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  // False when it cannot be prepared.
  bool Prepare(const Problem& problem, const Choice& choice,
               Workspace* workspace) {
    driver_ = choice.driver;
    if (posix_memalign(&state_, 64, driver_->state_bytes) != 0) {
      state_ = nullptr;
      return false;
    }
    driver_->construct(state_);
    problem_ = problem;
    problem_.workspace = workspace;
    several_ = problem.threads() > 1;
    if (choice.alone) problem_.pool = nullptr;
    return driver_->cycles(problem_) != kUnsupported &&
           driver_->prepare(state_, problem_) == nullptr;
  }

  // Finds out how often to run it in one timing: once where caches are to be
  // as in a model.
  void WarmUp(const Tensors& tensors, bool once, Clock now) {
    const double seconds = Run(tensors, now);
    if (seconds < kTimedSeconds && !once) {
      runs_ = 1 + static_cast<int>(kTimedSeconds / (seconds + 1e-9));
    }
  }
  // Behind a run that does not count, which brings its data back into the
  // caches, unless those are to be as in a model.
  void Time(const Tensors& tensors, bool in_model, Clock now) {
    if (timings_ == kRounds) return;
    if (!in_model) driver_->invoke(state_, tensors);
    const double seconds = Run(tensors, now);
    int place = timings_++;
    for (; place > 0 && timing_[place - 1] > seconds; --place) {
      timing_[place] = timing_[place - 1];
    }
    timing_[place] = seconds;
  }
  bool timed() const { return timings_ > 0; }
  // Of a run. Whatever else goes on only adds to the time of one thread, so
  // that the least one counts; several meet by luck as well.
  double seconds() const { return timing_[several_ ? timings_ / 2 : 0]; }

  bool live = true;

 private:
  double Run(const Tensors& tensors, Clock now) {
    const FlushDenormals flush;
    const double begin = now();
    for (int i = 0; i < runs_; ++i) driver_->invoke(state_, tensors);
    return (now() - begin) / runs_;
  }

  const Driver* driver_ = nullptr;
  void* state_ = nullptr;
  Problem problem_;  // the state may point to it
  bool several_ = false;
  int runs_ = 1;  // of one timing
  int timings_ = 0;
  double timing_[kRounds] = {};  // ascending
};

}  // namespace

double MonotonicSeconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

Candidates::Candidates(const Problem& problem) {
  int count;
  const Driver* drivers = Drivers(&count);
  for (int i = 0; i < count; ++i) Add(problem, drivers[i], false);
  if (count_ > 0 && problem.threads() > 1) {
    Add(problem, *candidate_[0].choice.driver, true);
  }
  while (count_ > 1 &&
         candidate_[count_ - 1].cycles > kWorthTrying * candidate_[0].cycles) {
    --count_;
  }
}

// Sorted in.
void Candidates::Add(const Problem& problem, const Driver& driver, bool alone) {
  Problem own = problem;
  if (alone) own.pool = nullptr;
  double cycles = driver.cycles(own);
  if (cycles == kUnsupported || count_ == kMost) return;
  if (alone) {
    if (cycles > kHandOffCycles) return;
    // Whatever is predicted: hand-offs are not. Behind its own kind.
    cycles = candidate_[0].cycles * 1.001;
  }
  int place = count_++;
  for (; place > 0 && candidate_[place - 1].cycles > cycles; --place) {
    candidate_[place] = candidate_[place - 1];
  }
  candidate_[place] = {{&driver, alone}, cycles};
}

double Candidates::RoundSeconds(const Problem& problem) const {
  const ConvGeometry sample = Sample(problem, candidate_[0].cycles);
  const ConvGeometry& g = problem.geometry;
  const double share = double(sample.batch) * sample.out_h * sample.out_w /
                       Max(1, g.batch * problem.pixels());
  double seconds = 0;
  for (int i = 0; i < count_; ++i) {
    const double run = share * candidate_[i].cycles * kSecondsPerCycle;
    seconds += run < kTimedSeconds ? kTimedSeconds : run;
  }
  return seconds;
}

ConvGeometry Sample(const Problem& problem, double cycles) {
  ConvGeometry g = problem.geometry;
  const int threads = problem.threads();
  const auto shrink = [&](int size, int64_t least) {
    if (cycles <= kSampleCycles) return size;
    const double wanted = size * (kSampleCycles / cycles) + 1;
    const int taken =
        static_cast<int>(Min(size, Max(least, static_cast<int64_t>(wanted))));
    cycles *= double(taken) / size;
    return taken;
  };
  // What `size` outputs reach of the input.
  const auto reach = [](int64_t size, int stride, int kernel, int dilation,
                        int pad, int most) {
    const int64_t end =
        (size - 1) * stride + int64_t{kernel - 1} * dilation + 1 - pad;
    return static_cast<int>(Max(1, Min(most, end)));
  };
  g.batch = shrink(g.batch, 1);
  const int rows = shrink(g.out_h, kSampleRows * threads);
  if (rows < g.out_h) {
    g.out_h = rows;
    g.in_h =
        reach(rows, g.stride_h, g.kernel_h, g.dilation_h, g.pad_top, g.in_h);
  }
  const int columns =
      g.out_h == 1 ? shrink(g.out_w, kSampleColumns * threads) : g.out_w;
  if (columns < g.out_w) {
    g.out_w = columns;
    g.in_w = reach(columns, g.stride_w, g.kernel_w, g.dilation_w, g.pad_left,
                   g.in_w);
  }
  return g;
}

namespace {

// All candidates of a layer.
class Trials {
 public:
  // False when one of them cannot be prepared in time.
  bool Prepare(const Problem& problem, const Candidates& candidates,
               const Meanwhile& meanwhile, double deadline, Clock now) {
    const ConvGeometry& g = problem.geometry;
    const uint64_t out = uint64_t(g.batch) * g.out_h * g.out_w * problem.rows();
    inputs_ = uint64_t(g.batch) * g.in_h * g.in_w * g.in_c;
    meanwhile_ = meanwhile;
    pool_ = problem.pool;
    // One behind the other, as in TFLite's arena: where tensors lie to each
    // other decides which cache lines they share.
    const uint64_t in_place = DivideUp(inputs_, 16) * 16;
    const uint64_t out_place = DivideUp(out, 16) * 16;
    const uint64_t floats = in_place + out_place * (problem.residual ? 2 : 1);
    if (floats > kMostFloats || !arena_.Allocate(floats) ||
        !other_.Allocate(meanwhile.read)) {
      return false;
    }
    float* output = arena_.get() + in_place;
    // Time does not depend on values.
    tensors_ = {arena_.get(), nullptr,
                problem.residual ? output + out_place : nullptr, output};
    count_ = live_ = candidates.count();
    for (int i = 0; i < count_; ++i) {
      if (now() >= deadline ||
          !trial_[i].Prepare(problem, candidates[i].choice, &workspace_)) {
        return false;
      }
    }
    return true;
  }

  // Until the best one is clear, or the deadline.
  void Run(double deadline, Clock now) {
    for (int round = 0; round <= kRounds && live_ > 1; ++round) {
      for (int i = 0; i < count_; ++i) {
        if (!trial_[i].live) continue;
        if (now() >= deadline) return;
        RunOthers();
        // Pages come into memory.
        if (round == 0) {
          trial_[i].WarmUp(tensors_, in_model(), now);
        } else {
          trial_[i].Time(tensors_, in_model(), now);
        }
      }
      if (round >= kRoughRounds) Drop(round < kFineRounds ? kRough : kFine);
    }
  }

  // Whether all were timed.
  bool decided() const {
    for (int i = 0; i < count_; ++i) {
      if (!trial_[i].timed()) return false;
    }
    return true;
  }
  // The predicted one, unless another is clearly faster.
  int best() const {
    const double clear = pool_ == nullptr || pool_->threads() == 1
                             ? kClear
                             : kClearOnSeveralThreads;
    int best = 0;
    for (int i = 1; i < count_; ++i) {
      if (seconds(i) < (best == 0 ? clear : 1) * seconds(best)) best = i;
    }
    return best;
  }
  double seconds(int i) const { return trial_[i].seconds(); }

 private:
  static constexpr int kMost = Candidates::kMost;

  bool in_model() const {
    return meanwhile_.read > 0 || meanwhile_.flush_bytes > 0;
  }
  // What the caches see of other layers: their weights, and at last the one
  // before, which writes the input.
  void RunOthers() {
    if (!in_model()) return;
    const auto read = [](void* self, int, int) {
      static_cast<Trials*>(self)->ReadOthers();
    };
    if (pool_ != nullptr) {
      pool_->Run(pool_->threads(), read, this);
    } else {
      read(this, 0, 0);
    }
    FlushFromCaches(meanwhile_.flush, meanwhile_.flush_bytes);
    memset(arena_.get(), 0, inputs_ * sizeof(float));
  }
  void ReadOthers() {
    const volatile char* other = other_.get();
    for (uint64_t i = 0; i < meanwhile_.read; i += kCacheLine) (void)other[i];
  }

  // Those that are slower than the best one by this factor.
  void Drop(double factor) {
    const double limit = factor * seconds(best());
    for (int i = 0; i < count_; ++i) {
      if (!trial_[i].live || seconds(i) <= limit) continue;
      trial_[i].live = false;
      --live_;
    }
  }

  Workspace workspace_;
  Buffer<float> arena_;
  Buffer<char> other_;
  uint64_t inputs_ = 0;
  Meanwhile meanwhile_;
  ThreadPool* pool_ = nullptr;
  Tensors tensors_ = {};
  Trial trial_[kMost];
  int count_ = 0, live_ = 0;
};

}  // namespace

Measured Measure(const Problem& problem, const Candidates& candidates,
                 const Meanwhile& meanwhile, double deadline, Clock now) {
  Measured measured;
  measured.choice = candidates[0].choice;
  Problem sample = problem;
  sample.geometry = Sample(problem, candidates[0].cycles);
  Trials trials;
  if (!trials.Prepare(sample, candidates, meanwhile, deadline, now)) {
    return measured;
  }
  trials.Run(deadline, now);
  if (!trials.decided()) return measured;
  const int best = trials.best();
  measured.decided = true;
  measured.choice = candidates[best].choice;
  measured.gain = trials.seconds(0) / trials.seconds(best);
  return measured;
}

}  // namespace tfrewprune
