// SPDX-License-Identifier: Apache-2.0
//
// Runs a layer by every instruction set and every driver that can do it, with
// every type of weights.
#ifndef TFREWPRUNE_TESTS_NATIVE_EVERY_DRIVER_H_
#define TFREWPRUNE_TESTS_NATIVE_EVERY_DRIVER_H_

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/irregular_reference.h"
#include "kernels/reference.h"
#include "operators/packed_operator.h"
#include "random_layer.h"

namespace tfrewprune {

// A convolution and its tensors.
struct LayerRun {
  ConvGeometry geometry = {};
  Activation activation = Activation::kNone;
  const float* bias = nullptr;
  int threads = 1;
  std::vector<float> input;
  std::vector<float> residual;  // empty: none
  std::vector<float> expected;  // before the activation, with the residual

  std::string Describe() const {
    const ConvGeometry& g = geometry;
    std::string s;
    for (int v :
         {g.batch, g.in_h, g.in_w, g.in_c, g.out_h, g.out_w, g.kernel_h,
          g.kernel_w, g.stride_h, g.stride_w, g.dilation_h, g.dilation_w,
          g.pad_top, g.pad_left, static_cast<int>(activation), threads}) {
      s += std::to_string(v) + " ";
    }
    return s + (residual.empty() ? "" : "with a residual");
  }
};

inline std::vector<const Driver*> AllDrivers() {
  int count;
  const Driver* drivers = Drivers(&count);
  std::vector<const Driver*> all;
  for (int i = 0; i < count; ++i) all.push_back(drivers + i);
  return all;
}

inline void ExpectOutput(const std::vector<float>& expected,
                         Activation activation, float tolerance,
                         const std::vector<float>& output) {
  if (activation == Activation::kSignBit) {
    for (size_t i = 0; i < expected.size(); ++i) {
      if (std::fabs(expected[i]) <= tolerance) continue;
      ASSERT_EQ(output[i], expected[i] < 0 ? 1.0f : 0.0f) << "at " << i;
    }
  } else {
    std::vector<float> activated = expected;
    Activate(activation, activated.data(), activated.size());
    for (size_t i = 0; i < activated.size(); ++i) {
      // GoogleTest's own comparison takes most of the time under qemu.
      if (std::fabs(output[i] - activated[i]) <= tolerance) continue;
      ASSERT_NEAR(output[i], activated[i], tolerance) << "at " << i;
    }
  }
  for (size_t i = expected.size(); i < output.size(); ++i) {
    ASSERT_TRUE(std::isnan(output[i])) << "written past the end";
  }
}

// By every instruction set and driver that can do it; how many there were.
// `weights` is a BandedView or an IrregularView.
template <class Weights>
int RunEveryDriver(const Weights& weights, const LayerRun& run,
                   float tolerance) {
  int runs = 0;
  ThreadPool* pool = ThreadPool::Create(run.threads);
  for (Isa isa : SupportedIsas()) {
    for (const Driver* driver : AllDrivers()) {
      SCOPED_TRACE(std::string(IsaName(isa)) + ", driver " + driver->name);
      PackedOperator packed;
      packed.SetWeights(weights);
      Workspace workspace;
      Resources resources;
      resources.kernels = SelectKernels(isa);
      resources.pool = pool;
      resources.workspace = &workspace;
      resources.driver = driver;
      const char* error = packed.PrepareConv2D(
          run.geometry, run.activation, resources, !run.residual.empty());
      EXPECT_EQ(error, nullptr);
      if (error != nullptr) continue;
      if (packed.driver() != driver) continue;  // cannot do it
      // NaN where nothing was written, and a guard behind the end.
      std::vector<float> output(run.expected.size() + 64, NAN);
      for (int repeat = 0; repeat < 2; ++repeat) {
        // As another layer may have left it.
        if (workspace.get() != nullptr) {
          std::fill_n(workspace.get(), workspace.count(), NAN);
        }
        packed.Invoke({run.input.data(), run.bias,
                       run.residual.empty() ? nullptr : run.residual.data(),
                       output.data()});
        ExpectOutput(run.expected, run.activation, tolerance, output);
        if (testing::Test::HasFatalFailure()) break;
      }
      ++runs;
    }
  }
  ThreadPool::Destroy(pool);
  return runs;
}

inline uint64_t ValueCount(const BandedView& weights) {
  return weights.column_count * weights.band_rows;
}
inline uint64_t ValueCount(const IrregularView& weights) {
  return weights.weight_count;
}

// The output row of every value; `rows` in lanes that carry none.
inline std::vector<uint32_t> RowOfValues(const BandedView& weights) {
  std::vector<uint32_t> row;
  for (uint32_t b = 0; b < weights.band_count; ++b) {
    for (uint32_t n = weights.band_start[b]; n < weights.band_start[b + 1];
         ++n) {
      for (uint32_t lane = 0; lane < weights.band_rows; ++lane) {
        row.push_back(weights.RowId(uint64_t{b} * weights.band_rows + lane));
      }
    }
  }
  return row;
}
inline std::vector<uint32_t> RowOfValues(const IrregularView& weights) {
  std::vector<uint32_t> row;
  for (uint32_t s = 0; s < weights.segment_count; ++s) {
    row.insert(row.end(),
               weights.segment_start[s + 1] - weights.segment_start[s],
               weights.RowId(s));
  }
  return row;
}

// About the same weights as integers with scales, and exactly what those are.
struct Integers {
  std::vector<int8_t> value;
  std::vector<float> scale;  // of each row, or one
  std::vector<float> floats;
};

template <class Weights>
Integers IntegersOf(const Weights& weights) {
  Integers made;
  const uint32_t scales = weights.rows % 2 == 0 ? weights.rows : 1;
  for (uint32_t i = 0; i < scales; ++i) {
    made.scale.push_back(1.0f / static_cast<float>(127 - i % 64));
  }
  const std::vector<uint32_t> rows = RowOfValues(weights);
  for (size_t i = 0; i < rows.size(); ++i) {
    const float scale =
        rows[i] == weights.rows ? 1.0f : made.scale[rows[i] % scales];
    const float steps = weights.value.floats()[i] / scale;
    made.value.push_back(static_cast<int8_t>(
        std::lround(std::fmax(-128, std::fmin(127, steps)))));
    made.floats.push_back(made.value.back() * scale);
  }
  return made;
}

inline void Reference(const BandedView& weights, const LayerRun& run,
                      float* output) {
  ReferenceConv2D(weights, run.geometry, Activation::kNone, run.input.data(),
                  run.bias, output);
}
inline void Reference(const IrregularView& weights, const LayerRun& run,
                      float* output) {
  ReferenceIrregularConv2D(weights, run.geometry, Activation::kNone,
                           run.input.data(), run.bias, output);
}

// As integers; what must come out is what their floats give.
template <class Weights>
int RunEveryDriverWithIntegers(Weights weights, LayerRun run, float tolerance) {
  const Integers integers = IntegersOf(weights);
  weights.value = integers.floats.data();
  Reference(weights, run, run.expected.data());
  for (size_t i = 0; i < run.residual.size(); ++i) {
    run.expected[i] += run.residual[i];
  }
  weights.value = Values(integers.value.data(), integers.scale.data(),
                         static_cast<uint32_t>(integers.scale.size()));
  return RunEveryDriver(weights, run, tolerance);
}

// The weights as floats, as halves, which must be exact, and as integers.
// Returns how many runs there were with each.
template <class Weights>
int CheckEveryDriver(Weights weights, const LayerRun& run, float tolerance) {
  SCOPED_TRACE(run.Describe());
  const int runs = RunEveryDriver(weights, run, tolerance);
  {
    SCOPED_TRACE("int8");
    const int integers = RunEveryDriverWithIntegers(weights, run, tolerance);
    // Integers with columns of 32 bits have no gemv.
    if (weights.index_bytes == 2) {
      EXPECT_EQ(integers, runs);
    }
  }
  SCOPED_TRACE("float16");
  const std::vector<Half> halves =
      HalvesOf(weights.value.floats(), ValueCount(weights));
  weights.value = halves.data();
  EXPECT_EQ(RunEveryDriver(weights, run, tolerance), runs);
  return runs;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_TESTS_NATIVE_EVERY_DRIVER_H_
