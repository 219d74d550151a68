// SPDX-License-Identifier: Apache-2.0
//
// Every entry of every kernel table against the formula of its contract, on
// every instruction set this machine supports.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "isa/denormals.h"
#include "kernels/direct.h"
#include "kernels/flat.h"
#include "kernels/planes.h"
#include "kernels/select.h"
#include "operators/buffer.h"
#include "random_layer.h"

namespace tfrewprune {
namespace {

// Two bands: one whose rows follow each other in the output, one scattered
// with unused lanes; `kept` columns in the first, one more in the second.
struct Bands {
  Bands(int band_rows, int kept, uint32_t seed) : height(band_rows) {
    std::mt19937 random(seed);
    auto uniform = [&] {
      return std::uniform_real_distribution<float>(-1.0f, 1.0f)(random);
    };
    start = {0, static_cast<uint32_t>(kept),
             static_cast<uint32_t>(2 * kept + 1)};
    for (int band = 0; band < 2; ++band) {
      const uint32_t n = start[band + 1] - start[band];
      for (uint32_t part : {0u, n / 4, n / 2, n}) {
        row_start.push_back(start[band] + part);
      }
    }
    for (uint32_t n = 0; n < start[2]; ++n) {
      offset.push_back(
          static_cast<int32_t>(sizeof(float) * (random() % kReach)));
      column.push_back(offset.back() / sizeof(float));
      column16.push_back(static_cast<uint16_t>(column.back()));
      for (int r = 0; r < height; ++r) value.push_back(RandomWeight(&random));
    }
    for (int r = 0; r < height; ++r) row.push_back(height + r);
    for (int r = 0; r < height; ++r) {
      row.push_back(r % 5 == 3 ? -1 : height - 1 - r);
    }
    for (int r = 0; r < 2 * height; ++r) bias.push_back(uniform());
    full_run = {1, 0};
    offset.insert(offset.end(), 2, -1);  // read, never used
    for (int i = 0; i < kInput; ++i) input.push_back(uniform());
    // Kernels may leave out what a clamp does not do.
    if (random() % 2) minimum = -INFINITY;
    if (random() % 2) maximum = INFINITY;
  }

  // The sum for a lane of a band, over columns [begin, end) of it, at the
  // input pixel that starts at input[x]; clamped.
  float Expected(int band, int lane, uint32_t begin, uint32_t end,
                 int64_t x) const {
    double sum = bias[band * height + lane];
    for (uint32_t n = begin; n < end; ++n) {
      sum += double{input[x + column[n]]} * value[n * height + lane];
    }
    return std::min(maximum, std::max(minimum, static_cast<float>(sum)));
  }

  // What the two families' layers have in common.
  template <class T>
  T Layer() const {
    T layer = {};
    layer.value = value.data();
    layer.bias = bias.data();
    layer.row = row.data();
    layer.full_run = full_run.data();
    layer.minimum = minimum;
    layer.maximum = maximum;
    return layer;
  }

  static constexpr int kReach = 50;
  static constexpr int kInput = 6000;
  float minimum = -1.5f, maximum = 1.25f;
  int height;
  std::vector<uint32_t> start, column;
  // Three kernel rows: [a, b), [b, c), [c, end) of every band.
  std::vector<uint32_t> row_start;
  std::vector<uint16_t> column16;
  std::vector<int32_t> offset, row;
  std::vector<float> value, bias, input;
  std::vector<uint8_t> full_run;
};

// Some pixels of `y`: `pixels` of them, `stride` floats apart.
struct PixelRun {
  Segment segment;
  int pixels;
  int64_t stride;
};

// Every used lane of both bands at the pixels of every run of `y` is what
// `expected(band, lane, run, pixel)` says, and nothing else is written.
template <class Function>
void CheckPixels(const Bands& b, const std::vector<PixelRun>& runs,
                 const std::vector<float>& y, float tolerance,
                 Function expected) {
  size_t written = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (int p = 0; p < runs[i].pixels; ++p) {
      for (int band = 0; band < 2; ++band) {
        for (int lane = 0; lane < b.height; ++lane) {
          const int row = b.row[band * b.height + lane];
          if (row < 0) continue;
          ++written;
          ASSERT_NEAR(y[runs[i].segment.output + p * runs[i].stride + row],
                      expected(band, lane, i, p), tolerance)
              << "run " << i;
        }
      }
    }
  }
  for (float v : y) written -= !std::isnan(v);
  ASSERT_EQ(written, 0u) << "wrote where it must not";
}

constexpr int kKept[] = {0, 1, 2, 7, 64};

TEST(KernelsTest, BandTilesComputeTheirFormula) {
  for (Isa isa : SupportedIsas()) {
    const Kernels* kernels = SelectKernels(isa);
    for (int i = 0; i < kernels->direct_count; ++i) {
      const DirectKernelRow& entry = kernels->direct[i];
      for (int segments = 1; segments <= entry.max_segments; ++segments) {
        const int kept = kKept[(i + segments) % 5];
        SCOPED_TRACE(testing::Message()
                     << IsaName(isa) << " R " << entry.band_rows << " length "
                     << entry.length << " segments " << segments << " kept "
                     << kept);
        Bands b(entry.band_rows, kept, i * 100 + segments);
        const int pixel = 3, output_pixel = 2 * b.height + 5;
        DirectLayer layer = b.Layer<DirectLayer>();
        layer.output_stride = output_pixel;
        layer.start = b.row_start.data();
        layer.start_stride = 4;
        layer.offset = b.offset.data();
        layer.pixel_stride = pixel * sizeof(float);
        std::vector<Segment> segment;
        for (int g = 0; g < segments; ++g) {
          // Uneven distances: every segment has a base of its own.
          segment.push_back({g * 97 + g * g, int64_t{g} * output_pixel * 40});
        }
        std::vector<PixelRun> runs;
        for (const Segment& s : segment) {
          runs.push_back({s, entry.length, output_pixel});
        }
        for (uint32_t tap = 0; tap < 3; ++tap) {
          const uint32_t tap_end = tap == 0 ? 3 : 2;
          std::vector<float> y(size_t(segments) * output_pixel * 40, NAN);
          entry.kernel[segments - 1](layer, 0, 2, tap, tap_end, b.input.data(),
                                     y.data(), segment.data());
          ASSERT_NO_FATAL_FAILURE(CheckPixels(
              b, runs, y, Tolerance(kept + 1),
              [&](int band, int lane, size_t run, int p) {
                return b.Expected(band, lane, b.row_start[band * 4 + tap],
                                  b.row_start[band * 4 + tap_end],
                                  runs[run].segment.input + p * pixel);
              }));
        }
      }
    }
  }
}

// Whole groups of bands, parts of them, and bands without an order.
TEST(KernelsTest, FlatRunsComputeTheirFormula) {
  constexpr int kChannels = 17, kStride = 3;
  constexpr int kTapFirst[] = {4, 0, 11};
  ptrdiff_t tap_offset[3];
  for (int t = 0; t < 3; ++t) {
    tap_offset[t] = (kTapFirst[t] - t * kChannels * kStride) *
                    static_cast<ptrdiff_t>(sizeof(float));
  }
  std::mt19937 random(3);
  for (Isa isa : SupportedIsas()) {
    const Kernels* kernels = SelectKernels(isa);
    for (int i = 0; i < kernels->flat_count; ++i) {
      const FlatKernelRow& entry = kernels->flat[i];
      for (int repeat = 0; repeat < 12 * entry.max_units; ++repeat) {
        const int units = 1 + repeat % entry.max_units;
        SCOPED_TRACE(testing::Message()
                     << IsaName(isa) << " R " << entry.band_rows << " repeat "
                     << repeat);
        const int height = entry.band_rows, bands = 1 + repeat % 9;
        const int rows = (bands + 2) * height;
        std::vector<uint32_t> start = {0};
        std::vector<uint16_t> column;
        std::vector<float> value, bias, input(1000);
        std::vector<int32_t> row;
        std::vector<uint8_t> full_run;
        int next_row = random() % height;
        for (int b = 0; b < bands; ++b) {
          for (int n = kKept[random() % 4]; n > 0; --n) {
            column.push_back(random() % (3 * kChannels));
            for (int r = 0; r < height; ++r) {
              value.push_back(random() % 9 - 4.0f);
            }
          }
          start.push_back(static_cast<uint32_t>(column.size()));
          full_run.push_back(random() % 4 != 0);
          for (int r = 0; r < height; ++r) {
            bias.push_back(random() % 9 - 4.0f);
            const int other = height - 1 - r;
            row.push_back(full_run[b]         ? next_row + r
                          : random() % 3 == 0 ? -1
                                              : next_row + other);
          }
          next_row += height;
          if (next_row + (bands - b) * height <= rows && random() % 5 == 0) {
            ++next_row;
          }
        }
        for (float& v : input) v = random() % 9 - 4.0f;
        // Three kernel rows: [a, b), [b, c), [c, end) of every band.
        std::vector<uint32_t> rows_start;
        for (int b = 0; b < bands; ++b) {
          const uint32_t n = start[b + 1] - start[b];
          for (uint32_t part : {0u, n / 4, n / 2, n}) {
            rows_start.push_back(start[b] + part);
          }
        }
        PlanesLayer layer = {};
        layer.value = value.data();
        layer.start = rows_start.data();
        layer.start_stride = 4;
        layer.column = column.data();
        layer.channel_stride = kStride * sizeof(float);
        layer.tap_scale = TapScale(kChannels);
        layer.tap_offset = tap_offset;
        layer.bias = bias.data();
        layer.row = row.data();
        layer.full_run = full_run.data();
        layer.output_stride = rows + 3;
        layer.minimum = -20;
        layer.maximum = 30;
        FlatRun run = {};
        run.input = 7;
        run.output = 11;
        run.units = units;
        run.tap_begin = random() % 2;
        run.tap_end = 3 - random() % 2;
        std::vector<int> pixel;  // stored ones
        for (int p = 0; p < units * kFlatUnit; ++p) {
          if (repeat % 3 != 0 && random() % 4 == 0) continue;
          run.stored[p / kFlatUnit] |=
              static_cast<uint16_t>(1u << p % kFlatUnit);
          pixel.push_back(p);
        }
        const uint32_t begin = random() % 2, end = bands - random() % 2;
        std::vector<float> y(11 + (pixel.size() + 1) * (rows + 3), NAN);
        Buffer<float> stage;
        ASSERT_TRUE(stage.Allocate(size_t{16} * kFlatUnit * units));
        entry.kernel[units - 1](layer, begin, end, run, input.data(), y.data(),
                                stage.get());
        size_t written = 0;
        for (size_t n = 0; n < pixel.size(); ++n) {
          for (uint32_t b = begin; b < end; ++b) {
            for (int r = 0; r < height; ++r) {
              const size_t lane = b * height + r;
              if (row[lane] < 0) continue;
              ++written;
              float sum = bias[lane];
              for (uint32_t c = rows_start[4 * b + run.tap_begin];
                   c < rows_start[4 * b + run.tap_end]; ++c) {
                sum += input[run.input + pixel[n] +
                             column[c] % kChannels * kStride +
                             kTapFirst[column[c] / kChannels]] *
                       value[c * height + r];
              }
              sum = std::min(layer.maximum, std::max(layer.minimum, sum));
              ASSERT_EQ(y[run.output + n * (rows + 3) + row[lane]], sum);
            }
          }
        }
        for (float v : y) written -= !std::isnan(v);
        ASSERT_EQ(written, 0u) << "wrote where it must not";
      }
    }
  }
}

TEST(KernelsTest, TapsOfAllColumns) {
  for (uint32_t channels = 1; channels <= 65536;
       channels += 1 + channels * channels / 1000) {
    const uint64_t scale = TapScale(channels);
    for (uint64_t column = 0; column < 65536; ++column) {
      ASSERT_EQ(column * scale >> 32, column / channels) << channels;
    }
  }
}

TEST(KernelsTest, TransposesEveryShape) {
  for (Isa isa : SupportedIsas()) {
    const Kernels* kernels = SelectKernels(isa);
    if (kernels->transpose == nullptr) continue;
    for (int channels : {1, 3, 15, 16, 17, 31, 32, 33, 48, 257}) {
      for (int pixels : {0, 1, 2, 7, 8, 9, 15, 16, 17, 28, 33}) {
        for (int stride : {channels, channels + 5, 512}) {
          if (stride < channels) continue;
          for (int zeros : {0, 1, 7, 8, 31}) {
            SCOPED_TRACE(testing::Message()
                         << IsaName(isa) << " " << channels << " " << pixels
                         << " " << stride << " " << zeros);
            const int rows = 3, row = pixels * stride + 2;
            const int out_row = pixels + zeros + 1, plane = rows * out_row + 4;
            std::vector<float> in(rows * row);
            std::iota(in.begin(), in.end(), 1.0f);
            std::vector<float> out(channels * plane, NAN);
            kernels->transpose({in.data(), stride, row, rows, pixels, zeros,
                                channels, out.data(), plane, out_row});
            for (int c = 0; c < channels; ++c) {
              for (int i = 0; i < plane; ++i) {
                const int r = i / out_row, p = i % out_row;
                const float got = out[c * plane + i];
                if (r < rows && p < pixels + zeros) {
                  ASSERT_EQ(got,
                            p < pixels ? in[r * row + p * stride + c] : 0.0f);
                } else {
                  ASSERT_TRUE(std::isnan(got));
                }
              }
            }
          }
        }
      }
    }
  }
}

// The smallest halves are no normal numbers: they must not become 0 where an
// operator flushes.
TEST(KernelsTest, WidenIsExactForEveryHalf) {
  std::vector<Half> halves;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    halves.push_back({static_cast<uint16_t>(bits)});
  }
  for (Isa isa : SupportedIsas()) {
    const WidenKernel widen = SelectKernels(isa)->widen;
    for (size_t count : {size_t{65536}, size_t{1031}, size_t{3}, size_t{0}}) {
      SCOPED_TRACE(testing::Message() << IsaName(isa) << " " << count);
      std::vector<float> to(count + 1, 7.0f);
      {
        const FlushDenormals flush;
        widen(halves.data(), count, to.data());
      }
      for (size_t i = 0; i < count; ++i) {
        const float expected = ValueOfHalf(halves[i]);
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(to[i])) << i;
        } else {
          ASSERT_EQ(to[i], expected) << i;
          ASSERT_EQ(std::signbit(to[i]), i >= 32768) << i;
        }
      }
      ASSERT_EQ(to[count], 7.0f) << "wrote past the end";
    }
  }
}

TEST(KernelsTest, WidenIntegersScalesEveryInteger) {
  std::vector<int8_t> integers;
  for (int i = 0; i < 256; ++i) integers.push_back(static_cast<int8_t>(i));
  std::vector<float> scale;
  for (int i = 0; i < kScales; ++i) {
    scale.push_back(0.01f * static_cast<float>(1 + i));
  }
  for (Isa isa : SupportedIsas()) {
    for (size_t count : {size_t{256}, size_t{75}, size_t{3}, size_t{0}}) {
      SCOPED_TRACE(testing::Message() << IsaName(isa) << " " << count);
      std::vector<float> to(count + 1, 7.0f);
      SelectKernels(isa)->widen_integers(integers.data(), count, scale.data(),
                                         to.data());
      for (size_t i = 0; i < count; ++i) {
        ASSERT_EQ(to[i], float(integers[i]) * scale[i % kScales]) << i;
      }
      ASSERT_EQ(to[count], 7.0f) << "wrote past the end";
    }
  }
}

TEST(KernelsTest, GemvComputesItsFormula) {
  for (Isa isa : SupportedIsas()) {
    const Kernels* kernels = SelectKernels(isa);
    for (int i = 0; i < kernels->gemv_count; ++i) {
      const GemvKernelRow& entry = kernels->gemv[i];
      for (int kept : {0, 1, 3, 7, 8, 9, 65}) {
        SCOPED_TRACE(testing::Message()
                     << IsaName(isa) << " R " << entry.band_rows << " index "
                     << entry.index_bytes << " value_type "
                     << static_cast<int>(entry.value_type) << " kept " << kept);
        Bands b(entry.band_rows, kept, kept);
        GemvLayer layer = b.Layer<GemvLayer>();
        const std::vector<Half> halves =
            HalvesOf(b.value.data(), b.value.size());
        if (entry.value_type == ValueType::kFloat16) {
          layer.value = halves.data();
        }
        std::vector<int8_t> integers;
        std::vector<float> scale;
        if (entry.value_type == ValueType::kInt8) {
          for (int i = 0; i < 2 * kScales; ++i) {
            const int lane = i / kScales * b.height + i % b.height;
            scale.push_back((1 + lane % 5) / 256.0f);
          }
          for (size_t i = 0; i < b.value.size(); ++i) {
            const size_t band = i / b.height >= b.start[1] ? 1 : 0;
            const float s = scale[band * kScales + i % b.height];
            integers.push_back(static_cast<int8_t>(
                std::lround(std::fmax(-127, std::fmin(127, b.value[i] / s)))));
            b.value[i] = integers.back() * s;  // what is expected
          }
          layer.value = integers.data();
          layer.scale = scale.data();
        }
        layer.band_start = b.start.data();
        layer.column = entry.index_bytes == 2
                           ? static_cast<const void*>(b.column16.data())
                           : b.column.data();
        std::vector<float> y(2 * b.height + 5, NAN);
        entry.kernel(layer, 0, 2, b.input.data(), y.data());
        size_t written = 0;
        for (int band = 0; band < 2; ++band) {
          for (int lane = 0; lane < b.height; ++lane) {
            const int row = b.row[band * b.height + lane];
            if (row < 0) continue;
            ++written;
            ASSERT_NEAR(
                y[row],
                b.Expected(band, lane, b.start[band], b.start[band + 1], 0),
                Tolerance(kept + 1));
          }
        }
        for (float v : y) written -= !std::isnan(v);
        ASSERT_EQ(written, 0u) << "wrote where it must not";
      }
    }
  }
}

TEST(KernelsTest, EveryInstructionSetHasEveryHeight) {
  for (Isa isa : SupportedIsas()) {
    if (isa == Isa::kReference) continue;
    const Kernels* kernels = SelectKernels(isa);
    for (int height : {4, 8, 16, 32}) {
      int single_pixel = 0;
      for (int i = 0; i < kernels->direct_count; ++i) {
        single_pixel += kernels->direct[i].band_rows == height &&
                        kernels->direct[i].length == 1;
      }
      EXPECT_EQ(single_pixel, 1) << IsaName(isa) << " R " << height;
      for (ValueType type : {ValueType::kFloat32, ValueType::kFloat16}) {
        EXPECT_NE(SelectGemv(*kernels, height, 2, type), nullptr);
        EXPECT_NE(SelectGemv(*kernels, height, 4, type), nullptr);
      }
      EXPECT_NE(SelectGemv(*kernels, height, 2, ValueType::kInt8), nullptr);
    }
  }
}

}  // namespace
}  // namespace tfrewprune
