// SPDX-License-Identifier: Apache-2.0
//
// Random irregular layers for the native tests: the view, its storage, and the
// same weights as a dense matrix (the tests' own oracle).
#ifndef TFREWPRUNE_TESTS_NATIVE_RANDOM_IRREGULAR_H_
#define TFREWPRUNE_TESTS_NATIVE_RANDOM_IRREGULAR_H_

#include <vector>

#include "format/irregular.h"
#include "random_layer.h"

namespace tfrewprune {

struct RandomIrregularOptions {
  uint32_t rows = 24;
  uint32_t channels = 16;
  uint32_t taps = 9;
  uint32_t chunk_channels = 8;
  double keep = 0.2;
  bool patterns = false;   // whole kernels kept, 4 taps each
  uint32_t idle_rows = 0;  // every idle_rows-th row keeps nothing
  uint32_t seed = 1;
};

class RandomIrregular {
 public:
  explicit RandomIrregular(const RandomIrregularOptions& o) : random(o.seed) {
    const uint32_t columns = o.channels * o.taps;
    dense.assign(size_t{o.rows} * columns, 0.0f);
    std::vector<std::vector<bool>> kept(o.rows,
                                        std::vector<bool>(columns, false));
    for (uint32_t r = 0; r < o.rows; ++r) {
      if (o.idle_rows != 0 && r % o.idle_rows == 0) continue;
      for (uint32_t c = 0; c < o.channels; ++c) {
        if (o.patterns && Chance() >= o.keep) continue;
        for (uint32_t t = 0; t < o.taps; ++t) {
          kept[r][c * o.taps + t] =
              o.patterns ? random() % o.taps < 4 : Chance() < o.keep;
        }
      }
    }
    std::vector<uint32_t> row, column;
    start_.push_back(0);
    for (uint32_t c0 = 0; c0 < o.channels; c0 += o.chunk_channels) {
      const uint32_t end = std::min(o.channels, c0 + o.chunk_channels) * o.taps;
      for (uint32_t r = 0; r < o.rows; ++r) {
        for (uint32_t k = c0 * o.taps; k < end; ++k) {
          if (!kept[r][k]) continue;
          const float w = RandomWeight(&random);
          column.push_back(k);
          value_.push_back(w);
          dense[size_t{r} * columns + k % o.taps * o.channels + k / o.taps] = w;
        }
        if (column.size() == start_.back()) continue;
        row.push_back(r);
        start_.push_back(static_cast<uint32_t>(column.size()));
      }
    }
    row16_.assign(row.begin(), row.end());
    row32_ = row;
    column16_.assign(column.begin(), column.end());
    column32_ = column;
    const bool narrow = o.rows <= 65535 && columns <= 65536;
    view.rows = o.rows;
    view.columns = columns;
    view.taps = o.taps;
    view.chunk_channels = o.chunk_channels;
    view.segment_count = static_cast<uint32_t>(row.size());
    view.weight_count = column.size();
    view.index_bytes = narrow ? 2 : 4;
    view.row_id =
        narrow ? static_cast<const void*>(row16_.data()) : row32_.data();
    view.column =
        narrow ? static_cast<const void*>(column16_.data()) : column32_.data();
    view.segment_start = start_.data();
    view.value = value_.data();
  }

  std::vector<float> Values(size_t count) {
    std::vector<float> values(count);
    for (float& v : values) {
      v = std::uniform_real_distribution<float>(-1, 1)(random);
    }
    return values;
  }

  std::mt19937 random;
  IrregularView view = {};
  std::vector<float> dense;  // [rows x columns], columns (tap, channel)

 private:
  double Chance() {
    return std::uniform_real_distribution<double>(0, 1)(random);
  }

  std::vector<uint32_t> start_;
  std::vector<float> value_;
  std::vector<uint16_t> row16_, column16_;
  std::vector<uint32_t> row32_, column32_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_TESTS_NATIVE_RANDOM_IRREGULAR_H_
