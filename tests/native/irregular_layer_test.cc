// SPDX-License-Identifier: Apache-2.0
//
// Irregular convolutions and fully connected layers against dense loops, by
// every driver.
#include <gtest/gtest.h>

#include "every_driver.h"
#include "random_irregular.h"

namespace tfrewprune {
namespace {

struct Case {
  ConvGeometry geometry;
  RandomIrregularOptions layer;
  Activation activation = Activation::kNone;
  bool bias = true;
  int threads = 1;
  bool residual = false;  // a residual is added before the activation
};

ConvGeometry Geometry(int batch, int h, int w, int channels, int kernel,
                      int stride = 1, int dilation = 1, bool same = true) {
  ConvGeometry g = {batch,  h,      w,      channels, 0,        0, kernel,
                    kernel, stride, stride, dilation, dilation, 0, 0};
  ResolvePadding(same, &g);
  return g;
}

void Check(Case c) {
  const ConvGeometry& g = c.geometry;
  c.layer.channels = g.in_c;
  c.layer.taps = g.kernel_h * g.kernel_w;
  RandomIrregular layer(c.layer);
  SCOPED_TRACE(testing::Message()
               << c.layer.rows << " rows, chunks of " << c.layer.chunk_channels
               << ", seed " << c.layer.seed);
  LayerRun run;
  run.geometry = g;
  run.activation = c.activation;
  run.threads = c.threads;
  // Exactly as long as the image: sanitizers see every read past the end.
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
  CheckEveryDriver(layer.view, run, Tolerance(layer.view.columns));
}

Resources WithBestKernels() {
  Resources resources;
  resources.kernels = SelectKernels(BestIsa());
  return resources;
}

TEST(IrregularConv2DTest, FourGoalSizesShrunk) {
  for (int size : {7, 14, 28}) {
    Case c{Geometry(1, size, size, 32, 3), {}};
    c.layer.rows = 32;
    c.layer.chunk_channels = 16;
    c.layer.keep = 0.125;
    Check(c);
    c.layer.patterns = true;
    Check(c);
  }
}

TEST(IrregularConv2DTest, StridesDilationsKernelsAndPadding) {
  for (int kernel : {1, 2, 3, 5}) {
    for (int stride : {1, 2, 3}) {
      for (int dilation : {1, 2}) {
        for (bool same : {true, false}) {
          Case c{Geometry(2, 11, 13, 5, kernel, stride, dilation, same), {}};
          if (c.geometry.out_h == 0 || c.geometry.out_w == 0) continue;
          c.layer.rows = 9;
          c.layer.chunk_channels = 3;
          Check(c);
        }
      }
    }
  }
}

TEST(IrregularConv2DTest, ActivationsAndMissingBias) {
  for (int a = 0; a <= 5; ++a) {
    Case c{Geometry(1, 6, 6, 8, 3), {}, static_cast<Activation>(a)};
    Check(c);
    c.bias = false;
    Check(c);
    c.residual = true;
    Check(c);
    c.threads = 2;
    Check(c);
  }
}

TEST(IrregularConv2DTest, RowsAndChunksWithoutWeights) {
  Case c{Geometry(1, 9, 9, 12, 3), {}};
  c.layer.chunk_channels = 2;
  c.layer.idle_rows = 3;
  c.layer.keep = 0.03;
  Check(c);
  c.layer.keep = 0.0;  // nothing is left: activation(bias)
  Check(c);
  c.layer.keep = 1.0;
  Check(c);
}

TEST(IrregularConv2DTest, ManyPanelsOfALargeImage) {
  Case c{Geometry(1, 61, 75, 4, 3), {}};
  c.layer.rows = 130;
  c.layer.chunk_channels = 4;
  for (int threads : {1, 3}) {
    c.threads = threads;
    Check(c);
  }
  // One row of pixels: panels are cut along x.
  c = {Geometry(1, 1, 3000, 2, 1), {}};
  c.layer.rows = 200;
  c.layer.chunk_channels = 2;
  Check(c);
}

TEST(IrregularConv2DTest, ThreadsShareRowsOfOnePanel) {
  for (int threads : {2, 3, 7}) {
    Case c{Geometry(1, 7, 7, 20, 3), {}};
    c.layer.rows = 67;
    c.threads = threads;
    Check(c);
    c.geometry.batch = 3;
    Check(c);
    c.layer.rows = 1;
    Check(c);
  }
}

// Taps so far apart that what lies between them is not lifted.
TEST(IrregularConv2DTest, VastDilations) {
  for (int dilation : {20, 36, 200}) {
    for (int stride : {1, 2, 5}) {
      Case c{Geometry(1, 41, 33, 16, 3, stride, dilation), {}};
      c.layer.chunk_channels = 16;
      c.threads = stride;
      Check(c);
    }
  }
}

TEST(IrregularConv2DTest, RandomLayers) {
  std::mt19937 random(7);
  const auto between = [&](int low, int high) {
    return low + static_cast<int>(random() % (high - low + 1));
  };
  for (int i = 0; i < 60; ++i) {
    ConvGeometry g = {between(1, 2),
                      between(1, 20),
                      between(1, 20),
                      between(1, 40),
                      0,
                      0,
                      between(1, 4),
                      between(1, 4),
                      between(1, 3),
                      between(1, 3),
                      between(1, 3),
                      between(1, 3),
                      0,
                      0};
    ResolvePadding(random() % 2 == 0, &g);
    if (g.out_h == 0 || g.out_w == 0) continue;
    Case c{g, {}};
    c.layer.rows = between(1, 50);
    c.layer.chunk_channels = between(1, g.in_c);
    c.layer.keep = 0.02 * between(1, 20);
    c.layer.idle_rows = between(0, 4);
    c.layer.seed = i;
    c.threads = between(1, 3);
    c.residual = random() % 3 == 0;
    Check(c);
  }
}

TEST(IrregularConv2DTest, PrepareAgainForAnotherSize) {
  RandomIrregular layer({});
  PackedOperator packed;
  packed.SetWeights(layer.view);
  for (int size : {12, 1, 5, 30}) {
    const ConvGeometry g = Geometry(1, size, size, 16, 3);
    const std::vector<float> input = layer.Values(size_t(size) * size * 16);
    const std::vector<float> expected =
        DenseConv2D(layer.dense, 24, g, Activation::kNone, input, nullptr);
    ASSERT_EQ(packed.PrepareConv2D(g, Activation::kNone, WithBestKernels()),
              nullptr);
    std::vector<float> output(expected.size(), NAN);
    packed.Invoke({input.data(), nullptr, nullptr, output.data()});
    ExpectOutput(expected, Activation::kNone, Tolerance(144), output);
  }
}

TEST(IrregularConv2DTest, PayloadOfAnotherConvolutionIsRefused) {
  RandomIrregular layer({});  // 3x3, 16 channels
  PackedOperator packed;
  packed.SetWeights(layer.view);
  for (const ConvGeometry& g :
       {Geometry(1, 8, 8, 8, 3), Geometry(1, 8, 8, 144, 1)}) {
    const char* error =
        packed.PrepareConv2D(g, Activation::kNone, WithBestKernels());
    ASSERT_NE(error, nullptr);
    EXPECT_NE(std::string(error).find("taps must be kernel height x kernel"),
              std::string::npos);
  }
}

void CheckFullyConnected(const RandomIrregularOptions& options, int batch,
                         int threads, bool with_bias) {
  RandomIrregular layer(options);
  LayerRun run;
  run.geometry = RowOfPixels(batch, options.channels);
  run.activation = Activation::kRelu;
  run.threads = threads;
  run.input = layer.Values(size_t(batch) * options.channels);
  const std::vector<float> bias = layer.Values(options.rows);
  if (with_bias) run.bias = bias.data();
  run.expected = DenseConv2D(layer.dense, options.rows, run.geometry,
                             Activation::kNone, run.input, run.bias);
  CheckEveryDriver(layer.view, run, Tolerance(options.channels));
}

TEST(IrregularFullyConnectedTest, BatchesThreadsAndChunks) {
  for (int batch : {1, 2, 3, 4, 19}) {
    for (uint32_t chunk : {64u, 200u, 300u}) {
      for (int threads : {1, 2}) {
        RandomIrregularOptions options;
        options.rows = 301;
        options.channels = 300;
        options.taps = 1;
        options.chunk_channels = chunk;
        options.keep = 0.4;
        options.idle_rows = 5;
        CheckFullyConnected(options, batch, threads, batch % 2 == 1);
      }
    }
  }
}

TEST(IrregularFullyConnectedTest, WideIndices) {
  RandomIrregularOptions options;
  options.rows = 3;
  options.channels = 70000;
  options.taps = 1;
  options.chunk_channels = 4096;
  options.keep = 0.05;
  ASSERT_EQ(RandomIrregular(options).view.index_bytes, 4u);
  CheckFullyConnected(options, 1, 1, true);
}

TEST(IrregularFullyConnectedTest, ConvolutionWeightsAreRefused) {
  RandomIrregular convolution({});
  PackedOperator packed;
  packed.SetWeights(convolution.view);
  EXPECT_NE(
      packed.PrepareFullyConnected(1, Activation::kNone, WithBestKernels()),
      nullptr);
}

}  // namespace
}  // namespace tfrewprune
