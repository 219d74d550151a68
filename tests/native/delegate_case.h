// SPDX-License-Identifier: Apache-2.0
//
// A delegate through its C interface, and a graph of one layer for it.
#ifndef TFREWPRUNE_TESTS_NATIVE_DELEGATE_CASE_H_
#define TFREWPRUNE_TESTS_NATIVE_DELEGATE_CASE_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "delegate/delegate.h"
#include "delegate/node.h"
#include "fake_interpreter.h"
#include "format/op_options.h"
#include "format/payload.h"
#include "golden.h"

extern "C" {
tfrewprune::tflite::Delegate* tflite_plugin_create_delegate(
    const char* const* keys, const char* const* values, size_t count,
    void (*report_error)(const char*));
void tflite_plugin_destroy_delegate(tfrewprune::tflite::Delegate* delegate);
const char* tfrewprune_version();
int tfrewprune_claimed_nodes(tfrewprune::tflite::Delegate* delegate);
const char* tfrewprune_isa_name(tfrewprune::tflite::Delegate* delegate);
int tfrewprune_threads(tfrewprune::tflite::Delegate* delegate);
uint64_t tfrewprune_held_bytes();
}

namespace tfrewprune {

// What the last `Create` complained of.
inline std::string reported;

struct Destroy {
  void operator()(tflite::Delegate* delegate) const {
    tflite_plugin_destroy_delegate(delegate);
  }
};
using Handle = std::unique_ptr<tflite::Delegate, Destroy>;

inline Handle Create(std::vector<const char*> keys = {},
                     std::vector<const char*> values = {}) {
  reported.clear();
  return Handle(tflite_plugin_create_delegate(
      keys.data(), values.data(), keys.size(),
      [](const char* message) { reported = message; }));
}

inline bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The environment must not decide what the tests of options see.
class DelegateTest : public ::testing::Test {
 protected:
  void SetUp() override { ClearEnvironment(); }
  void TearDown() override { ClearEnvironment(); }

 private:
  static void ClearEnvironment() {
    unsetenv("TFREWPRUNE_ISA");
    unsetenv("TFREWPRUNE_DRIVER");
  }
};
// A graph of one fully connected or convolution node on a golden payload.
class OneLayer {
 public:
  explicit OneLayer(const std::string& golden)
      : payload_(ReadGolden(golden + ".payload")) {
    if (ParsePayload(payload_.data(), payload_.size(), &view_) != nullptr) {
      abort();
    }
  }

  void FullyConnected(std::vector<int> input, bool keep_num_dims = false) {
    options_ = {0x4F504654, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, keep_num_dims};
    Build(kFullyConnectedName, input);
  }
  // A kernel of height x width with the payload's columns.
  void Conv2D(std::vector<int> input, int height, int width = 1) {
    options_ = {0x4F504654,
                1,
                0,
                0,
                height,
                width,
                static_cast<int>(view_.columns) / (height * width),
                1,
                1,
                1,
                1,
                0};
    Build(kConv2DName, input);
  }

  FakeInterpreter& interpreter() { return interpreter_; }
  std::vector<int32_t>& options() { return options_; }
  tflite::Tensor& input() { return interpreter_.tensor(0); }
  tflite::Tensor& payload() { return interpreter_.tensor(1); }
  tflite::Tensor& bias() { return interpreter_.tensor(2); }
  tflite::Tensor& output() { return interpreter_.tensor(3); }
  const BandedView& view() const { return view_; }
  AlignedBytes& payload_bytes() { return payload_; }

  // x[i] = 1 / (i + 1), bias[o] = o.
  void FillInput() {
    for (size_t i = 0; i < input().bytes / 4; ++i) {
      input().data.f[i] = 1.0f / static_cast<float>(i + 1);
    }
    for (size_t i = 0; i < bias().bytes / 4; ++i) {
      bias().data.f[i] = static_cast<float>(i);
    }
  }
  // Expected output of pixel `p` of a fully connected layer.
  double Expected(size_t p, uint32_t row) const {
    double sum = row;
    for (uint32_t band = 0; band < view_.band_count; ++band) {
      for (uint32_t lane = 0; lane < view_.band_rows; ++lane) {
        if (view_.RowId(uint64_t{band} * view_.band_rows + lane) != row) {
          continue;
        }
        for (uint32_t n = view_.band_start[band];
             n < view_.band_start[band + 1]; ++n) {
          sum += view_.value[uint64_t{n} * view_.band_rows + lane] /
                 (static_cast<double>(p) * view_.columns + view_.Column(n) + 1);
        }
      }
    }
    return sum;
  }

 private:
  void Build(const char* name, std::vector<int> input) {
    options_.resize(16);
    interpreter_.AddTensor(input, "x");
    interpreter_.AddConstant(payload_.data(), payload_.size());
    interpreter_.AddTensor({static_cast<int>(view_.rows)}, "bias");
    interpreter_.AddTensor({1}, "logits");
    interpreter_.AddNode(name, {0, 1, 2}, {3}, options_.data(), 64);
  }

  AlignedBytes payload_;
  BandedView view_;
  std::vector<int32_t> options_;
  FakeInterpreter interpreter_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_TESTS_NATIVE_DELEGATE_CASE_H_
