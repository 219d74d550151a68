// SPDX-License-Identifier: Apache-2.0
//
// Guards against slow regressions: the share of the FMA peak that whole layers
// reach. Both sides run alternately on this thread's own clock and the best of
// many short runs counts, so that a busy machine does not matter. The bounds
// leave a third of what was measured when they were set.
#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "kernels/select.h"
#include "operators/packed_operator.h"
#include "random_layer.h"

extern "C" double tfrewprune_fma_peak(const char* isa, double seconds);

namespace tfrewprune {
namespace {

double Now() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// FLOP per second of `run` over the FMA peak.
template <class Function>
double ShareOfPeak(Isa isa, double flops, Function run) {
  double best = 1e30, peak = 0;
  run();
  for (int round = 0; round < 12; ++round) {
    peak = std::max(peak, tfrewprune_fma_peak(IsaName(isa), 0.005));
    for (int i = 0; i < 10; ++i) {
      const double begin = Now();
      run();
      best = std::min(best, Now() - begin);
    }
  }
  return flops / best / peak;
}

double ConvShare(Isa isa, int size, int channels, int outputs, int kernel,
                 int rate, int height) {
  ConvGeometry g = {1,      size, size, channels, 0, 0, kernel,
                    kernel, 1,    1,    1,        1, 0, 0};
  ResolvePadding(true, &g);
  RandomLayerOptions options;
  options.rows = outputs;
  options.columns = kernel * kernel * channels;
  options.band_rows = height;
  options.kept = options.columns / rate;
  RandomLayer layer(options);
  const std::vector<float> x = layer.Values(size_t(size) * size * channels);
  std::vector<float> y(size_t(size) * size * outputs);
  PackedOperator packed;
  packed.SetWeights(layer.view);
  Resources resources;
  resources.kernels = SelectKernels(isa);
  EXPECT_EQ(packed.PrepareConv2D(g, Activation::kRelu, resources), nullptr);
  return ShareOfPeak(
      isa, 2.0 * size * size * layer.view.column_count * height,
      [&] { packed.Invoke({x.data(), nullptr, nullptr, y.data()}); });
}

struct Bound {
  const char* name;
  int size, channels, outputs, kernel, rate, height;
  double avx512, avx2;
};
constexpr Bound kBounds[] = {
    {"3x3 at 4x", 28, 128, 128, 3, 4, 16, 0.62, 0.58},
    {"3x3 at 16x", 14, 256, 256, 3, 16, 16, 0.60, 0.45},
    {"1x1 at 4x", 14, 256, 256, 1, 4, 16, 0.45, 0.40},
    {"bands of 8", 28, 128, 128, 3, 8, 8, 0.45, 0.45},
    {"bands of 4", 28, 128, 128, 3, 8, 4, 0.40, 0.22},
    {"bands of 32", 28, 128, 128, 3, 8, 32, 0.55, 0.50},
};

TEST(SpeedTest, LayersReachTheirShareOfTheFmaPeak) {
  int measured = 0;
  for (Isa isa : {Isa::kAvx512, Isa::kAvx2}) {
    if (!IsaSupported(isa)) continue;
    ++measured;
    for (const Bound& b : kBounds) {
      const double share = ConvShare(isa, b.size, b.channels, b.outputs,
                                     b.kernel, b.rate, b.height);
      const double bound = isa == Isa::kAvx512 ? b.avx512 : b.avx2;
      std::printf("%s %s: %.2f of the FMA peak, at least %.2f\n", IsaName(isa),
                  b.name, share, bound);
      EXPECT_GE(share, bound) << IsaName(isa) << " " << b.name;
    }
  }
  if (measured == 0) GTEST_SKIP() << "bounds exist for AVX2 and AVX-512 only";
}

// Seconds of the faster of many runs on each of two inputs, taken in turns.
template <class Function>
std::pair<double, double> BestInTurns(const std::vector<float>& a,
                                      const std::vector<float>& b,
                                      Function run) {
  double best[2] = {1e30, 1e30};
  for (int i = 0; i < 400; ++i) {
    const double begin = Now();
    run(i % 2 == 0 ? a : b);
    best[i % 2] = std::min(best[i % 2], Now() - begin);
  }
  return {best[0], best[1]};
}

// Without the flush the second takes 20 times as long.
TEST(SpeedTest, DenormalsTakeNoMoreTimeThanOtherNumbers) {
  for (Isa isa : SupportedIsas()) {
    if (isa == Isa::kReference) continue;
    RandomLayerOptions options;
    options.rows = 64;
    options.columns = 9 * 32;
    options.kept = 60;
    RandomLayer layer(options);
    float* weight = const_cast<float*>(layer.view.value.floats());
    for (uint64_t i = 0; i < layer.view.column_count * 16; i += 20) {
      weight[i] = 1e-40f;
    }
    const std::vector<float> x = layer.Values(28 * 28 * 32);
    const std::vector<float> tiny(x.size(), 1e-40f);
    std::vector<float> y(28 * 28 * 64);
    ConvGeometry g = {1, 28, 28, 32, 0, 0, 3, 3, 1, 1, 1, 1, 0, 0};
    ResolvePadding(true, &g);
    PackedOperator packed;
    packed.SetWeights(layer.view);
    Resources resources;
    resources.kernels = SelectKernels(isa);
    ASSERT_EQ(packed.PrepareConv2D(g, Activation::kNone, resources), nullptr);
    const auto [normal, denormal] =
        BestInTurns(x, tiny, [&](const std::vector<float>& input) {
          packed.Invoke({input.data(), nullptr, nullptr, y.data()});
        });
    EXPECT_LT(denormal, 1.1 * normal) << IsaName(isa);
  }
}

}  // namespace
}  // namespace tfrewprune
