// SPDX-License-Identifier: Apache-2.0
//
// Graphs that a delegate refuses, and what it says.
#include <string>
#include <vector>

#include "delegate_case.h"

namespace tfrewprune {
namespace {

using DelegateRefusalsTest = DelegateTest;

TEST_F(DelegateRefusalsTest, RefusalsNameTheNodeTheExpectedAndTheReceived) {
  struct {
    const char* what;
    void (*damage)(OneLayer*);
    const char* message;
  } cases[] = {
      {"option", [](OneLayer* l) { l->options()[3] = 6; },
       "fused activation must be from 0 to 5. Received: 6"},
      {"magic", [](OneLayer* l) { l->options()[0] = 0; }, "magic"},
      {"payload", [](OneLayer* l) { l->payload_bytes().data()[24] = 5; },
       "band_rows is not 4, 8, 16 or 32"},
      {"received", [](OneLayer* l) { l->payload_bytes().data()[4] = 9; },
       "version 9, layout 0"},
      {"computed payload",
       [](OneLayer* l) {
         l->payload().allocation_type = tflite::AllocationType(2);
       },
       "must be a constant"},
      {"payload type",
       [](OneLayer* l) { l->payload().type = tflite::kFloat32; },
       "Received: type 1"},
      {"payload length", [](OneLayer* l) { l->payload().bytes = 100; },
       "100 bytes"},
  };
  for (const auto& c : cases) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    c.damage(&layer);
    Handle delegate = Create();
    EXPECT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kError);
    const std::string& errors = layer.interpreter().errors();
    EXPECT_TRUE(Contains(errors, c.message)) << c.what << ": " << errors;
    EXPECT_TRUE(
        Contains(errors, "TfrewpruneFullyConnected (node 0, output 'logits')"))
        << errors;
    EXPECT_EQ(tfrewprune_claimed_nodes(delegate.get()), 0);
    // An interpreter that goes on all the same gets no further.
    EXPECT_EQ(layer.interpreter().Allocate(), tflite::kError);
    EXPECT_EQ(layer.interpreter().Invoke(), tflite::kError);
  }
}

TEST_F(DelegateRefusalsTest, ShapesThatDoNotFitAreRefusedWhenAllocating) {
  struct {
    const char* what;
    void (*damage)(OneLayer*);
    const char* message;
  } cases[] = {
      {"activation type", [](OneLayer* l) { l->input().type = tflite::kUInt8; },
       "types 3 and 1"},
      {"output type", [](OneLayer* l) { l->output().type = tflite::kUInt8; },
       "types 1 and 3"},
      {"bias length", [](OneLayer* l) { l->interpreter().Resize(2, {31}); },
       "with 32 values. Received: type 1, shape [31]"},
      {"bias type", [](OneLayer* l) { l->bias().type = tflite::kUInt8; },
       "the bias must be float32"},
      {"columns", [](OneLayer* l) { l->interpreter().Resize(0, {1, 26}); },
       "[batch, 27] when flattened. Received: [1, 26]"},
      {"rank",
       [](OneLayer* l) {
         l->interpreter().Resize(0, {1, 1, 1, 1, 1, 1, 1, 1, 27});
       },
       "1 to 8 dimensions"},
  };
  for (const auto& c : cases) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    Handle delegate = Create();
    ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
    c.damage(&layer);
    EXPECT_EQ(layer.interpreter().Allocate(), tflite::kError) << c.what;
    EXPECT_TRUE(Contains(layer.interpreter().errors(), c.message))
        << c.what << ": " << layer.interpreter().errors();
  }
}

TEST_F(DelegateRefusalsTest, HostileGraphsAreRefused) {
  struct {
    std::vector<int> inputs, outputs;
  } cases[] = {{{0}, {3}},          {{0, 1, 2, 2}, {3}}, {{0, 1, 2}, {}},
               {{0, 1, 2}, {3, 3}}, {{-1, 1, 2}, {3}},   {{0, -1, 2}, {3}},
               {{0, 1, 4}, {3}},    {{0, 1, -2}, {3}},   {{0, 1, 2}, {4}},
               {{0, 1, 2}, {-1}},   {{1 << 30, 1}, {3}}};
  for (const auto& c : cases) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    layer.interpreter().AddNode(kFullyConnectedName, c.inputs, c.outputs,
                                layer.options().data(), 64);
    Handle delegate = Create();
    EXPECT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kError);
    EXPECT_TRUE(Contains(layer.interpreter().errors(), "Received"))
        << layer.interpreter().errors();
  }
  // Options missing, short, negative in length.
  for (int length : {-5, 0, 63, 65}) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    layer.interpreter().AddNode(kConv2DName, {0, 1}, {3},
                                length <= 0 ? nullptr : layer.options().data(),
                                static_cast<size_t>(length));
    Handle delegate = Create();
    EXPECT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kError);
    EXPECT_TRUE(Contains(layer.interpreter().errors(), "length in bytes"));
  }
}

TEST_F(DelegateRefusalsTest, ATensorThatShrinksBehindOurBackIsNoticed) {
  OneLayer layer("two_bands");
  layer.FullyConnected({4, 27});
  Handle delegate = Create();
  ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
  ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk);
  layer.FillInput();
  ASSERT_EQ(layer.interpreter().Invoke(), tflite::kOk);
  layer.input().bytes = 27 * 4;
  EXPECT_EQ(layer.interpreter().Invoke(), tflite::kError);
  EXPECT_TRUE(Contains(layer.interpreter().errors(), "432"))
      << layer.interpreter().errors();
}

TEST_F(DelegateRefusalsTest, AResidualThatDoesNotFitIsRefused) {
  struct {
    std::vector<int> shape;
    int type;
    const char* message;
  } cases[] = {{{1, 5, 3, 19}, 1, "[2, 5, 3, 19]. Received: type 1, shape [1,"},
               {{2, 5, 3, 1}, 1, "shaped as the output"},
               {{2, 5, 57}, 1, "shape [2, 5, 57]"},
               {{2, 5, 3, 19}, 3, "Received: type 3"}};
  for (const auto& c : cases) {
    OneLayer layer("ragged");
    layer.Conv2D({2, 5, 3, 9}, 4);
    FakeInterpreter& graph = layer.interpreter();
    const int residual = graph.AddTensor(c.shape, "residual");
    graph.tensor(residual).type =
        static_cast<decltype(tflite::kFloat32)>(c.type);
    graph.AddNode(kConv2DName, {0, 1, 2, residual}, {graph.AddTensor({1})},
                  layer.options().data(), 64);
    Handle delegate = Create();
    ASSERT_EQ(graph.Apply(delegate.get()), tflite::kOk) << graph.errors();
    EXPECT_EQ(graph.Allocate(), tflite::kError);
    EXPECT_TRUE(Contains(graph.errors(), c.message)) << graph.errors();
  }
}

}  // namespace
}  // namespace tfrewprune
