// SPDX-License-Identifier: Apache-2.0
//
// Irregular convolution and fully connected layers against dense loops, on
// every instruction set.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "operators/irregular_conv2d.h"
#include "operators/irregular_fully_connected.h"
#include "random_irregular.h"

namespace tfrewprune {
namespace {

struct Case {
  ConvGeometry geometry;
  RandomIrregularOptions layer;
  Activation activation = Activation::kNone;
  bool bias = true;
  int threads = 1;
  bool sums = false;  // a residual is added before the activation

  std::string Describe() const {
    const ConvGeometry& g = geometry;
    std::string s;
    for (int v : {g.batch,
                  g.in_h,
                  g.in_w,
                  g.in_c,
                  g.out_h,
                  g.out_w,
                  g.kernel_h,
                  g.kernel_w,
                  g.stride_h,
                  g.stride_w,
                  g.dilation_h,
                  g.dilation_w,
                  g.pad_top,
                  g.pad_left,
                  static_cast<int>(activation),
                  static_cast<int>(layer.rows),
                  static_cast<int>(layer.chunk_channels),
                  threads,
                  static_cast<int>(sums),
                  static_cast<int>(layer.seed)}) {
      s += std::to_string(v) + " ";
    }
    return s;
  }
};

ConvGeometry Geometry(int batch, int h, int w, int channels, int kernel,
                      int stride = 1, int dilation = 1, bool same = true) {
  ConvGeometry g = {batch,  h,      w,      channels, 0,        0, kernel,
                    kernel, stride, stride, dilation, dilation, 0, 0};
  ResolvePadding(same, &g);
  return g;
}

void ExpectOutput(const std::vector<float>& expected, Activation activation,
                  float tolerance, const std::vector<float>& output) {
  for (size_t i = 0; i < expected.size(); ++i) {
    float e = expected[i];
    if (activation == Activation::kSignBit) {
      if (std::fabs(e) <= tolerance) continue;
      ASSERT_EQ(output[i], e < 0 ? 1.0f : 0.0f) << "at " << i;
    } else {
      Activate(activation, &e, 1);
      ASSERT_NEAR(output[i], e, tolerance) << "at " << i;
    }
  }
  for (size_t i = expected.size(); i < output.size(); ++i) {
    ASSERT_TRUE(std::isnan(output[i])) << "written past the end";
  }
}

void Check(Case c) {
  SCOPED_TRACE(c.Describe());
  const ConvGeometry& g = c.geometry;
  c.layer.channels = g.in_c;
  c.layer.taps = g.kernel_h * g.kernel_w;
  RandomIrregular layer(c.layer);
  // Exactly as long as the image: sanitizers see every read past the end.
  const std::vector<float> input =
      layer.Values(size_t(g.batch) * g.in_h * g.in_w * g.in_c);
  const std::vector<float> bias = layer.Values(c.layer.rows);
  const float* bias_data = c.bias ? bias.data() : nullptr;
  std::vector<float> expected = DenseConv2D(
      layer.dense, c.layer.rows, g, Activation::kNone, input, bias_data);
  std::vector<float> residual;
  if (c.sums) {
    residual = layer.Values(expected.size());
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += residual[i];
  }
  ThreadPool* pool = ThreadPool::Create(c.threads);
  for (Isa isa : SupportedIsas()) {
    SCOPED_TRACE(IsaName(isa));
    IrregularConv2D conv;
    Workspace workspace;
    ASSERT_EQ(conv.Prepare(layer.view, g, c.activation, isa, pool, &workspace,
                           c.sums),
              nullptr);
    std::vector<float> output(expected.size() + 64, NAN);
    for (int repeat = 0; repeat < 2; ++repeat) {
      // As another layer may have left it.
      std::fill_n(workspace.get(), workspace.count(), NAN);
      conv.Invoke(input.data(), bias_data, output.data(),
                  c.sums ? residual.data() : nullptr);
      ExpectOutput(expected, c.activation, Tolerance(layer.view.columns),
                   output);
    }
  }
  ThreadPool::Destroy(pool);
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
    c.sums = true;
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

TEST(IrregularConv2DTest, VastKernelsFallBackToPlainLoops) {
  Case c{Geometry(1, 5, 5, 16, 3, 1, 200), {}};
  c.layer.chunk_channels = 16;
  Check(c);
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
    c.sums = random() % 3 == 0;
    Check(c);
  }
}

TEST(IrregularConv2DTest, PrepareAgainForAnotherSize) {
  RandomIrregular layer({});
  IrregularConv2D conv;
  for (int size : {12, 5, 30}) {
    const ConvGeometry g = Geometry(1, size, size, 16, 3);
    const std::vector<float> input = layer.Values(size_t(size) * size * 16);
    const std::vector<float> expected =
        DenseConv2D(layer.dense, 24, g, Activation::kNone, input, nullptr);
    ASSERT_EQ(
        conv.Prepare(layer.view, g, Activation::kNone, BestIsa(), nullptr),
        nullptr);
    std::vector<float> output(expected.size(), NAN);
    conv.Invoke(input.data(), nullptr, output.data());
    ExpectOutput(expected, Activation::kNone, Tolerance(144), output);
  }
}

TEST(IrregularConv2DTest, PayloadOfAnotherConvolutionIsRefused) {
  RandomIrregular layer({});  // 3x3, 16 channels
  IrregularConv2D conv;
  for (const ConvGeometry& g :
       {Geometry(1, 8, 8, 8, 3), Geometry(1, 8, 8, 144, 1)}) {
    const char* error =
        conv.Prepare(layer.view, g, Activation::kNone, BestIsa(), nullptr);
    ASSERT_NE(error, nullptr);
    EXPECT_NE(std::string(error).find("taps must be kernel height x kernel"),
              std::string::npos);
  }
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
        RandomIrregular layer(options);
        const ConvGeometry g = Geometry(batch, 1, 1, 300, 1);
        const std::vector<float> input = layer.Values(size_t(batch) * 300);
        const std::vector<float> bias = layer.Values(301);
        ThreadPool* pool = ThreadPool::Create(threads);
        for (Isa isa : SupportedIsas()) {
          SCOPED_TRACE(IsaName(isa));
          for (const float* b : {bias.data(), (const float*)nullptr}) {
            const std::vector<float> expected =
                DenseConv2D(layer.dense, 301, g, Activation::kNone, input, b);
            IrregularFullyConnected fc;
            ASSERT_EQ(
                fc.Prepare(layer.view, batch, Activation::kRelu, isa, pool),
                nullptr);
            std::vector<float> output(expected.size() + 8, NAN);
            fc.Invoke(input.data(), b, output.data());
            ExpectOutput(expected, Activation::kRelu, Tolerance(300), output);
          }
        }
        ThreadPool::Destroy(pool);
      }
    }
  }
}

TEST(IrregularFullyConnectedTest, WideIndicesAndConvolutionWeights) {
  RandomIrregularOptions options;
  options.rows = 3;
  options.channels = 70000;
  options.taps = 1;
  options.chunk_channels = 4096;
  options.keep = 0.05;
  RandomIrregular layer(options);
  ASSERT_EQ(layer.view.index_bytes, 4u);
  const std::vector<float> input = layer.Values(70000);
  const std::vector<float> expected =
      DenseConv2D(layer.dense, 3, Geometry(1, 1, 1, 70000, 1),
                  Activation::kNone, input, nullptr);
  IrregularFullyConnected fc;
  ASSERT_EQ(fc.Prepare(layer.view, 1, Activation::kNone, BestIsa(), nullptr),
            nullptr);
  std::vector<float> output(3, NAN);
  fc.Invoke(input.data(), nullptr, output.data());
  ExpectOutput(expected, Activation::kNone, Tolerance(3500), output);

  RandomIrregular convolution({});
  EXPECT_NE(
      fc.Prepare(convolution.view, 1, Activation::kNone, BestIsa(), nullptr),
      nullptr);
}

}  // namespace
}  // namespace tfrewprune
