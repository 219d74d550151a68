// SPDX-License-Identifier: Apache-2.0
#include "isa/denormals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfenv>

#include "kernels/select.h"
#include "operators/packed_operator.h"
#include "random_irregular.h"
#include "random_layer.h"

namespace tfrewprune {
namespace {

constexpr float kDenormal = 1e-40f;

// The mode without the flags that arithmetic raises in MXCSR and FPSCR.
uint64_t ControlBits() { return FloatingPointMode() & ~uint64_t{0xbf}; }

ConvGeometry Same3x3(int batch, int size, int channels) {
  ConvGeometry g = {batch, size, size, channels, 0, 0, 3, 3, 1, 1, 1, 1, 0, 0};
  ResolvePadding(true, &g);
  return g;
}

// Prepares `packed` for a 3x3 convolution and runs it once.
std::vector<float> InvokeOnce(PackedOperator* packed, const ConvGeometry& g,
                              Isa isa, ThreadPool* pool,
                              const std::vector<float>& input) {
  Resources resources;
  resources.kernels = SelectKernels(isa);
  resources.pool = pool;
  EXPECT_EQ(packed->PrepareConv2D(g, Activation::kNone, resources), nullptr);
  std::vector<float> output(size_t(g.batch) * g.out_h * g.out_w *
                            packed->rows());
  packed->Invoke({input.data(), nullptr, nullptr, output.data()});
  return output;
}

TEST(DenormalsTest, TheScopeFlushesAndRestores) {
  if (kFlushBits == 0) GTEST_SKIP() << "no known mode on this architecture";
  volatile float tiny = 1e-20f;
  const uint64_t before = ControlBits();
  EXPECT_NE(tiny * tiny, 0.0f);
  {
    const FlushDenormals flush;
    EXPECT_EQ(tiny * tiny, 0.0f);
    const FlushDenormals again;
    EXPECT_EQ(tiny * tiny, 0.0f);
  }
  EXPECT_EQ(ControlBits(), before);
  EXPECT_NE(tiny * tiny, 0.0f);
}

TEST(DenormalsTest, AnOperatorRestoresTheModeOfItsCaller) {
  RandomLayerOptions options;
  options.columns = 9 * 4;
  RandomLayer layer(options);
  PackedOperator packed;
  packed.SetWeights(layer.view);
  const std::vector<float> input = layer.Values(25 * 4);
  const uint64_t usual = FloatingPointMode();
  for (int rounding : {FE_TONEAREST, FE_UPWARD, FE_TOWARDZERO}) {
    for (uint64_t flush : {uint64_t{0}, kFlushBits}) {
      fesetround(rounding);
      SetFloatingPointMode(FloatingPointMode() | flush);
      const uint64_t before = ControlBits();
      InvokeOnce(&packed, Same3x3(1, 5, 4), BestIsa(), nullptr, input);
      EXPECT_EQ(ControlBits(), before);
      SetFloatingPointMode(usual);
    }
  }
}

// A product below 2^-126 is 0 wherever it is computed: no thread keeps it.
TEST(DenormalsTest, EveryThreadFlushes) {
  if (kFlushBits == 0) GTEST_SKIP() << "no known mode on this architecture";
  RandomLayerOptions options;
  options.columns = 9 * 16;
  options.kept = 40;
  RandomLayer banded(options);
  RandomIrregular irregular({});
  std::fill_n(const_cast<float*>(banded.view.value.floats()),
              banded.view.column_count * banded.view.band_rows, 1e-20f);
  std::fill_n(const_cast<float*>(irregular.view.value.floats()),
              irregular.view.weight_count, 1e-20f);
  const ConvGeometry g = Same3x3(3, 30, 16);
  const std::vector<float> input(3 * 30 * 30 * 16, 1e-20f);
  for (int threads : {1, 2, 4}) {
    ThreadPool* pool = ThreadPool::Create(threads);
    for (Isa isa : SupportedIsas()) {
      for (int irregularly : {0, 1}) {
        PackedOperator packed;
        if (irregularly) {
          packed.SetWeights(irregular.view);
        } else {
          packed.SetWeights(banded.view);
        }
        for (int repeat = 0; repeat < 5; ++repeat) {
          const std::vector<float> output =
              InvokeOnce(&packed, g, isa, pool, input);
          ASSERT_EQ(std::count(output.begin(), output.end(), 0.0f),
                    static_cast<int64_t>(output.size()))
              << IsaName(isa) << ", " << threads << " threads";
        }
      }
    }
    ThreadPool::Destroy(pool);
  }
}

TEST(DenormalsTest, ResultsAreThoseOfADenseLayer) {
  RandomLayerOptions options;
  options.columns = 9 * 16;
  RandomLayer layer(options);
  float* weight = const_cast<float*>(layer.view.value.floats());
  for (uint32_t band = 0; band < layer.view.band_count; ++band) {
    for (uint32_t n = layer.view.band_start[band];
         n < layer.view.band_start[band + 1]; ++n) {
      const uint32_t lane = n % 16;
      const uint32_t row = layer.view.RowId(band * 16 + lane);
      layer.dense[row * options.columns + layer.view.Column(n)] = kDenormal;
      weight[n * 16 + lane] = kDenormal;
    }
  }
  const ConvGeometry g = Same3x3(1, 9, 16);
  std::vector<float> input = layer.Values(9 * 9 * 16);
  for (size_t i = 0; i < input.size(); i += 3) input[i] = -kDenormal;
  const std::vector<float> expected = DenseConv2D(
      layer.dense, options.rows, g, Activation::kNone, input, nullptr);
  PackedOperator packed;
  packed.SetWeights(layer.view);
  for (Isa isa : SupportedIsas()) {
    const std::vector<float> output =
        InvokeOnce(&packed, g, isa, nullptr, input);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(output[i], expected[i], Tolerance(options.columns))
          << IsaName(isa);
    }
  }
}

}  // namespace
}  // namespace tfrewprune
