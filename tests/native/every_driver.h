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

// The weights as floats and as halves, which must be exact. Returns how many
// runs there were with either.
template <class Weights>
int CheckEveryDriver(Weights weights, const LayerRun& run, float tolerance) {
  SCOPED_TRACE(run.Describe());
  const int runs = RunEveryDriver(weights, run, tolerance);
  SCOPED_TRACE("float16");
  const std::vector<Half> halves =
      HalvesOf(weights.value.floats(), ValueCount(weights));
  weights.value = halves.data();
  EXPECT_EQ(RunEveryDriver(weights, run, tolerance), runs);
  return runs;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_TESTS_NATIVE_EVERY_DRIVER_H_
