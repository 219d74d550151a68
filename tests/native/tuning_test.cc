// SPDX-License-Identifier: Apache-2.0
//
// Measured choices: what is tried, for how long, and that results do not
// depend on it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "every_driver.h"
#include "operators/tuner.h"
#include "random_irregular.h"
#include "random_layer.h"

namespace tfrewprune {
namespace {

// A clock that every look at makes later by so many seconds.
double fake_now, fake_step;
double FakeNow() { return fake_now += fake_step; }

struct DestroyTuner {
  void operator()(Tuner* tuner) const { Tuner::Destroy(tuner); }
};
using TunerHandle = std::unique_ptr<Tuner, DestroyTuner>;

TunerHandle MakeTuner(double budget, Clock now = MonotonicSeconds,
                      const char* path = nullptr) {
  TunerOptions options;
  options.budget = budget;
  options.now = now;
  options.cache_path = path;
  return TunerHandle(Tuner::Create(options));
}

// A layer so small that on two threads it is tried without the pool, too: there
// are two candidates on any CPU.
RandomLayer SomeLayer(uint32_t seed = 1, int kept = 10) {
  RandomLayerOptions options;
  options.rows = 32;
  options.columns = 48;
  options.kept = kept;
  options.seed = seed;
  return RandomLayer(options);
}

struct DestroyPool {
  void operator()(ThreadPool* pool) const { ThreadPool::Destroy(pool); }
};
using PoolHandle = std::unique_ptr<ThreadPool, DestroyPool>;
PoolHandle TwoThreads() { return PoolHandle(ThreadPool::Create(2)); }

Problem ProblemOf(const BandedView& view, int pixels,
                  ThreadPool* pool = nullptr, Workspace* workspace = nullptr) {
  Problem problem;
  problem.bands = &view;
  problem.geometry = RowOfPixels(pixels, view.columns);
  problem.kernels = SelectKernels(BestIsa());
  problem.pool = pool;
  problem.workspace = workspace;
  return problem;
}

TEST(CandidatesTest, ThePredictedOneFirstAndNoneTwiceAsSlow) {
  const RandomLayer layer = SomeLayer();
  for (int pixels : {1, 2, 3, 5, 8, 20, 200}) {
    const Problem problem = ProblemOf(layer.view, pixels);
    const Candidates candidates(problem);
    ASSERT_GE(candidates.count(), 1);
    EXPECT_EQ(candidates[0].choice.driver, ChooseDriver(problem, nullptr));
    for (int i = 0; i < candidates.count(); ++i) {
      const Candidate& c = candidates[i];
      EXPECT_EQ(c.cycles, c.choice.driver->cycles(problem));
      EXPECT_LE(c.cycles, 2 * candidates[0].cycles);
      EXPECT_FALSE(c.choice.alone);
      EXPECT_GE(c.cycles, candidates[i > 0 ? i - 1 : 0].cycles);
    }
    if (candidates.count() > 1) {
      EXPECT_NE(candidates[1].choice.driver, ReferenceDriver());
    }
  }
}

TEST(CandidatesTest, SmallLayersAreAlsoTriedWithoutThePool) {
  const PoolHandle pool = TwoThreads();
  const RandomLayer layer = SomeLayer();
  for (int pixels : {1, 200000}) {
    const Candidates candidates(ProblemOf(layer.view, pixels, pool.get()));
    int alone = 0;
    for (int i = 0; i < candidates.count(); ++i) {
      alone += candidates[i].choice.alone;
    }
    EXPECT_EQ(alone, pixels == 1 ? 1 : 0);
  }
}

TEST(SampleTest, PartOfTheSameLayer) {
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    ConvGeometry g = {};
    const auto up_to = [&](int most) { return 1 + int(random() % most); };
    g.batch = up_to(i % 2 == 0 ? 1 : 40);
    g.in_h = up_to(i % 3 == 0 ? 1 : 300);
    g.in_w = up_to(i % 5 == 0 ? 20000 : 300);
    g.in_c = 3;
    g.kernel_h = up_to(5);
    g.kernel_w = up_to(5);
    g.stride_h = up_to(4);
    g.stride_w = up_to(4);
    g.dilation_h = up_to(9);
    g.dilation_w = up_to(9);
    ResolvePadding(random() % 2 == 0, &g);
    if (g.out_h == 0 || g.out_w == 0) continue;
    RandomLayerOptions options;
    options.rows = 16;
    options.columns = static_cast<uint32_t>(g.kernel_h * g.kernel_w * 3);
    const RandomLayer layer(options);
    Problem problem = ProblemOf(layer.view, 1);
    problem.geometry = g;
    const double cycles = std::pow(10.0, random() % 10);
    const ConvGeometry part = Sample(problem, cycles);
    problem.geometry = part;
    ASSERT_EQ(CheckProblem(problem), nullptr);
    ASSERT_LE(part.batch, g.batch);
    ASSERT_LE(part.out_h, g.out_h);
    ASSERT_LE(part.out_w, g.out_w);
    ASSERT_LE(part.in_h, g.in_h);
    ASSERT_LE(part.in_w, g.in_w);
    if (cycles <= 1e5) {
      ASSERT_EQ(memcmp(&part, &g, sizeof(g)), 0);
    }
    // All that an output reads is as it was, or was outside of the image.
    if (part.out_h < g.out_h && part.in_h < g.in_h) {
      const int reach = (part.out_h - 1) * g.stride_h - g.pad_top +
                        (g.kernel_h - 1) * g.dilation_h + 1;
      ASSERT_EQ(part.in_h, std::max(1, reach));
    }
    if (g.batch == 1 && g.out_h <= 8 && g.out_h > 1) {
      ASSERT_EQ(memcmp(&part, &g, sizeof(g)), 0) << "no smaller sample tells";
    }
  }
}

// Every driver that may be chosen computes the same: those of a tuned layer,
// by all instruction sets, on one thread and on several.
TEST(TunerTest, TunedOutputIsThatOfDenseLoops) {
  const int kPixels[] = {1, 3, 6, 30};
  for (int threads : {1, 2}) {
    ThreadPool* pool = ThreadPool::Create(threads);
    for (Isa isa : SupportedIsas()) {
      TunerHandle tuner = MakeTuner(5);
      for (uint32_t seed = 1; seed <= 3; ++seed) {
        RandomLayer layer = SomeLayer(seed, seed == 3 ? 0 : -1);
        const std::vector<float> bias = layer.Values(32);
        for (int pixels : kPixels) {
          const std::vector<float> input = layer.Values(pixels * 48);
          PackedOperator packed;
          packed.SetWeights(layer.view);
          Resources resources;
          resources.kernels = SelectKernels(isa);
          resources.pool = pool;
          resources.tuner = tuner.get();
          ASSERT_EQ(packed.PrepareFullyConnected(pixels, Activation::kRelu,
                                                 resources),
                    nullptr);
          std::vector<float> output(pixels * 32, NAN);
          packed.Invoke({input.data(), bias.data(), nullptr, output.data()});
          const std::vector<float> expected =
              DenseConv2D(layer.dense, 32, RowOfPixels(pixels, 48),
                          Activation::kNone, input, bias.data());
          ExpectOutput(expected, Activation::kRelu, Tolerance(48), output);
        }
      }
    }
    ThreadPool::Destroy(pool);
  }
}

TEST(TunerTest, IrregularAndResidualLayersAreTuned) {
  RandomIrregular layer({});
  ConvGeometry g = {1, 6, 7, 16, 0, 0, 3, 3, 1, 1, 1, 1, 0, 0};
  ResolvePadding(true, &g);
  const std::vector<float> input(6 * 7 * 16, 0.25f), residual(6 * 7 * 24, 2);
  std::vector<float> expected =
      DenseConv2D(layer.dense, 24, g, Activation::kNone, input, nullptr);
  for (float& v : expected) v += 2;
  TunerHandle tuner = MakeTuner(5);
  PackedOperator packed;
  packed.SetWeights(layer.view);
  Resources resources;
  resources.kernels = SelectKernels(BestIsa());
  resources.tuner = tuner.get();
  ASSERT_EQ(packed.PrepareConv2D(g, Activation::kRelu6, resources, true),
            nullptr);
  std::vector<float> output(expected.size(), NAN);
  packed.Invoke({input.data(), nullptr, residual.data(), output.data()});
  ExpectOutput(expected, Activation::kRelu6, Tolerance(144), output);
}

// Layers that a tuner had to measure, and the seconds it took on its clock.
struct Spent {
  int measured;
  double seconds;
};

Spent TuneMany(double budget, double step, bool announced) {
  fake_now = 0;
  fake_step = step;
  const PoolHandle pool = TwoThreads();
  TunerHandle tuner = MakeTuner(budget, FakeNow);
  std::vector<RandomLayer> layers;
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    layers.push_back(SomeLayer(seed, 2 * static_cast<int>(seed)));
  }
  std::vector<Tuner::Claim> claims(layers.size());
  for (size_t i = 0; announced && i < layers.size(); ++i) {
    tuner->Announce(ProblemOf(layers[i].view, 5, pool.get()), {i, nullptr, 100},
                    &claims[i]);
  }
  int measured = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    const Problem problem = ProblemOf(layers[i].view, 5, pool.get());
    const Tuner::Chosen chosen =
        tuner->Choose(problem, {i, nullptr, 100}, &claims[i]);
    EXPECT_NE(chosen.choice.driver, nullptr);
    EXPECT_EQ(claims[i].round, 0);
    measured += chosen.origin == Origin::kMeasured;
  }
  return {measured, tuner->spent()};
}

TEST(TunerTest, TheBudgetIsKept) {
  for (bool announced : {false, true}) {
    const Spent ample = TuneMany(100, 1e-5, announced);
    EXPECT_EQ(ample.measured, 12);
    for (double budget : {0.1e-3, 1e-3, 5e-3}) {
      // The last look at the clock may come at the very end; two follow.
      EXPECT_LE(TuneMany(budget, 1e-5, announced).seconds, budget + 5e-5);
    }
    EXPECT_EQ(TuneMany(0.1e-3, 1e-5, announced).measured, 0);
  }
  // Shared, it is enough for all; else those that come first take it.
  EXPECT_EQ(TuneMany(5e-3, 1e-5, true).measured, 12);
  EXPECT_LT(TuneMany(5e-3, 1e-5, false).measured, 12);
  EXPECT_GT(TuneMany(5e-3, 1e-5, false).measured, 0);
  // A clock so slow that not one run fits.
  EXPECT_EQ(TuneMany(0.05, 1, true).measured, 0);
}

TEST(TunerTest, EveryLayerOnceAndThoseLikeItToo) {
  const PoolHandle pool = TwoThreads();
  TunerHandle tuner = MakeTuner(5);
  const RandomLayer one = SomeLayer(1), alike = SomeLayer(2);
  const Problem problem = ProblemOf(one.view, 5, pool.get());
  Tuner::Claim claim;
  EXPECT_EQ(tuner->Choose(problem, {1, nullptr, 100}, &claim).origin,
            Origin::kMeasured);
  const double spent = tuner->spent();
  EXPECT_GT(spent, 0);
  EXPECT_EQ(tuner->Choose(problem, {1, nullptr, 100}, &claim).origin,
            Origin::kRemembered);
  const Problem like_it = ProblemOf(alike.view, 5, pool.get());
  EXPECT_EQ(tuner->Choose(like_it, {2, nullptr, 100}, &claim).origin,
            Origin::kAlike);
  EXPECT_EQ(tuner->Choose(like_it, {2, nullptr, 100}, &claim).origin,
            Origin::kRemembered);
  EXPECT_EQ(tuner->spent(), spent);
  // Another number of pixels is another layer.
  EXPECT_EQ(tuner
                ->Choose(ProblemOf(one.view, 6, pool.get()), {1, nullptr, 100},
                         &claim)
                .origin,
            Origin::kMeasured);
}

TEST(TunerTest, TheFileRemembersForTheNextOne) {
  char path[] = "/tmp/tfrewprune-tuner-XXXXXX";
  ASSERT_GE(mkstemp(path), 0);
  const PoolHandle pool = TwoThreads();
  const RandomLayer layer = SomeLayer();
  const Problem problem = ProblemOf(layer.view, 5, pool.get());
  Tuner::Claim claim;
  TunerHandle first = MakeTuner(5, MonotonicSeconds, path);
  const Choice choice =
      first->Choose(problem, {7, nullptr, 100}, &claim).choice;
  EXPECT_EQ(first->TakeWriteError(), nullptr);
  // Written when all is chosen, not at the end.
  TunerHandle second = MakeTuner(5, MonotonicSeconds, path);
  const Tuner::Chosen chosen =
      second->Choose(problem, {7, nullptr, 100}, &claim);
  EXPECT_EQ(chosen.origin, Origin::kRemembered);
  EXPECT_EQ(chosen.choice.driver, choice.driver);
  EXPECT_EQ(second->spent(), 0);
  EXPECT_EQ(second->Choose(problem, {8, nullptr, 100}, &claim).origin,
            Origin::kMeasured)
      << "other weights";
  remove(path);
  TunerHandle lost = MakeTuner(5, MonotonicSeconds, "/no/such/folder/cache");
  lost->Choose(problem, {7, nullptr, 100}, &claim);
  EXPECT_NE(lost->TakeWriteError(), nullptr);
  EXPECT_EQ(lost->TakeWriteError(), nullptr) << "told once";
}

TEST(TunerTest, GivesAllItsMemoryBack) {
  const PoolHandle pool = TwoThreads();
  Workspace workspace;
  const RandomLayer layer = SomeLayer();
  const Problem problem = ProblemOf(layer.view, 5, pool.get(), &workspace);
  const uint64_t before = held_bytes;
  const Measured measured =
      Measure(problem, Candidates(problem), {1 << 20, &layer, sizeof(layer)},
              MonotonicSeconds() + 1, MonotonicSeconds);
  EXPECT_TRUE(measured.decided);
  EXPECT_EQ(held_bytes, before);
  EXPECT_EQ(workspace.count(), 0u) << "scratch of its own";
}

// One delegate, several interpreters: they share tuner and pool.
TEST(TunerTest, ManyThreadsMayChooseAtOnce) {
  const PoolHandle pool = TwoThreads();
  TunerHandle tuner = MakeTuner(0.05);
  const RandomLayer layer = SomeLayer();
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int pixels = 1; pixels < 12; ++pixels) {
        PackedOperator packed;
        packed.SetWeights(layer.view);
        Resources resources;
        resources.kernels = SelectKernels(BestIsa());
        resources.pool = pool.get();
        resources.tuner = tuner.get();
        packed.Announce(RowOfPixels(pixels, 48), resources);
        ASSERT_EQ(
            packed.PrepareFullyConnected(pixels, Activation::kNone, resources),
            nullptr);
        const std::vector<float> input(pixels * 48, 0.0f);
        std::vector<float> output(pixels * 32, 1.0f);
        packed.Invoke({input.data(), nullptr, nullptr, output.data()});
        EXPECT_EQ(output, std::vector<float>(pixels * 32, 0.0f));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace tfrewprune
