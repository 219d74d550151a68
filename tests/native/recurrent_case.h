// SPDX-License-Identifier: Apache-2.0
//
// A random recurrent layer for the native tests, and what it computes by plain
// loops in double that know nothing of payloads and kernels.
#ifndef TFREWPRUNE_TESTS_NATIVE_RECURRENT_CASE_H_
#define TFREWPRUNE_TESTS_NATIVE_RECURRENT_CASE_H_

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "format/op_options.h"
#include "random_layer.h"

namespace tfrewprune {

// The payload of banded float32 weights, by PAYLOAD.md.
inline std::string EncodeBands(const BandedView& w) {
  const uint64_t lanes = uint64_t{w.band_count} * w.band_rows;
  const uint64_t index = w.index_bytes;
  uint64_t at = 128, section[4][2];
  const uint64_t lengths[4] = {lanes * index, (w.band_count + 1) * uint64_t{4},
                               w.column_count * index,
                               w.column_count * w.band_rows * 4};
  const uint64_t alignment[4] = {4, 4, 4, 64};
  for (int i = 0; i < 4; ++i) {
    at = (at + alignment[i] - 1) / alignment[i] * alignment[i];
    section[i][0] = at;
    section[i][1] = lengths[i];
    at += lengths[i];
  }
  std::string bytes(at, '\0');
  const uint16_t versions[2] = {1, 128};
  const uint32_t head[6] = {0, 0, w.rows, w.columns, w.band_rows, w.band_count};
  const uint32_t tail[2] = {w.index_bytes, 0};
  memcpy(&bytes[0], "TFRP", 4);
  memcpy(&bytes[4], versions, 4);
  memcpy(&bytes[8], head, 24);
  memcpy(&bytes[32], &w.column_count, 8);
  memcpy(&bytes[40], tail, 8);
  memcpy(&bytes[48], section, 64);
  memcpy(&bytes[112], &at, 8);
  const void* content[4] = {w.row_id, w.band_start, w.column, w.value.data()};
  for (int i = 0; i < 4; ++i) {
    if (section[i][1] > 0) {
      memcpy(&bytes[section[i][0]], content[i], section[i][1]);
    }
  }
  return bytes;
}

struct RecurrentShape {
  OpKind kind = OpKind::kGru;
  int batch = 1, steps = 5, features = 7, units = 20;
  bool reset_after = true, backwards = false, mask = false, zero = false;
  SequenceOutput output = SequenceOutput::kAll;
  int activation = 3, gate = 2;  // CellActivation
  bool bias = true, begin = true;
  float clip = 0;         // LSTM
  bool stateful = false;  // likewise
  uint32_t band_rows = 16;
  bool scattered = false;
  uint32_t seed = 1;

  int gates() const {
    return kind == OpKind::kGru ? 3 : kind == OpKind::kLstm ? 4 : 1;
  }
  bool apart() const { return kind == OpKind::kGru && !reset_after; }
  bool inner_bias() const {
    return kind == OpKind::kGru && reset_after && bias;
  }
  // custom_options
  std::vector<int32_t> Words() const {
    int32_t clip_bits;
    memcpy(&clip_bits, &clip, sizeof(clip));
    return {0x4F504654,
            1,
            static_cast<int32_t>(kind),
            0,
            activation,
            kind == OpKind::kRnn ? 0 : gate,
            kind == OpKind::kGru && reset_after,
            backwards,
            static_cast<int32_t>(output),
            zero,
            clip_bits,
            stateful,
            0,
            0,
            0,
            0};
  }
};

struct RecurrentResult {
  std::vector<float> y, h, c;
};

class RecurrentCase {
 public:
  explicit RecurrentCase(const RecurrentShape& shape) : shape(shape) {
    const uint32_t units = shape.units;
    const uint32_t rows = shape.gates() * units;
    const uint32_t inner = shape.apart() ? rows - units : rows;
    AddMatrix(rows, shape.features);
    AddMatrix(inner, units);
    if (shape.apart()) AddMatrix(units, units);
    RandomLayer& random = *matrix[0];
    x = random.Values(size_t(shape.batch) * shape.steps * shape.features);
    if (shape.bias) bias = random.Values(rows);
    if (shape.inner_bias()) inner_bias = random.Values(inner);
    if (shape.begin) {
      h = random.Values(size_t(shape.batch) * units);
      if (shape.kind == OpKind::kLstm) {
        c = random.Values(size_t(shape.batch) * units);
      }
    }
    if (shape.mask) {
      for (int i = 0; i < shape.batch * shape.steps; ++i) {
        mask.push_back(random.random() % 3 != 0);
      }
    }
  }

  RecurrentResult Expected() const {
    const int units = shape.units, gates = shape.gates();
    RecurrentResult result;
    std::vector<double> state(size_t(shape.batch) * units, 0);
    std::vector<double> cell = state, last = state;
    for (size_t i = 0; i < h.size(); ++i) state[i] = h[i];
    for (size_t i = 0; i < c.size(); ++i) cell[i] = c[i];
    std::vector<double> all(state.size() * shape.steps);
    for (int n = 0; n < shape.batch; ++n) {
      double* s = state.data() + n * units;
      for (int t = 0; t < shape.steps; ++t) {
        const int at = shape.backwards ? shape.steps - 1 - t : t;
        const bool kept = mask.empty() || mask[n * shape.steps + at];
        double* out = last.data() + n * units;
        if (kept) {
          const float* input =
              &x[(size_t(n) * shape.steps + at) * shape.features];
          std::vector<double> p = Product(0, input, bias);
          Advance(p, gates, s, cell.data() + n * units);
          std::copy(s, s + units, out);
        } else if (shape.zero) {
          std::fill(out, out + units, 0.0);
        }
        std::copy(out, out + units,
                  all.data() + (size_t(n) * shape.steps + t) * units);
      }
    }
    if (shape.output == SequenceOutput::kAll) result.y = Floats(all);
    if (shape.output == SequenceOutput::kLast) result.y = Floats(last);
    result.h = Floats(state);
    if (shape.kind == OpKind::kLstm) result.c = Floats(cell);
    return result;
  }

  RecurrentShape shape;
  std::vector<std::unique_ptr<RandomLayer>> matrix;
  std::vector<float> x, bias, inner_bias, h, c;
  std::vector<uint8_t> mask;

 private:
  void AddMatrix(uint32_t rows, uint32_t columns) {
    RandomLayerOptions options;
    options.rows = rows;
    options.columns = columns;
    options.band_rows = shape.band_rows;
    options.scattered = shape.scattered;
    options.kept = static_cast<int>(std::min(columns, 6u));
    options.seed = shape.seed + static_cast<uint32_t>(matrix.size());
    matrix.push_back(std::make_unique<RandomLayer>(options));
  }

  static std::vector<float> Floats(const std::vector<double>& values) {
    return std::vector<float>(values.begin(), values.end());
  }

  template <class T>
  std::vector<double> Product(int i, const T* input,
                              const std::vector<float>& bias) const {
    const BandedView& w = matrix[i]->view;
    std::vector<double> sums(w.rows);
    for (uint32_t r = 0; r < w.rows; ++r) {
      sums[r] = bias.empty() ? 0.0 : bias[r];
      for (uint32_t k = 0; k < w.columns; ++k) {
        sums[r] +=
            double{matrix[i]->dense[size_t{r} * w.columns + k]} * input[k];
      }
    }
    return sums;
  }

  static double Apply(int activation, double v) {
    return activation == 0   ? v
           : activation == 1 ? std::max(v, 0.0)
           : activation == 2 ? 1 / (1 + std::exp(-v))
                             : std::tanh(v);
  }

  void Advance(const std::vector<double>& p, int gates, double* s,
               double* cell) const {
    const int units = shape.units;
    const std::vector<double> u = Product(1, s, inner_bias);
    std::vector<double> reset(units), after(units), candidate;
    const auto gate = [&](int g, int i) {
      return Apply(shape.gate, p[g * units + i] + u[g * units + i]);
    };
    if (shape.apart()) {
      for (int i = 0; i < units; ++i) reset[i] = gate(1, i) * s[i];
      candidate = Product(2, reset.data(), {});
    }
    for (int i = 0; i < units; ++i) {
      if (gates == 1) {
        after[i] = Apply(shape.activation, p[i] + u[i]);
      } else if (gates == 4) {
        const double g =
            Apply(shape.activation, p[2 * units + i] + u[2 * units + i]);
        cell[i] = gate(1, i) * cell[i] + gate(0, i) * g;
        if (shape.clip > 0) {
          cell[i] = std::min<double>(std::max<double>(cell[i], -shape.clip),
                                     shape.clip);
        }
        after[i] = gate(3, i) * Apply(shape.activation, cell[i]);
      } else {
        const double inner =
            shape.apart() ? candidate[i] : gate(1, i) * u[2 * units + i];
        const double n = Apply(shape.activation, p[2 * units + i] + inner);
        after[i] = gate(0, i) * s[i] + (1 - gate(0, i)) * n;
      }
    }
    std::copy(after.begin(), after.end(), s);
  }
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_TESTS_NATIVE_RECURRENT_CASE_H_
