// SPDX-License-Identifier: Apache-2.0
//
// Random packed layers for the native tests: the view, its storage, and the
// same weights as a dense matrix (the tests' own oracle). All weights are
// numbers that half precision has, so that a layer can be run with either type.
#ifndef TFREWPRUNE_TESTS_NATIVE_RANDOM_LAYER_H_
#define TFREWPRUNE_TESTS_NATIVE_RANDOM_LAYER_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "format/payload.h"
#include "isa/isa.h"
#include "kernels/convolution.h"

namespace tfrewprune {

// `half` by the book.
inline float ValueOfHalf(Half half) {
  const int exponent = half.bits >> 10 & 31, fraction = half.bits & 1023;
  const float sign = half.bits >> 15 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(float(fraction), -24);
  return sign * std::ldexp(float(1024 + fraction), exponent - 25);
}

// `value` must be a number that half precision has.
inline Half HalfOf(float value) {
  int exponent;
  const float m = std::frexp(std::fabs(value), &exponent);
  const float bits = exponent < -13
                         ? std::ldexp(std::fabs(value), 24)
                         : (exponent + 13) * 1024 + std::ldexp(m, 11);
  return {static_cast<uint16_t>((std::signbit(value) ? 0x8000 : 0) +
                                static_cast<int>(bits))};
}

inline std::vector<Half> HalvesOf(const float* values, size_t count) {
  std::vector<Half> halves;
  for (size_t i = 0; i < count; ++i) halves.push_back(HalfOf(values[i]));
  return halves;
}

// From -1 to 1, never 0; some are too small to be normal halves.
inline float RandomWeight(std::mt19937* random) {
  const int fraction = 1 + static_cast<int>((*random)() % 1023);
  const int shift = (*random)() % 16 == 0 ? 24 : 10;
  return std::ldexp((*random)() % 2 == 0 ? -fraction : fraction, -shift);
}

struct RandomLayerOptions {
  uint32_t rows = 32;
  uint32_t columns = 36;
  uint32_t band_rows = 16;
  int kept = -1;           // columns of a band; -1 = random in [0, columns]
  bool scattered = false;  // rows in random order, some lanes and rows unused
  uint32_t seed = 1;
};

class RandomLayer {
 public:
  explicit RandomLayer(const RandomLayerOptions& o) : random(o.seed) {
    std::vector<uint32_t> order(o.rows);
    std::iota(order.begin(), order.end(), 0u);
    std::vector<uint32_t> lanes;
    if (o.scattered) {
      std::shuffle(order.begin(), order.end(), random);
      order.resize(std::max<size_t>(1, order.size() * 3 / 4));
      for (uint32_t row : order) {
        while (random() % 8 == 0) lanes.push_back(o.rows);
        lanes.push_back(row);
      }
    } else {
      lanes = order;
    }
    while (lanes.size() % o.band_rows != 0) lanes.push_back(o.rows);
    const uint32_t bands = static_cast<uint32_t>(lanes.size()) / o.band_rows;
    dense.assign(size_t{o.rows} * o.columns, 0.0f);
    start_.push_back(0);
    std::vector<uint32_t> columns;
    for (uint32_t b = 0; b < bands; ++b) {
      std::vector<uint32_t> all(o.columns);
      std::iota(all.begin(), all.end(), 0u);
      std::shuffle(all.begin(), all.end(), random);
      const size_t kept = o.kept < 0 ? random() % (o.columns + 1)
                                     : std::min<size_t>(o.kept, o.columns);
      all.resize(kept);
      std::sort(all.begin(), all.end());
      for (uint32_t column : all) {
        columns.push_back(column);
        for (uint32_t lane = 0; lane < o.band_rows; ++lane) {
          const uint32_t row = lanes[b * o.band_rows + lane];
          const float w = row == o.rows ? 0.0f : RandomWeight(&random);
          value_.push_back(w);
          if (row != o.rows) dense[size_t{row} * o.columns + column] = w;
        }
      }
      start_.push_back(static_cast<uint32_t>(columns.size()));
    }
    view.rows = o.rows;
    view.columns = o.columns;
    view.band_rows = o.band_rows;
    view.band_count = bands;
    view.column_count = columns.size();
    view.index_bytes = o.rows <= 65535 && o.columns <= 65536 ? 2 : 4;
    view.row_id = Index(lanes, &row16_, &row32_);
    view.column = Index(columns, &column16_, &column32_);
    view.band_start = start_.data();
    // At a cache line, as in a file.
    value_.reserve(value_.size() + 16);
    const size_t past = reinterpret_cast<uintptr_t>(value_.data()) / 4 % 16;
    const size_t skip = (16 - past) % 16;
    value_.insert(value_.begin(), skip, 0.0f);
    view.value = value_.data() + skip;
  }

  float Uniform() {
    return std::uniform_real_distribution<float>(-1.0f, 1.0f)(random);
  }
  std::vector<float> Values(size_t count) {
    std::vector<float> values(count);
    for (float& v : values) v = Uniform();
    return values;
  }

  std::mt19937 random;
  BandedView view = {};
  std::vector<float> dense;  // [rows x columns]

 private:
  const void* Index(const std::vector<uint32_t>& from,
                    std::vector<uint16_t>* as16, std::vector<uint32_t>* as32) {
    if (view.index_bytes == 2) {
      as16->assign(from.begin(), from.end());
      return as16->data();
    }
    *as32 = from;
    return as32->data();
  }

  std::vector<uint32_t> start_;
  std::vector<float> value_;
  std::vector<uint16_t> row16_, column16_;
  std::vector<uint32_t> row32_, column32_;
};

// A dense convolution that knows nothing of payloads.
inline std::vector<float> DenseConv2D(const std::vector<float>& weights,
                                      uint32_t rows, const ConvGeometry& g,
                                      Activation activation,
                                      const std::vector<float>& input,
                                      const float* bias) {
  std::vector<float> output;
  for (int n = 0; n < g.batch; ++n) {
    for (int y = 0; y < g.out_h; ++y) {
      for (int x = 0; x < g.out_w; ++x) {
        for (uint32_t o = 0; o < rows; ++o) {
          double sum = bias == nullptr ? 0.0 : bias[o];
          for (int i = 0; i < g.kernel_h; ++i) {
            for (int j = 0; j < g.kernel_w; ++j) {
              const int in_y = y * g.stride_h - g.pad_top + i * g.dilation_h;
              const int in_x = x * g.stride_w - g.pad_left + j * g.dilation_w;
              if (in_y < 0 || in_y >= g.in_h || in_x < 0 || in_x >= g.in_w) {
                continue;
              }
              for (int c = 0; c < g.in_c; ++c) {
                sum +=
                    double{input[((size_t(n) * g.in_h + in_y) * g.in_w + in_x) *
                                     g.in_c +
                                 c]} *
                    weights[((size_t{o} * g.kernel_h + i) * g.kernel_w + j) *
                                g.in_c +
                            c];
              }
            }
          }
          output.push_back(static_cast<float>(sum));
        }
      }
    }
  }
  for (float& v : output) {
    switch (activation) {
      case Activation::kNone:
        break;
      case Activation::kRelu:
        v = std::max(v, 0.0f);
        break;
      case Activation::kReluN1To1:
        v = std::min(std::max(v, -1.0f), 1.0f);
        break;
      case Activation::kRelu6:
        v = std::min(std::max(v, 0.0f), 6.0f);
        break;
      case Activation::kTanh:
        v = std::tanh(v);
        break;
      case Activation::kSignBit:
        v = std::signbit(v) ? 1.0f : 0.0f;
        break;
    }
  }
  return output;
}

// SAME or VALID as TFLite defines them; out_h and out_w may become 0.
inline void ResolvePadding(bool same, ConvGeometry* g) {
  const int reach_h = (g->kernel_h - 1) * g->dilation_h + 1;
  const int reach_w = (g->kernel_w - 1) * g->dilation_w + 1;
  if (same) {
    g->out_h = (g->in_h + g->stride_h - 1) / g->stride_h;
    g->out_w = (g->in_w + g->stride_w - 1) / g->stride_w;
    g->pad_top =
        std::max(0, (g->out_h - 1) * g->stride_h + reach_h - g->in_h) / 2;
    g->pad_left =
        std::max(0, (g->out_w - 1) * g->stride_w + reach_w - g->in_w) / 2;
  } else {
    g->out_h = std::max(0, (g->in_h - reach_h) / g->stride_h + 1);
    g->out_w = std::max(0, (g->in_w - reach_w) / g->stride_w + 1);
    if (g->in_h < reach_h) g->out_h = 0;
    if (g->in_w < reach_w) g->out_w = 0;
    g->pad_top = g->pad_left = 0;
  }
}

// Of square images and kernels.
inline ConvGeometry SquareGeometry(int batch, int size, int channels,
                                   int kernel, int stride = 1, int dilation = 1,
                                   bool same = true) {
  ConvGeometry g = {batch,  size,   size,   channels, 0,        0, kernel,
                    kernel, stride, stride, dilation, dilation, 0, 0};
  ResolvePadding(same, &g);
  return g;
}

// Rounding of a sum of `terms` products of numbers in [-1, 1].
inline float Tolerance(uint32_t terms) {
  return (static_cast<float>(terms) + 1.0f) *
         std::numeric_limits<float>::epsilon();
}

inline std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (int i = 0; i < kIsaCount; ++i) {
    if (IsaSupported(static_cast<Isa>(i))) isas.push_back(static_cast<Isa>(i));
  }
  return isas;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_TESTS_NATIVE_RANDOM_LAYER_H_
