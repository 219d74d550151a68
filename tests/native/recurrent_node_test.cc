// SPDX-License-Identifier: Apache-2.0
//
// Recurrent nodes as TFLite drives them, on graphs that are right, wrong, or
// damaged in any way.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "delegate/delegate.h"
#include "fake_interpreter.h"
#include "golden.h"
#include "recurrent_case.h"

namespace tfrewprune {
namespace {

const char* NameOf(OpKind kind) {
  return kind == OpKind::kGru    ? kGruName
         : kind == OpKind::kLstm ? kLstmName
                                 : kRnnName;
}

// A node as numbers and bytes, so that tests can bend any of them.
struct NodeCase {
  OpKind kind;
  std::vector<int32_t> words;
  std::string payload[3];
  std::vector<int> x, mask, h, c, bias, inner_bias;  // shapes; empty = absent
  int outputs;
  int inputs = 9;
  bool variables;  // whether states are variable tensors
  int invokes = 1;
  tflite::Type mask_type = tflite::kBool;
  int threads = 1;
  Isa isa = BestIsa();

  explicit NodeCase(const RecurrentCase& test) {
    const RecurrentShape& s = test.shape;
    kind = s.kind;
    words = s.Words();
    for (size_t i = 0; i < test.matrix.size(); ++i) {
      payload[i] = EncodeBands(test.matrix[i]->view);
    }
    x = {s.batch, s.steps, s.features};
    if (s.mask) mask = {s.batch, s.steps};
    if (s.begin) h = {s.batch, s.units};
    if (s.begin && s.kind == OpKind::kLstm) c = h;
    if (s.bias) bias = {s.gates() * s.units};
    if (s.inner_bias()) inner_bias = {s.gates() * s.units};
    outputs = s.stateful ? 1
                         : 1 + (s.output != SequenceOutput::kNone) +
                               (s.kind == OpKind::kLstm);
    variables = s.stateful;
  }
};

struct NodeRunner {
  // Returns the first output; `errors` says why there is none.
  std::vector<float> Run(const NodeCase& node, const RecurrentCase* test) {
    DelegateOptions options;
    options.isa = node.isa;
    options.threads = node.threads;
    options.log_level = LogLevel::kError;
    PackedDelegate* delegate = PackedDelegate::Create(options);
    std::vector<float> result;
    {
      std::vector<AlignedBytes> bytes;
      for (const std::string& payload : node.payload) {
        bytes.emplace_back(payload);
      }
      FakeInterpreter graph;
      const int x = graph.AddTensor(node.x, "x");
      std::vector<int> inputs = {x};
      for (int i = 0; i < 3; ++i) {
        inputs.push_back(
            node.payload[i].empty()
                ? -1
                : graph.AddConstant(bytes[i].data(), bytes[i].size()));
      }
      const auto add = [&](const std::vector<int>& shape, const char* name) {
        inputs.push_back(shape.empty() ? -1 : graph.AddTensor(shape, name));
        return inputs.back();
      };
      const int bias = add(node.bias, "bias");
      const int inner = add(node.inner_bias, "inner bias");
      const int mask = add(node.mask, "mask");
      const int h = add(node.h, "h");
      const int c = add(node.c, "c");
      for (int state : {h, c}) {
        if (state >= 0) graph.tensor(state).is_variable = node.variables;
      }
      if (mask >= 0) {
        tflite::Tensor& tensor = graph.tensor(mask);
        tensor.type = node.mask_type;
        if (node.mask_type == tflite::kBool) tensor.bytes /= sizeof(float);
      }
      inputs.resize(node.inputs, -1);
      std::vector<int> outputs;
      for (int i = 0; i < node.outputs; ++i) {
        outputs.push_back(graph.AddTensor({1}, "y"));
      }
      AlignedBytes words(reinterpret_cast<const uint8_t*>(node.words.data()),
                         node.words.size() * 4);
      graph.AddNode(NameOf(node.kind), inputs, outputs, words.data(),
                    words.size());
      if (graph.Apply(delegate->base()) == tflite::kOk &&
          graph.Allocate() == tflite::kOk) {
        const auto fill = [&](int index, const std::vector<float>* values) {
          if (index < 0) return;
          tflite::Tensor& tensor = graph.tensor(index);
          if (values != nullptr && !values->empty()) {
            memcpy(tensor.data.f, values->data(), tensor.bytes);
          } else if (tensor.type == tflite::kFloat32) {
            std::fill_n(tensor.data.f, tensor.bytes / 4, 0.25f);
          } else {
            memset(tensor.data.data, 1, tensor.bytes);
          }
        };
        fill(x, test == nullptr ? nullptr : &test->x);
        fill(bias, test == nullptr ? nullptr : &test->bias);
        fill(inner, test == nullptr ? nullptr : &test->inner_bias);
        fill(mask, nullptr);
        fill(h, test == nullptr ? nullptr : &test->h);
        fill(c, test == nullptr ? nullptr : &test->c);
        if (mask >= 0 && test != nullptr && !test->mask.empty()) {
          memcpy(graph.tensor(mask).data.data, test->mask.data(),
                 test->mask.size());
        }
        invoked = true;
        for (int i = 0; i < node.invokes && invoked; ++i) {
          invoked = graph.Invoke() == tflite::kOk;
        }
        if (invoked) {
          for (int output : outputs) {
            const tflite::Tensor& y = graph.tensor(output);
            result.insert(result.end(), y.data.f, y.data.f + y.bytes / 4);
          }
        }
      }
      errors = graph.errors();
    }
    PackedDelegate::Destroy(delegate);
    return result;
  }

  std::string errors;
  bool invoked = false;
};

std::vector<RecurrentShape> Shapes() {
  RecurrentShape gru, before, lstm, rnn;
  gru.mask = true;
  gru.batch = 2;
  before.reset_after = false;
  before.backwards = true;
  lstm.kind = OpKind::kLstm;
  lstm.output = SequenceOutput::kNone;
  rnn.kind = OpKind::kRnn;
  rnn.begin = rnn.bias = false;
  RecurrentShape kept = lstm;
  kept.output = SequenceOutput::kAll;
  kept.stateful = true;
  kept.clip = 1;
  return {gru, before, lstm, rnn, kept};
}

TEST(RecurrentNode, ComputesWhatTheOracleDoes) {
  for (const RecurrentShape& shape : Shapes()) {
    const RecurrentCase test(shape);
    const RecurrentResult expected = test.Expected();
    std::vector<float> all = expected.y;
    if (!shape.stateful) {
      all.insert(all.end(), expected.h.begin(), expected.h.end());
      all.insert(all.end(), expected.c.begin(), expected.c.end());
    }
    NodeRunner runner;
    const std::vector<float> received = runner.Run(NodeCase(test), &test);
    ASSERT_EQ(received.size(), all.size()) << runner.errors;
    for (size_t i = 0; i < all.size(); ++i) {
      ASSERT_NEAR(all[i], received[i], 1e-5f);
    }
  }
}

TEST(RecurrentNode, VariableStatesStayFromCallToCall) {
  RecurrentShape shape;
  shape.kind = OpKind::kLstm;
  shape.stateful = true;
  shape.clip = 0.5f;
  shape.batch = 2;
  RecurrentCase test(shape);
  NodeCase node(test);
  node.invokes = 3;
  NodeRunner runner;
  const std::vector<float> received = runner.Run(node, &test);
  for (int i = 1; i < node.invokes; ++i) {
    const RecurrentResult before = test.Expected();
    test.h = before.h;
    test.c = before.c;
  }
  const RecurrentResult expected = test.Expected();
  ASSERT_EQ(received.size(), expected.y.size()) << runner.errors;
  for (size_t i = 0; i < received.size(); ++i) {
    ASSERT_NEAR(expected.y[i], received[i], 1e-5f);
  }
}

void ExpectRefused(const NodeCase& node, const char* part) {
  NodeRunner runner;
  runner.Run(node, nullptr);
  EXPECT_FALSE(runner.invoked) << part;
  EXPECT_NE(runner.errors.find(part), std::string::npos)
      << "expected " << part << ", received " << runner.errors;
}

TEST(RecurrentNode, SaysWhatIsWrong) {
  RecurrentShape shape;
  shape.kind = OpKind::kLstm;
  shape.mask = true;
  const NodeCase good{RecurrentCase(shape)};
  NodeCase bad = good;
  bad.h = {2, shape.units};
  ExpectRefused(bad, "the state must be of TFLite type 1 with shape [1, 20]");
  bad = good;
  bad.c = {1, shape.units - 1};
  ExpectRefused(bad, "the cell state must be");
  bad = good;
  bad.mask = {1, shape.steps + 1};
  ExpectRefused(bad, "the mask must be of TFLite type 6 with shape [1, 5]");
  bad = good;
  bad.mask_type = tflite::kFloat32;
  ExpectRefused(bad, "the mask must be of TFLite type 6");
  bad = good;
  bad.bias = {3};
  ExpectRefused(bad, "the bias must be float32 (type 1) with 80 values");
  bad = good;
  bad.x = {1, 5, 8};
  ExpectRefused(bad, "the sequence must be float32 (type 1) [batch, steps, 7]");
  bad = good;
  bad.inner_bias = {80};
  ExpectRefused(bad, "the operator has not got a recurrent bias");
  bad = good;
  bad.outputs = 2;
  ExpectRefused(bad, "and 3 outputs. Received: 9 inputs and 2 outputs");
  bad = good;
  bad.inputs = 8;
  ExpectRefused(bad, "Received: 8 inputs");
  bad = good;
  bad.payload[1] = bad.payload[0];
  ExpectRefused(bad, "recurrent kernel");
  bad = good;
  bad.payload[0].resize(200);
  ExpectRefused(bad, "the payload is damaged");
  bad = good;
  bad.words[5] = 4;
  ExpectRefused(bad, "recurrent activation must be from 0 to 3. Received: 4");
  bad = good;
  bad.words[6] = 1;
  ExpectRefused(bad, "reset_after must be from 0 to 0");
  bad = good;
  bad.words[10] = 0x7F800000;  // infinity
  ExpectRefused(bad, "cell clip must be from 0 to");
}

TEST(RecurrentNode, SaysWhatIsWrongWithVariableStates) {
  RecurrentShape shape;
  shape.kind = OpKind::kLstm;
  shape.stateful = true;
  const NodeCase good{RecurrentCase(shape)};
  NodeCase bad = good;
  bad.variables = false;
  ExpectRefused(bad, "must be variable tensors. Received: input 7");
  bad = good;
  bad.c.clear();
  ExpectRefused(bad, "input 8 must be a tensor");
  bad = good;
  bad.mask = {1, shape.steps};
  ExpectRefused(bad, "the operator has not got a mask");
  bad = good;
  bad.outputs = 3;
  ExpectRefused(bad, "and 1 output. Received: 9 inputs and 3 outputs");
  for (int word : {5, 7, 8, 9}) {
    bad = good;
    bad.words[word] ^= 1;
    ExpectRefused(bad, "of a stateful LSTM");
  }
}

// Seeded damage of everything a file can damage; for the sanitizer builds.
TEST(RecurrentNode, DamageNeverCrashes) {
  const char* seconds = getenv("TFREWPRUNE_FUZZ_SECONDS");
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::milliseconds(static_cast<int64_t>(
                       1000 * (seconds == nullptr ? 1.5 : atof(seconds))));
  std::vector<NodeCase> corpus;
  for (const RecurrentShape& shape : Shapes()) {
    corpus.emplace_back(RecurrentCase(shape));
  }
  std::mt19937 random(1);
  const auto below = [&](size_t n) { return random() % n; };
  int inputs = 0, invoked = 0;
  for (; std::chrono::steady_clock::now() < end; ++inputs) {
    NodeCase node = corpus[below(corpus.size())];
    const Isa isas[] = {BestIsa(), Isa::kPortable, Isa::kReference};
    node.isa = isas[below(3)];
    node.threads = 1 + static_cast<int>(below(2));
    const int32_t words[] = {0, 1, 2, 3, 4, 5, -1, 16, INT32_MAX, INT32_MIN};
    for (size_t change = below(3); change > 0; --change) {
      std::vector<int>* shapes[] = {&node.x, &node.mask, &node.h,
                                    &node.c, &node.bias, &node.inner_bias};
      std::string& payload = node.payload[below(3)];
      switch (below(6)) {
        case 0:
          node.words[below(16)] = words[below(10)];
          break;
        case 1:
          if (!payload.empty()) {
            payload[below(below(2) ? payload.size() : 128)] =
                static_cast<char>(random());
          }
          break;
        case 2:
          payload = corpus[below(corpus.size())].payload[below(3)];
          break;
        case 3: {
          std::vector<int>& shape = *shapes[below(6)];
          if (shape.empty()) {
            shape = {static_cast<int>(below(3)), static_cast<int>(below(21))};
          } else {
            shape[below(shape.size())] = static_cast<int>(below(9));
          }
          break;
        }
        case 4:
          node.x[below(2)] = static_cast<int>(below(4));
          if (!node.mask.empty()) node.mask = {node.x[0], node.x[1]};
          if (!node.h.empty()) node.h[0] = node.x[0];
          if (!node.c.empty()) node.c[0] = node.x[0];
          break;
        default:
          node.outputs = 1 + static_cast<int>(below(3));
          node.kind = static_cast<OpKind>(2 + below(3));
      }
    }
    NodeRunner runner;
    const std::vector<float> values = runner.Run(node, nullptr);
    if (!runner.invoked && runner.errors.empty()) {
      FAIL() << "refused without a reason, input " << inputs;
    }
    volatile float sum = 0;
    for (float value : values) sum = sum + value;
    invoked += runner.invoked;
  }
  printf("%d inputs, %d invoked\n", inputs, invoked);
  EXPECT_GT(invoked, 0);
}

}  // namespace
}  // namespace tfrewprune
