// SPDX-License-Identifier: Apache-2.0
#include "operators/fully_connected.h"

#include <gtest/gtest.h>

#include "kernels/select.h"
#include "random_layer.h"

namespace tfrewprune {
namespace {

void Check(const RandomLayerOptions& options, int batch, Activation activation,
           bool with_bias, int threads) {
  SCOPED_TRACE(testing::Message()
               << options.rows << "x" << options.columns << " R "
               << options.band_rows << " kept " << options.kept << " scattered "
               << options.scattered << " seed " << options.seed << " batch "
               << batch << " threads " << threads << " activation "
               << static_cast<int>(activation));
  RandomLayer layer(options);
  const std::vector<float> x = layer.Values(size_t(batch) * options.columns);
  const std::vector<float> bias = layer.Values(options.rows);
  ThreadPool* pool = ThreadPool::Create(threads);
  for (Isa isa : SupportedIsas()) {
    SCOPED_TRACE(IsaName(isa));
    FullyConnected dense;
    ASSERT_EQ(
        dense.Prepare(layer.view, batch, activation, SelectKernels(isa), pool),
        nullptr);
    std::vector<float> y(size_t(batch) * options.rows + 64, NAN);
    dense.Invoke(x.data(), with_bias ? bias.data() : nullptr, y.data());
    for (int n = 0; n < batch; ++n) {
      for (uint32_t o = 0; o < options.rows; ++o) {
        double sum = with_bias ? bias[o] : 0.0;
        for (uint32_t k = 0; k < options.columns; ++k) {
          sum += double{layer.dense[size_t{o} * options.columns + k]} *
                 x[size_t(n) * options.columns + k];
        }
        float expected = static_cast<float>(sum);
        Activate(activation, &expected, 1);
        ASSERT_NEAR(y[size_t(n) * options.rows + o], expected,
                    Tolerance(options.columns))
            << "row " << o << " of " << n;
      }
    }
    for (size_t i = size_t(batch) * options.rows; i < y.size(); ++i) {
      ASSERT_TRUE(std::isnan(y[i])) << "written past the end";
    }
  }
  ThreadPool::Destroy(pool);
}

TEST(FullyConnectedTest, EveryBandHeightAndCountOfColumns) {
  for (uint32_t band_rows : {4u, 8u, 16u, 32u}) {
    for (int kept : {0, 1, 2, 7, 8, 9, 31, 97}) {
      RandomLayerOptions options;
      options.rows = 3 * band_rows;
      options.columns = 97;
      options.band_rows = band_rows;
      options.kept = kept;
      Check(options, 1, Activation::kNone, true, 1);
    }
  }
}

TEST(FullyConnectedTest, WideIndices) {
  RandomLayerOptions options;
  options.rows = 20;
  options.columns = 70000;
  options.kept = 300;
  Check(options, 1, Activation::kNone, true, 1);
  options.kept = 40;
  Check(options, 5, Activation::kNone, true, 1);
}

TEST(FullyConnectedTest, TasksOfManyThreads) {
  RandomLayerOptions options;
  options.rows = 400;
  options.columns = 600;
  Check(options, 1, Activation::kRelu, true, 3);
  Check(options, 19, Activation::kRelu, true, 3);
}

TEST(FullyConnectedTest, RandomLayers) {
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    RandomLayerOptions options;
    options.rows = 1 + random() % 100;
    options.columns = 1 + random() % 200;
    options.band_rows = 4u << (random() % 4);
    options.scattered = random() % 2 == 0;
    options.seed = random();
    const Activation activations[] = {Activation::kNone, Activation::kRelu,
                                      Activation::kReluN1To1,
                                      Activation::kRelu6, Activation::kTanh};
    Check(options, 1 + random() % 20, activations[random() % 5],
          random() % 2 == 0, 1 + random() % 2);
  }
}

}  // namespace
}  // namespace tfrewprune
