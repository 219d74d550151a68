// SPDX-License-Identifier: Apache-2.0
//
// The delegate through its C interface, in a fake interpreter.
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "delegate_case.h"

namespace tfrewprune {
namespace {

TEST_F(DelegateTest, ClaimsOnlyOurNodes) {
  OneLayer layer("two_bands");
  layer.FullyConnected({2, 27});
  layer.interpreter().AddNode("SomebodyElses", {0}, {3}, nullptr, 0);
  layer.interpreter().AddNode("TfrewpruneOfTomorrow", {0}, {3}, nullptr, 0);
  layer.interpreter().AddNode(nullptr, {0}, {3}, nullptr, 0);
  Handle delegate = Create({"log_level"}, {"error"});
  ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
  EXPECT_EQ(layer.interpreter().claimed(), 1u);
  EXPECT_EQ(tfrewprune_claimed_nodes(delegate.get()), 1);
}

// Its own claimed nodes carry its prefix, too.
TEST_F(DelegateTest, ASecondDelegateDoesNotWarnOfClaimedNodes) {
  FakeInterpreter graph;
  graph.AddTensor({1}, "x");
  graph.AddNode(kClaimedName, {0}, {0}, nullptr, 0);
  testing::internal::CaptureStderr();
  Handle delegate = Create();
  EXPECT_EQ(graph.Apply(delegate.get()), tflite::kOk);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(tfrewprune_claimed_nodes(delegate.get()), 0);
}

TEST_F(DelegateTest, TunedLayersComputeAfterEveryResize) {
  OneLayer layer("ragged");  // 19 x 36
  layer.FullyConnected({1, 36});
  Handle delegate = Create({"threads", "tune", "tune_ms"}, {"2", "once", "5"});
  ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
  for (int batch : {1, 7, 1, 0, 40}) {
    layer.interpreter().Resize(0, {batch, 36});
    ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk)
        << layer.interpreter().errors();
    layer.FillInput();
    ASSERT_EQ(layer.interpreter().Invoke(), tflite::kOk);
    for (int p = 0; p < batch; ++p) {
      for (uint32_t row = 0; row < 19; ++row) {
        EXPECT_NEAR(layer.output().data.f[p * 19 + row], layer.Expected(p, row),
                    1e-4);
      }
    }
  }
}

// A geometry that no driver affords runs all the same, and says so once.
TEST_F(DelegateTest, PlainLoopsAreAnnouncedOnce) {
  for (const char* isa : {"auto", "reference"}) {
    OneLayer layer("ragged");  // 36 columns
    layer.Conv2D({1, 1, 3, 1}, 1, 36);
    layer.options()[10] = 1 << 20;  // dilation width
    layer.options()[11] = 0;        // SAME
    testing::internal::CaptureStderr();
    Handle delegate = Create({"isa"}, {isa});
    ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
    for (int width : {3, 5}) {
      layer.interpreter().Resize(0, {1, 1, width, 1});
      ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk)
          << layer.interpreter().errors();
      layer.FillInput();
      ASSERT_EQ(layer.interpreter().Invoke(), tflite::kOk);
    }
    const std::string log = testing::internal::GetCapturedStderr();
    const size_t found = log.find("WARNING: tfrewprune: node 0: no driver");
    EXPECT_EQ(found == std::string::npos, isa == std::string("reference"));
    EXPECT_EQ(log.find("no driver", found + 40), std::string::npos) << log;
  }
}

TEST_F(DelegateTest, ComputesAfterEveryResize) {
  for (const char* isa : {"auto", "portable", "reference"}) {
    OneLayer layer("ragged");  // 19 x 36, bands of 8
    layer.FullyConnected({1, 36});
    Handle delegate = Create({"isa"}, {isa});
    ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
    const std::vector<std::vector<int>> shapes = {{1, 36}, {5, 36}, {2, 3, 12},
                                                  {36},    {0, 36}, {40, 36}};
    for (const std::vector<int>& shape : shapes) {
      layer.interpreter().Resize(0, shape);
      ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk)
          << layer.interpreter().errors();
      layer.FillInput();
      ASSERT_EQ(layer.interpreter().Invoke(), tflite::kOk);
      const int batch = static_cast<int>(layer.input().bytes / 4 / 36);
      ASSERT_EQ(layer.interpreter().shape(3), (std::vector<int>{batch, 19}));
      for (int p = 0; p < batch; ++p) {
        for (uint32_t row = 0; row < 19; ++row) {
          EXPECT_NEAR(layer.output().data.f[p * 19 + row],
                      layer.Expected(p, row), 1e-4)
              << isa << " pixel " << p << " row " << row;
        }
      }
    }
  }
}

// Whether a payload `shift` bytes after a cache line was copied, after a check
// of the results.
bool Copies(bool convolution, size_t shift) {
  OneLayer layer("two_bands");
  const size_t size = layer.payload_bytes().size();
  std::vector<uint8_t> memory(size + 128);
  uint8_t* at = memory.data();
  while (reinterpret_cast<uintptr_t>(at) % 64 != shift) ++at;
  memcpy(at, layer.payload_bytes().data(), size);
  if (convolution) {
    layer.Conv2D({1, 1, 1, 27}, 1);
  } else {
    layer.FullyConnected({1, 27});
  }
  layer.payload().data.data = at;
  testing::internal::CaptureStderr();
  Handle delegate = Create({"log_level"}, {"debug"});
  EXPECT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
  EXPECT_EQ(layer.interpreter().Allocate(), tflite::kOk);
  layer.FillInput();
  EXPECT_EQ(layer.interpreter().Invoke(), tflite::kOk);
  for (uint32_t row = 0; row < 32; ++row) {
    EXPECT_NEAR(layer.output().data.f[row], layer.Expected(0, row), 1e-4);
  }
  return Contains(testing::internal::GetCapturedStderr(), "bytes were copied");
}

TEST_F(DelegateTest, PayloadsAreUsedInPlaceAtAnyFourBytes) {
  for (size_t shift : {0, 4, 8, 16, 60}) EXPECT_FALSE(Copies(true, shift));
  for (size_t shift : {1, 2, 7, 63}) EXPECT_TRUE(Copies(true, shift));
  // Fully connected layers are measured to be faster from a copy.
  for (size_t shift : {1, 4, 32}) EXPECT_TRUE(Copies(false, shift));
  EXPECT_FALSE(Copies(false, 0));
}

TEST_F(DelegateTest, OptionalBiasMayBeLeftOut) {
  for (std::vector<int> inputs :
       {std::vector<int>{0, 1}, std::vector<int>{0, 1, -1}}) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    FakeInterpreter graph;
    graph.AddTensor({1, 27});
    graph.AddConstant(layer.payload_bytes().data(),
                      layer.payload_bytes().size());
    graph.AddTensor({1});
    graph.AddNode(kFullyConnectedName, inputs, {2}, layer.options().data(), 64);
    Handle delegate = Create();
    ASSERT_EQ(graph.Apply(delegate.get()), tflite::kOk) << graph.errors();
    ASSERT_EQ(graph.Allocate(), tflite::kOk) << graph.errors();
    for (int i = 0; i < 27; ++i) {
      graph.tensor(0).data.f[i] = 1.0f / static_cast<float>(i + 1);
    }
    ASSERT_EQ(graph.Invoke(), tflite::kOk);
    for (uint32_t row = 0; row < 32; ++row) {
      EXPECT_NEAR(graph.tensor(2).data.f[row], layer.Expected(0, row) - row,
                  1e-4);
    }
  }
}

TEST_F(DelegateTest, AConvolutionAddsItsResidual) {
  for (const char* isa : {"auto", "portable", "reference"}) {
    OneLayer layer("ragged");  // 19 x 36, bands of 8
    layer.Conv2D({2, 5, 3, 9}, 4);
    FakeInterpreter& graph = layer.interpreter();
    const int residual = graph.AddTensor({2, 5, 3, 19}, "residual");
    const int sum = graph.AddTensor({1}, "sum");
    std::vector<int32_t> relu = layer.options();
    relu[3] = 1;
    graph.AddNode(kConv2DName, {0, 1, 2, residual}, {sum}, relu.data(), 64);
    Handle delegate = Create({"isa"}, {isa});
    ASSERT_EQ(graph.Apply(delegate.get()), tflite::kOk) << graph.errors();
    ASSERT_EQ(graph.Allocate(), tflite::kOk) << graph.errors();
    layer.FillInput();
    for (int i = 0; i < 2 * 5 * 3 * 19; ++i) {
      graph.tensor(residual).data.f[i] = static_cast<float>(i % 41 - 20);
    }
    ASSERT_EQ(graph.Invoke(), tflite::kOk) << graph.errors();
    ASSERT_EQ(graph.shape(sum), (std::vector<int>{2, 5, 3, 19}));
    for (int i = 0; i < 2 * 5 * 3 * 19; ++i) {
      const float expected =
          layer.output().data.f[i] + graph.tensor(residual).data.f[i];
      EXPECT_NEAR(graph.tensor(sum).data.f[i], std::fmax(expected, 0.0f), 1e-5);
    }
  }
}

TEST_F(DelegateTest, LayersOfOneGraphShareTheirScratch) {
  const uint64_t before = tfrewprune_held_bytes();
  for (const char* isa : {"auto", "portable"}) {
    uint64_t held[4] = {};
    for (int layers : {1, 2, 3}) {
      OneLayer layer("wide_band");  // 40 x 64
      // Nearly all of it is border: the whole padded image is copied.
      layer.Conv2D({1, 300, 8, 8}, 1, 8);
      for (int i = 1; i < layers; ++i) {
        const int output = layer.interpreter().AddTensor({1}, "more");
        layer.interpreter().AddNode(kConv2DName, {0, 1, 2}, {output},
                                    layer.options().data(), 64);
      }
      Handle delegate = Create({"isa"}, {isa});
      ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
      ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk)
          << layer.interpreter().errors();
      held[layers] = tfrewprune_held_bytes() - before;
    }
    // The first brings the scratch, each of the others only its tables.
    EXPECT_EQ(held[3] - held[2], held[2] - held[1]) << isa;
    EXPECT_GT(held[1], 100000u) << isa;
    EXPECT_LT(held[2] - held[1], held[1] / 2) << isa;
    EXPECT_EQ(tfrewprune_held_bytes(), before) << "not given back";
  }
}

TEST_F(DelegateTest, OneDelegateServesInterpretersOnSeveralThreads) {
  Handle delegate = Create({"threads"}, {"2"});
  std::vector<std::thread> users;
  std::atomic<int> wrong{0};
  for (int u = 0; u < 3; ++u) {
    users.emplace_back([&] {
      OneLayer layer("wide_band");  // 40 x 64
      layer.Conv2D({2, 6, 5, 16}, 4);
      layer.interpreter().context().recommended_num_threads = 2;
      if (layer.interpreter().Apply(delegate.get()) != tflite::kOk ||
          layer.interpreter().Allocate() != tflite::kOk) {
        ++wrong;
        return;
      }
      layer.FillInput();
      std::vector<float> first;
      for (int i = 0; i < 20; ++i) {
        if (layer.interpreter().Invoke() != tflite::kOk) ++wrong;
        std::vector<float> now(
            layer.output().data.f,
            layer.output().data.f + layer.output().bytes / 4);
        if (i == 0) first = now;
        if (now != first) ++wrong;
      }
    });
  }
  for (std::thread& user : users) user.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(tfrewprune_claimed_nodes(delegate.get()), 3);
}

}  // namespace
}  // namespace tfrewprune
