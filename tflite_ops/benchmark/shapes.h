// SPDX-License-Identifier: Apache-2.0
//
// Lists of layers, one a line, as tfrewprune/benchmark/shapes/*.txt has them:
//
//   name conv 56x56 64->64 k3x3 [s2] [d2]     # SAME padding
//   name fc 1024->1024 [batch8]
#ifndef TFREWPRUNE_BENCHMARK_SHAPES_H_
#define TFREWPRUNE_BENCHMARK_SHAPES_H_

#include <string>
#include <vector>

#include "kernels/convolution.h"

namespace tfrewprune {

struct LayerShape {
  std::string name;
  ConvGeometry geometry;  // fully connected: batch x 1 x 1 pixels, 1x1 kernel
  int outputs;
  bool fully_connected;
};

// Appends the layers of a file. False, with a message in *error, when it cannot
// be read or a line is not understood.
bool ReadShapes(const std::string& path, std::vector<LayerShape>* layers,
                std::string* error);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_BENCHMARK_SHAPES_H_
