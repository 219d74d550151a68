// SPDX-License-Identifier: Apache-2.0
//
// Banded convolutions against dense loops, by every driver.
#include <gtest/gtest.h>

#include <cstring>

#include "every_driver.h"
#include "random_layer.h"

namespace tfrewprune {
namespace {

struct Case {
  ConvGeometry geometry;
  Activation activation = Activation::kNone;
  RandomLayerOptions layer;
  bool bias = true;
  int threads = 1;
  bool residual = false;  // a residual is added before the activation
};

void Check(Case c) {
  const ConvGeometry& g = c.geometry;
  c.layer.columns = g.kernel_h * g.kernel_w * g.in_c;
  RandomLayer layer(c.layer);
  SCOPED_TRACE(testing::Message()
               << c.layer.rows << " rows, bands of " << c.layer.band_rows
               << ", kept " << c.layer.kept << ", scattered "
               << c.layer.scattered << ", seed " << c.layer.seed);
  LayerRun run;
  run.geometry = g;
  run.activation = c.activation;
  run.threads = c.threads;
  run.input = layer.Values(size_t(g.batch) * g.in_h * g.in_w * g.in_c);
  const std::vector<float> bias = layer.Values(c.layer.rows);
  if (c.bias) run.bias = bias.data();
  run.expected = DenseConv2D(layer.dense, c.layer.rows, g, Activation::kNone,
                             run.input, run.bias);
  if (c.residual) {
    run.residual = layer.Values(run.expected.size());
    for (size_t i = 0; i < run.expected.size(); ++i) {
      run.expected[i] += run.residual[i];
    }
  }
  CheckEveryDriver(layer.view, run, Tolerance(c.layer.columns));
}

Resources With(const Kernels* kernels, Workspace* workspace = nullptr) {
  Resources resources;
  resources.kernels = kernels;
  resources.workspace = workspace;
  return resources;
}

TEST(BandedLayerTest, EveryWidthOfMapAndBandHeight) {
  for (uint32_t band_rows : {4u, 8u, 16u, 32u}) {
    for (int size : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 16, 28, 31}) {
      Case c;
      c.geometry = SquareGeometry(1, size, 3, 3);
      c.layer.rows = 2 * band_rows;
      c.layer.band_rows = band_rows;
      c.layer.seed = size;
      Check(c);
    }
  }
}

// Enough weights that a run down the last column is worth its transposition.
TEST(BandedLayerTest, OddWidthsOfManyWeights) {
  int seed = 0;
  for (uint32_t band_rows : {8u, 16u, 32u}) {
    for (int size : {5, 7, 9, 17}) {
      for (int stride : {1, 2}) {
        for (int dilation : {1, 2}) {
          for (int kernel : {2, 3, 5}) {
            if (size > 7 && stride * kernel > 6) continue;  // slow
            Case c;
            c.geometry =
                SquareGeometry(1 + seed % 2, size * stride - seed / 2 % 2,
                               8 + seed % 3, kernel, stride, dilation);
            c.layer.rows = 160;
            c.layer.band_rows = band_rows;
            c.layer.kept = kernel * kernel * c.geometry.in_c / 2;
            c.layer.scattered = seed % 5 == 0;
            c.layer.seed = ++seed;
            c.threads = 1 + seed % 2;
            Check(c);
          }
        }
      }
    }
  }
}

TEST(BandedLayerTest, LongPointwiseRows) {
  for (int size : {9, 10, 15}) {
    Case c;
    c.geometry = SquareGeometry(3, size, 5, 1);
    c.layer.rows = 48;
    Check(c);
  }
}

// Output pixels multiples of 512 bytes and more apart, as in most networks.
TEST(BandedLayerTest, ManyOutputRows) {
  for (uint32_t band_rows : {4u, 8u, 16u, 32u}) {
    for (uint32_t rows : {128u, 256u, 512u, 1024u}) {
      Case c;
      c.geometry = SquareGeometry(1, 13, 4, rows > 256 ? 1 : 3);
      c.layer.rows = rows;
      c.layer.band_rows = band_rows;
      c.layer.scattered = rows == 256;
      c.threads = rows == 128 ? 2 : 1;
      Check(c);
    }
  }
}

// Rows whose planes do not fit a cache are worked on in parts.
TEST(BandedLayerTest, RowsLongerThanABlock) {
  for (uint32_t band_rows : {4u, 8u, 16u}) {
    for (int stride : {1, 2}) {
      for (int dilation : {1, 5}) {
        Case c;
        c.geometry = {2, 2,      1000,   48,       0,        0, 3,
                      3, stride, stride, dilation, dilation, 0, 0};
        ResolvePadding(dilation == 1, &c.geometry);
        if (dilation > 1) {  // as many rows as the kernel reaches
          c.geometry.in_h = 2 * dilation + 1;
          ResolvePadding(false, &c.geometry);
        }
        c.layer.rows = 24;
        c.layer.kept = 60;
        c.layer.band_rows = band_rows;
        c.threads = stride + dilation / 5;
        Check(c);
      }
    }
  }
}

TEST(BandedLayerTest, RowsThatAppearNowhereOutputActivatedBias) {
  Case c;
  c.geometry = SquareGeometry(2, 5, 4, 3);
  c.layer.rows = 37;
  c.layer.scattered = true;
  for (Activation a : {Activation::kNone, Activation::kRelu, Activation::kTanh,
                       Activation::kSignBit}) {
    c.activation = a;
    Check(c);
    c.layer.kept = 0;
    Check(c);
    c.layer.kept = -1;
  }
}

// A layer that was pruned away is a payload without bands.
TEST(BandedLayerTest, NoBandsAtAllOutputTheBias) {
  RandomLayer layer({});
  layer.view.band_count = 0;
  layer.view.column_count = 0;
  for (int size : {1, 4, 20}) {
    LayerRun run;
    run.geometry = SquareGeometry(2, size, 4, 3);
    run.input = layer.Values(size_t(2) * size * size * 4);
    const std::vector<float> bias = layer.Values(layer.view.rows);
    run.bias = bias.data();
    for (int i = 0; i < 2 * size * size; ++i) {
      run.expected.insert(run.expected.end(), bias.begin(), bias.end());
    }
    EXPECT_GT(CheckEveryDriver(layer.view, run, 0), 3);
  }
}

TEST(BandedLayerTest, AddsAResidualBeforeTheActivation) {
  for (int a = 0; a <= 5; ++a) {
    for (uint32_t rows : {19u, 64u, 512u}) {
      for (int threads : {1, 2, 3}) {
        Case c{SquareGeometry(2, 9, 6, rows == 64 ? 3 : 1),
               static_cast<Activation>(a),
               {}};
        c.layer.rows = rows;
        c.layer.scattered = rows == 19;
        c.threads = threads;
        c.residual = true;
        Check(c);
      }
    }
  }
}

// Enough weights that a tile gets its bands a few at a time.
TEST(BandedLayerTest, AddsAResidualOnceToManyBands) {
  for (uint32_t band_rows : {4u, 16u}) {
    for (int threads : {1, 3}) {
      Case c{SquareGeometry(1, 5, 512, 1), Activation::kRelu, {}};
      c.layer.rows = 512;
      c.layer.kept = 256;
      c.layer.band_rows = band_rows;
      c.threads = threads;
      c.residual = true;
      Check(c);
    }
  }
}

TEST(BandedLayerTest, TablesAreSmallBesideThePayload) {
  RandomLayerOptions options;
  options.rows = 512;
  options.columns = 9 * 256;
  options.kept = 9 * 256 / 8;
  const RandomLayer layer(options);
  const uint64_t payload = layer.view.column_count * (16 * sizeof(float) + 2);
  for (Isa isa : SupportedIsas()) {
    PackedOperator packed;
    packed.SetWeights(layer.view);
    Workspace workspace;
    const uint64_t before = held_bytes;
    ASSERT_EQ(
        packed.PrepareConv2D(SquareGeometry(1, 14, 256, 3), Activation::kRelu,
                             With(SelectKernels(isa), &workspace)),
        nullptr);
    const uint64_t tables =
        held_bytes - before - workspace.count() * sizeof(float);
    EXPECT_LT(tables, 0.03 * static_cast<double>(payload)) << IsaName(isa);
  }
}

// Maps large enough to be read in place, their sides copied: every kernel,
// stride and dilation, wide and narrow.
TEST(BandedLayerTest, BordersOfMapsReadInPlace) {
  struct {
    int height, width;
  } sizes[] = {{12, 40}, {40, 12}, {17, 33}, {150, 2}, {3, 90}};
  struct {
    int height, width;
  } kernels[] = {{3, 3}, {1, 5}, {5, 1}, {2, 4}, {7, 3}};
  uint32_t seed = 0;
  for (auto size : sizes) {
    for (auto kernel : kernels) {
      for (int stride : {1, 2, 3}) {
        for (int dilation : {1, 2}) {
          Case c;
          ConvGeometry& g = c.geometry;
          g = {static_cast<int>(1 + seed % 2),
               size.height,
               size.width,
               3 + static_cast<int>(seed % 3),
               0,
               0,
               kernel.height,
               kernel.width,
               stride,
               seed % 5 == 0 ? 1 : stride,
               dilation,
               seed % 7 == 0 ? 1 : dilation,
               0,
               0};
          ResolvePadding(seed % 4 != 3, &g);
          c.layer.band_rows = seed % 3 == 0 ? 32 : 16;
          c.layer.rows = 40;
          c.layer.kept = 6;
          c.layer.scattered = seed % 4 == 1;
          c.layer.seed = ++seed;
          c.threads = 1 + seed % 3;
          c.residual = seed % 2 == 0;
          Check(c);
        }
      }
    }
  }
}

// Pixels at powers of two of bytes, whose tiles are smaller.
TEST(BandedLayerTest, PixelsThatShareCacheSets) {
  for (int channels : {512, 1024, 2048}) {
    for (uint32_t band_rows : {16u, 32u}) {
      Case c{SquareGeometry(1, 11, channels, 1), Activation::kRelu, {}};
      c.layer.rows = 2 * band_rows;
      c.layer.band_rows = band_rows;
      c.layer.kept = 30;
      Check(c);
    }
  }
}

TEST(BandedLayerTest, ColumnsOfThirtyTwoBitsAtBorders) {
  for (uint32_t band_rows : {4u, 8u, 16u, 32u}) {
    for (int size : {7, 12}) {
      Case c{SquareGeometry(2, size, 7400, 3, 2), Activation::kNone, {}};
      c.layer.rows = band_rows;
      c.layer.band_rows = band_rows;
      c.layer.kept = 100;
      c.threads = size == 7 ? 1 : 2;
      Check(c);
    }
  }
}

TEST(BandedLayerTest, MoreColumnsThanSixteenBitsCount) {
  for (int channels : {65535, 65536, 65537}) {
    Case c{SquareGeometry(1, 2, channels, 1), Activation::kRelu, {}};
    c.layer.rows = 16;
    c.layer.kept = 200;
    Check(c);
  }
}

TEST(BandedLayerTest, RandomConvolutions) {
  std::mt19937 random(20);
  auto pick = [&](int low, int high) {
    return low + static_cast<int>(random() % (high - low + 1));
  };
  for (int i = 0; i < 300; ++i) {
    Case c;
    ConvGeometry& g = c.geometry;
    g = {pick(1, 3), pick(1, 17), pick(1, 17), pick(1, 9), 0,
         0,          pick(1, 5),  pick(1, 5),  pick(1, 3), pick(1, 3),
         pick(1, 3), pick(1, 3),  0,           0};
    ResolvePadding(random() % 2 == 0, &g);
    c.activation = static_cast<Activation>(pick(0, 5));
    c.layer.rows = pick(1, 70);
    c.layer.band_rows = 4u << pick(0, 3);
    c.layer.kept = random() % 4 == 0 ? pick(0, 1) : -1;
    c.layer.scattered = random() % 2 == 0;
    c.layer.seed = random();
    c.bias = random() % 3 != 0;
    c.threads = pick(1, 3);
    c.residual = random() % 3 == 0;
    Check(c);
  }
}

TEST(BandedLayerTest, PrepareAgainAfterResize) {
  RandomLayerOptions options;
  options.columns = 4 * 9;
  RandomLayer layer(options);
  PackedOperator packed;
  packed.SetWeights(layer.view);
  for (int size : {9, 1, 12, 2}) {
    const ConvGeometry g = SquareGeometry(1, size, 4, 3);
    const std::vector<float> input = layer.Values(size_t(size) * size * 4);
    ASSERT_EQ(packed.PrepareConv2D(g, Activation::kRelu,
                                   With(SelectKernels(BestIsa()))),
              nullptr);
    const std::vector<float> expected = DenseConv2D(
        layer.dense, options.rows, g, Activation::kRelu, input, nullptr);
    std::vector<float> output(expected.size());
    packed.Invoke({input.data(), nullptr, nullptr, output.data()});
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(output[i], expected[i], Tolerance(options.columns));
    }
  }
}

TEST(BandedLayerTest, NanAndInfinityArePassedOn) {
  RandomLayerOptions options;
  options.columns = 9;
  options.kept = 9;
  RandomLayer layer(options);
  const ConvGeometry g = SquareGeometry(1, 5, 1, 3);
  for (Isa isa : SupportedIsas()) {
    for (const Driver* driver : AllDrivers()) {
      SCOPED_TRACE(std::string(IsaName(isa)) + ", driver " + driver->name);
      std::vector<float> input(25, 0.0f);
      input[12] = NAN;
      PackedOperator packed;
      packed.SetWeights(layer.view);
      Resources resources = With(SelectKernels(isa));
      resources.driver = driver;
      ASSERT_EQ(packed.PrepareConv2D(g, Activation::kRelu6, resources),
                nullptr);
      std::vector<float> output(25 * options.rows);
      packed.Invoke({input.data(), nullptr, nullptr, output.data()});
      EXPECT_TRUE(std::isnan(output[12 * options.rows]));
      EXPECT_EQ(output[0], 0.0f);
    }
  }
}

TEST(BandedLayerTest, RefusesWhatDoesNotFit) {
  RandomLayer layer({});
  PackedOperator packed;
  packed.SetWeights(layer.view);
  const Resources resources = With(SelectKernels(BestIsa()));
  const char* error = packed.PrepareConv2D(SquareGeometry(1, 5, 5, 3),
                                           Activation::kNone, resources);
  ASSERT_NE(error, nullptr);
  EXPECT_NE(std::strstr(error, "columns"), nullptr);
  ConvGeometry g = SquareGeometry(1, 5, 4, 3);
  g.stride_h = 0;
  error = packed.PrepareConv2D(g, Activation::kNone, resources);
  ASSERT_NE(error, nullptr);
  EXPECT_NE(std::strstr(error, "geometry"), nullptr);
  g = SquareGeometry(1, 30000, 4, 3);
  error = packed.PrepareConv2D(g, Activation::kNone, resources);
  ASSERT_NE(error, nullptr);
  EXPECT_NE(std::strstr(error, "too large"), nullptr);
}

}  // namespace
}  // namespace tfrewprune
