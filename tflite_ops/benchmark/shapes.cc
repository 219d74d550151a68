// SPDX-License-Identifier: Apache-2.0
#include "shapes.h"

#include <cstdio>
#include <fstream>
#include <sstream>

#include "random_layer.h"

namespace tfrewprune {
namespace {

bool ParseLayer(const std::string& line, LayerShape* layer) {
  std::istringstream words(line);
  std::string kind, word;
  ConvGeometry& g = layer->geometry;
  g = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0};
  if (!(words >> layer->name >> kind)) return false;
  layer->fully_connected = kind == "fc";
  if (kind != "fc" && kind != "conv") return false;
  int a, b, n;
  bool channels = false;
  while (words >> word) {
    const char* s = word.c_str();
    const int size = static_cast<int>(word.size());
    if (std::sscanf(s, "%d->%d%n", &a, &b, &n) == 2 && n == size) {
      g.in_c = a, layer->outputs = b, channels = true;
    } else if (std::sscanf(s, "%dx%d%n", &a, &b, &n) == 2 && n == size) {
      g.in_h = a, g.in_w = b;
    } else if (std::sscanf(s, "k%dx%d%n", &a, &b, &n) == 2 && n == size) {
      g.kernel_h = a, g.kernel_w = b;
    } else if (std::sscanf(s, "s%d%n", &a, &n) == 1 && n == size) {
      g.stride_h = g.stride_w = a;
    } else if (std::sscanf(s, "d%d%n", &a, &n) == 1 && n == size) {
      g.dilation_h = g.dilation_w = a;
    } else if (std::sscanf(s, "batch%d%n", &a, &n) == 1 && n == size) {
      g.in_h = a;  // as the pixels of one image
    } else {
      return false;
    }
  }
  ResolvePadding(true, &g);
  return channels;
}

}  // namespace

bool ReadShapes(const std::string& path, std::vector<LayerShape>* layers,
                std::string* error) {
  std::ifstream file(path);
  if (!file) {
    *error = "cannot read " + path;
    return false;
  }
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line = line.substr(0, line.find('#'));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    LayerShape layer;
    if (!ParseLayer(line, &layer)) {
      *error = path + ":" + std::to_string(number) +
               ": expected 'name conv HxW I->O kHxW [sN] [dN]' or 'name fc "
               "I->O [batchN]', found '" +
               line + "'";
      return false;
    }
    layers->push_back(layer);
  }
  return true;
}

}  // namespace tfrewprune
