// SPDX-License-Identifier: Apache-2.0
//
// Banded fully connected layers against dense loops, by every driver.
#include <gtest/gtest.h>

#include "every_driver.h"
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
  LayerRun run;
  run.geometry = RowOfPixels(batch, options.columns);
  run.activation = activation;
  run.threads = threads;
  run.input = layer.Values(size_t(batch) * options.columns);
  const std::vector<float> bias = layer.Values(options.rows);
  if (with_bias) run.bias = bias.data();
  run.expected = DenseConv2D(layer.dense, options.rows, run.geometry,
                             Activation::kNone, run.input, run.bias);
  CheckEveryDriver(layer.view, run, Tolerance(options.columns));
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

TEST(FullyConnectedTest, WeightsThatCachesDoNotKeep) {
  RandomLayerOptions options;
  options.rows = 1000;
  options.columns = 500;
  options.kept = 400;
  for (int threads : {1, 3}) {
    Check(options, 1, Activation::kRelu, true, threads);
    Check(options, 4, Activation::kRelu, true, threads);
  }
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
