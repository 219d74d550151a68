// SPDX-License-Identifier: Apache-2.0
#include "operators/recurrent.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "recurrent_case.h"

namespace tfrewprune {
namespace {

OpOptions OptionsOf(const RecurrentShape& shape) {
  OpOptions options;
  OptionError error;
  const std::vector<int32_t> words = shape.Words();
  EXPECT_TRUE(ParseOpOptions(words.data(), words.size() * 4, shape.kind,
                             &options, &error));
  return options;
}

std::string Name(const RecurrentShape& s, Isa isa) {
  return std::string(IsaName(isa)) + " kind " +
         std::to_string(static_cast<int>(s.kind)) + " batch " +
         std::to_string(s.batch) + " steps " + std::to_string(s.steps) +
         " units " + std::to_string(s.units) + " mask " +
         std::to_string(s.mask) + " output " +
         std::to_string(static_cast<int>(s.output));
}

void ExpectNear(const std::vector<float>& expected,
                const std::vector<float>& received, float tolerance) {
  ASSERT_EQ(expected.size(), received.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(expected[i], received[i], tolerance) << "at " << i;
  }
}

RecurrentResult Compute(const RecurrentCase& test, Isa isa, ThreadPool* pool) {
  const RecurrentShape& s = test.shape;
  RecurrentOperator op;
  for (size_t i = 0; i < test.matrix.size(); ++i) {
    op.matrix(static_cast<int>(i))->SetWeights(test.matrix[i]->view);
  }
  EXPECT_EQ(op.SetOptions(OptionsOf(s)), nullptr);
  Workspace workspace;
  Resources resources;
  resources.kernels = SelectKernels(isa);
  resources.pool = pool;
  resources.workspace = &workspace;
  EXPECT_EQ(op.Prepare(s.batch, s.steps, resources), nullptr);
  const size_t states = size_t(s.batch) * s.units;
  RecurrentResult result;
  const float garbage = std::numeric_limits<float>::quiet_NaN();
  result.h.assign(states, garbage);
  if (s.kind == OpKind::kLstm) result.c.assign(states, garbage);
  if (s.output == SequenceOutput::kAll) {
    result.y.assign(states * s.steps, garbage);
  } else if (s.output == SequenceOutput::kLast) {
    result.y.assign(states, garbage);
  }
  const auto data = [](const auto& v) {
    return v.empty() ? nullptr : v.data();
  };
  for (int round = 0; round < 2; ++round) {  // scratch holds what was there
    op.Invoke({data(test.x), data(test.bias), data(test.inner_bias),
               data(test.mask), data(test.h), data(test.c),
               result.y.empty() ? nullptr : result.y.data(), result.h.data(),
               result.c.empty() ? nullptr : result.c.data()});
  }
  return result;
}

void Check(const RecurrentShape& shape, float tolerance = 1e-5f) {
  const RecurrentCase test(shape);
  const RecurrentResult expected = test.Expected();
  for (Isa isa : SupportedIsas()) {
    SCOPED_TRACE(Name(shape, isa));
    const RecurrentResult received = Compute(test, isa, nullptr);
    ExpectNear(expected.y, received.y, tolerance);
    ExpectNear(expected.h, received.h, tolerance);
    ExpectNear(expected.c, received.c, tolerance);
  }
}

std::vector<RecurrentShape> Kinds() {
  RecurrentShape gru, before, lstm, rnn;
  before.reset_after = false;
  lstm.kind = OpKind::kLstm;
  rnn.kind = OpKind::kRnn;
  return {gru, before, lstm, rnn};
}

TEST(Recurrent, EveryCellEveryDirectionAndBatch) {
  for (RecurrentShape shape : Kinds()) {
    for (int batch : {1, 3, 5}) {
      for (bool backwards : {false, true}) {
        for (int units : {1, 20, 33}) {
          shape.batch = batch;
          shape.backwards = backwards;
          shape.units = units;
          shape.scattered = units == 33;
          shape.bias = units != 20;
          shape.begin = units != 33;
          Check(shape);
        }
      }
    }
  }
}

TEST(Recurrent, MaskedStepsKeepStates) {
  for (RecurrentShape shape : Kinds()) {
    shape.mask = true;
    for (int batch : {1, 3}) {
      for (bool zero : {false, true}) {
        for (auto output : {SequenceOutput::kNone, SequenceOutput::kAll,
                            SequenceOutput::kLast}) {
          shape.batch = batch;
          shape.zero = zero;
          shape.output = output;
          shape.backwards = batch == 3;
          shape.seed = 7 + batch;
          Check(shape);
        }
      }
    }
  }
}

TEST(Recurrent, EveryActivation) {
  for (RecurrentShape shape : Kinds()) {
    for (int code = 0; code < 4; ++code) {
      shape.activation = code;
      shape.gate = 3 - code;
      shape.steps = 2;
      Check(shape, 1e-4f);  // linear ones grow
    }
  }
}

TEST(Recurrent, CellStatesAreClipped) {
  RecurrentShape shape;
  shape.kind = OpKind::kLstm;
  shape.activation = 0;  // linear ones grow
  for (float clip : {0.25f, 1.0f}) {
    shape.clip = clip;
    Check(shape, 1e-4f);
    const RecurrentResult result =
        Compute(RecurrentCase(shape), BestIsa(), nullptr);
    EXPECT_EQ(*std::max_element(result.c.begin(), result.c.end()), clip);
    EXPECT_EQ(*std::min_element(result.c.begin(), result.c.end()), -clip);
  }
}

TEST(Recurrent, LongSequencesAreProjectedInPieces) {
  for (RecurrentShape shape : Kinds()) {
    shape.units = 64;
    shape.steps = shape.gates() == 1 ? 2300 : 801;
    for (int batch : {1, 2}) {
      shape.batch = batch;
      shape.backwards = batch == 2;
      // Gates that let go keep rounding from growing.
      const RecurrentCase test(shape);
      const RecurrentResult expected = test.Expected();
      const RecurrentResult received = Compute(test, BestIsa(), nullptr);
      ExpectNear(expected.y, received.y, 2e-4f);
    }
  }
}

TEST(Recurrent, NoStepsAndNoBatch) {
  for (RecurrentShape shape : Kinds()) {
    shape.steps = 0;
    Check(shape);
    shape.output = SequenceOutput::kLast;
    Check(shape);
    shape.steps = 1;
    Check(shape);
    shape.batch = 0;
    Check(shape);
  }
}

TEST(Recurrent, TwoThreadsGiveTheSame) {
  ThreadPool* pool = ThreadPool::Create(2);
  for (RecurrentShape shape : Kinds()) {
    shape.units = 130;
    shape.batch = 4;
    const RecurrentCase test(shape);
    const RecurrentResult one = Compute(test, BestIsa(), nullptr);
    const RecurrentResult two = Compute(test, BestIsa(), pool);
    ExpectNear(one.y, two.y, 1e-6f);
  }
  ThreadPool::Destroy(pool);
}

TEST(Recurrent, ANaNStaysInItsOwnSequence) {
  for (RecurrentShape shape : Kinds()) {
    shape.batch = 3;
    RecurrentCase test(shape);
    const RecurrentResult clean = test.Expected();
    test.x[size_t(shape.steps) * shape.features + 2] = NAN;  // of the second
    test.matrix[0]->Values(1);
    for (Isa isa : SupportedIsas()) {
      SCOPED_TRACE(Name(shape, isa));
      const RecurrentResult received = Compute(test, isa, nullptr);
      const size_t length = size_t(shape.steps) * shape.units;
      for (size_t i = 0; i < length; ++i) {
        ASSERT_NEAR(clean.y[i], received.y[i], 1e-5f);
        const size_t third = 2 * length + i;
        ASSERT_NEAR(clean.y[third], received.y[third], 1e-5f);
      }
      bool poisoned = false;
      for (size_t i = length; i < 2 * length; ++i) {
        poisoned = poisoned || std::isnan(received.y[i]);
      }
      EXPECT_TRUE(poisoned);
    }
  }
}

// What recurrent.h promises, over all of their range.
TEST(CellKernels, ActivationsAreExactToTwoMillionths) {
  std::vector<float> values = {0.0f,  -0.0f,  1e-30f,   -1e-30f,
                               1e30f, -1e30f, INFINITY, -INFINITY};
  for (double v = -20; v <= 20; v += 1e-3) values.push_back(float(v));
  const std::vector<float> zeros(values.size(), 0.0f);
  std::vector<float> h(values.size());
  for (Isa isa : SupportedIsas()) {
    for (auto kind : {CellActivation::kTanh, CellActivation::kSigmoid}) {
      CellStep step = {static_cast<int64_t>(values.size()),
                       kind,
                       kind,
                       values.data(),
                       zeros.data(),
                       h.data(),
                       nullptr,
                       nullptr};
      SelectCellKernels(isa)->rnn(step);
      const bool tanh = kind == CellActivation::kTanh;
      for (size_t i = 0; i < values.size(); ++i) {
        const double v = values[i];
        const double exact = tanh ? std::tanh(v) : 1 / (1 + std::exp(-v));
        ASSERT_NEAR(h[i], exact, 1e-6) << IsaName(isa) << " of " << v;
        ASSERT_LE(h[i], 1.0f);
        ASSERT_GE(h[i], tanh ? -1.0f : 0.0f);
      }
    }
  }
}

TEST(CellKernels, NaNStaysNaN) {
  for (Isa isa : SupportedIsas()) {
    for (int code = 0; code < 4; ++code) {
      const float nan = std::numeric_limits<float>::quiet_NaN(), zero = 0;
      float h = 1;
      const auto kind = static_cast<CellActivation>(code);
      SelectCellKernels(isa)->rnn(
          {1, kind, kind, &nan, &zero, &h, nullptr, nullptr});
      EXPECT_TRUE(std::isnan(h) || (isa == Isa::kReference && code == 1))
          << IsaName(isa) << " " << code;
    }
  }
}

}  // namespace
}  // namespace tfrewprune
