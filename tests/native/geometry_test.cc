// SPDX-License-Identifier: Apache-2.0
//
// Random geometries of the kinds that real networks use, by every driver and
// instruction set: all results are those of dense loops, and none of these
// layers is left to the reference driver.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "every_driver.h"
#include "random_irregular.h"
#include "random_layer.h"

namespace tfrewprune {
namespace {

constexpr int kGeometriesPerKind = 12;

class Random {
 public:
  explicit Random(uint32_t seed) : random_(seed) {}
  int Between(int low, int high) {
    return low + static_cast<int>(random_() % (high - low + 1));
  }
  int Of(std::initializer_list<int> values) {
    return *(values.begin() + random_() % values.size());
  }
  bool Coin() { return random_() % 2 == 0; }
  uint32_t Seed() { return static_cast<uint32_t>(random_()); }

 private:
  std::mt19937 random_;
};

// Batch, height, width, channels, kernel, stride and dilation; the padding is
// resolved afterwards.
ConvGeometry Make(int batch, int h, int w, int c, int kernel_h, int kernel_w,
                  int stride = 1, int dilation_h = 1, int dilation_w = 1) {
  return {batch,    h,      w,      c,          0,          0, kernel_h,
          kernel_w, stride, stride, dilation_h, dilation_w, 0, 0};
}

struct Kind {
  const char* name;
  std::function<ConvGeometry(Random*)> make;
  int same;  // 1 SAME, 0 VALID, -1 either
};

const Kind kKinds[] = {
    {"atrous pyramid (DeepLab)",
     [](Random* r) {
       const int rate = r->Of({2, 6, 12, 18, 24, 36});
       return Make(1, r->Between(9, 33), r->Between(9, 33), r->Between(4, 24),
                   3, 3, 1, rate, rate);
     },
     1},
    {"temporal convolution (TCN, WaveNet)",
     [](Random* r) {
       const int t = r->Between(16, 700);
       return Make(1, 1, t, r->Between(4, 40), 1, r->Between(2, 5), 1, 1,
                   1 << r->Between(0, 9));
     },
     1},
    {"temporal convolution, time first",
     [](Random* r) {
       return Make(r->Between(1, 2), r->Between(16, 200), 1, r->Between(4, 40),
                   r->Between(2, 5), 1, 1, 1 << r->Between(0, 6), 1);
     },
     1},
    {"1x1 image (squeeze and excite)",
     [](Random* r) {
       return Make(r->Of({1, 2, 3, 8, 32}), 1, 1, r->Between(8, 300), 1, 1);
     },
     -1},
    {"1x1 image under a wide kernel",
     [](Random* r) {
       return Make(r->Between(1, 3), 1, 1, r->Between(8, 64), 3, 3, 1,
                   r->Between(1, 3), 1);
     },
     1},
    {"classifier as a convolution (VGG, MobileNet v3)",
     [](Random* r) {
       const int size = r->Between(2, 7);
       return Make(r->Between(1, 3), size, size, r->Between(8, 48), size, size);
     },
     0},
    {"pointwise, odd channels (MobileNet v2)",
     [](Random* r) {
       return Make(r->Between(1, 4), r->Between(1, 20), r->Between(1, 20),
                   2 * r->Between(4, 100) - 1, 1, 1, r->Between(1, 2));
     },
     -1},
    {"1xN and Nx1 (Inception, ENet)",
     [](Random* r) {
       const int n = r->Of({3, 5, 7});
       const bool tall = r->Coin();
       return Make(r->Between(1, 2), r->Between(5, 20), r->Between(5, 20),
                   r->Between(4, 48), tall ? n : 1, tall ? 1 : n);
     },
     -1},
    {"patches (ViT, MLP-Mixer)",
     [](Random* r) {
       const int patch = r->Of({2, 4, 8, 16});
       return Make(1, patch * r->Between(1, 5), patch * r->Between(1, 5),
                   r->Between(1, 4), patch, patch, patch);
     },
     0},
    {"stride above the kernel (projections of ResNet, RegNet)",
     [](Random* r) {
       const int kernel = r->Between(1, 2);
       return Make(r->Between(1, 2), r->Between(3, 30), r->Between(3, 30),
                   r->Between(4, 64), kernel, kernel,
                   kernel + r->Between(1, 3));
     },
     -1},
    {"3x3 (ResNet)",
     [](Random* r) {
       return Make(r->Between(1, 4), r->Between(3, 30), r->Between(3, 30),
                   r->Between(3, 40), 3, 3, r->Between(1, 2));
     },
     -1},
    {"spectrograms (keyword spotting)",
     [](Random* r) {
       return Make(1, r->Between(20, 60), r->Between(8, 12), r->Between(1, 8),
                   r->Of({8, 10, 20}), r->Between(2, 8), r->Between(1, 2));
     },
     -1},
    {"large kernels (ConvNeXt, stems)",
     [](Random* r) {
       const int kernel = r->Of({7, 9, 13});
       return Make(1, r->Between(7, 24), r->Between(7, 24), r->Between(1, 6),
                   kernel, kernel, r->Between(1, 2), 1, 1);
     },
     1},
};

// What both kinds of weights have in common.
LayerRun MakeRun(const ConvGeometry& g, Random* random,
                 const std::vector<float>& dense, uint32_t rows,
                 std::vector<float> input, const std::vector<float>& bias,
                 std::vector<float> residual) {
  LayerRun run;
  run.geometry = g;
  run.activation = random->Coin() ? Activation::kNone : Activation::kRelu6;
  run.bias = bias.data();
  run.threads = random->Between(1, 3);
  run.input = std::move(input);
  for (float& value : run.input) value *= 0.25f;  // outputs of about 1
  run.expected =
      DenseConv2D(dense, rows, g, Activation::kNone, run.input, run.bias);
  if (random->Between(0, 2) == 0) {
    run.residual = std::move(residual);
    for (size_t i = 0; i < run.expected.size(); ++i) {
      run.expected[i] += run.residual[i];
    }
  }
  return run;
}

template <class Weights>
void ExpectADriver(const Weights& weights, const ConvGeometry& g) {
  for (Isa isa : SupportedIsas()) {
    if (isa == Isa::kReference) continue;
    PackedOperator packed;
    packed.SetWeights(weights);
    Resources resources;
    resources.kernels = SelectKernels(isa);
    ASSERT_EQ(packed.PrepareConv2D(g, Activation::kNone, resources), nullptr);
    EXPECT_NE(packed.driver(), ReferenceDriver()) << IsaName(isa);
  }
}

class GeometryTest : public testing::TestWithParam<int> {
 protected:
  // A geometry of the kind with an output.
  ConvGeometry Pick(Random* random) const {
    const Kind& kind = kKinds[GetParam()];
    for (;;) {
      ConvGeometry g = kind.make(random);
      ResolvePadding(kind.same < 0 ? random->Coin() : kind.same == 1, &g);
      if (g.out_h > 0 && g.out_w > 0) return g;
    }
  }
  // Few enough that dense loops take no time.
  static uint32_t Rows(const ConvGeometry& g, int most) {
    const int64_t row =
        int64_t{g.batch} * g.out_h * g.out_w * g.kernel_h * g.kernel_w * g.in_c;
    return static_cast<uint32_t>(std::clamp<int64_t>(1500000 / row, 5, most));
  }
};

TEST_P(GeometryTest, BandedWeights) {
  SCOPED_TRACE(kKinds[GetParam()].name);
  Random random(1000 + GetParam());
  for (int i = 0; i < kGeometriesPerKind; ++i) {
    const ConvGeometry g = Pick(&random);
    RandomLayerOptions options;
    options.columns = g.kernel_h * g.kernel_w * g.in_c;
    options.rows = Rows(g, random.Between(5, 80));
    options.band_rows = random.Of({4, 8, 16, 32});
    options.kept = std::max<int>(1, options.columns / random.Of({2, 4, 8, 16}));
    options.scattered = random.Between(0, 3) == 0;
    options.seed = random.Seed();
    RandomLayer layer(options);
    const std::vector<float> bias = layer.Values(options.rows);
    const size_t outputs = size_t(g.batch) * g.out_h * g.out_w * options.rows;
    const LayerRun run =
        MakeRun(g, &random, layer.dense, options.rows,
                layer.Values(size_t(g.batch) * g.in_h * g.in_w * g.in_c), bias,
                layer.Values(outputs));
    EXPECT_GE(CheckEveryDriver(layer.view, run, 2e-5f), 2);
    ExpectADriver(layer.view, g);
  }
}

TEST_P(GeometryTest, IrregularWeights) {
  SCOPED_TRACE(kKinds[GetParam()].name);
  Random random(2000 + GetParam());
  for (int i = 0; i < kGeometriesPerKind; ++i) {
    const ConvGeometry g = Pick(&random);
    RandomIrregularOptions options;
    options.channels = g.in_c;
    options.taps = g.kernel_h * g.kernel_w;
    options.rows = Rows(g, random.Between(5, 80));
    options.chunk_channels = random.Between(1, std::min(g.in_c, 64));
    options.keep = 1.0 / random.Of({2, 4, 8, 16});
    options.patterns = random.Coin();
    options.idle_rows = random.Of({0, 0, 5});
    options.seed = random.Seed();
    RandomIrregular layer(options);
    const std::vector<float> bias = layer.Values(options.rows);
    const size_t outputs = size_t(g.batch) * g.out_h * g.out_w * options.rows;
    const LayerRun run =
        MakeRun(g, &random, layer.dense, options.rows,
                layer.Values(size_t(g.batch) * g.in_h * g.in_w * g.in_c), bias,
                layer.Values(outputs));
    EXPECT_GE(CheckEveryDriver(layer.view, run, 2e-5f), 2);
    ExpectADriver(layer.view, g);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, GeometryTest,
                         testing::Range(0, int(std::size(kKinds))));

}  // namespace
}  // namespace tfrewprune
