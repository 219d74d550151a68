// SPDX-License-Identifier: Apache-2.0
//
// Every entry of every kernel table against the formula of its contract, on
// every instruction set this machine supports.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/band.h"
#include "kernels/planar.h"
#include "kernels/select.h"
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
    for (uint32_t n = 0; n < start[2]; ++n) {
      offset.push_back(
          static_cast<int32_t>(sizeof(float) * (random() % kReach)));
      column.push_back(offset.back() / sizeof(float));
      column16.push_back(static_cast<uint16_t>(column.back()));
      for (int r = 0; r < height; ++r) value.push_back(uniform());
    }
    for (int r = 0; r < height; ++r) row.push_back(height + r);
    for (int r = 0; r < height; ++r) {
      row.push_back(r % 5 == 3 ? -1 : height - 1 - r);
    }
    for (int r = 0; r < 2 * height; ++r) bias.push_back(uniform());
    full_run = {1, 0};
    for (int i = 0; i < kInput; ++i) input.push_back(uniform());
  }

  // The sum for a lane of a band, over columns [begin, end) of it, at the
  // input pixel that starts at input[x]; clamped.
  float Expected(int band, int lane, uint32_t begin, uint32_t end,
                 int64_t x) const {
    double sum = bias[band * height + lane];
    for (uint32_t n = begin; n < end; ++n) {
      sum += double{input[x + column[n]]} * value[n * height + lane];
    }
    return std::min(kMaximum, std::max(kMinimum, static_cast<float>(sum)));
  }

  // What the two families' layers have in common.
  template <class T>
  T Layer() const {
    T layer = {};
    layer.value = value.data();
    layer.bias = bias.data();
    layer.row = row.data();
    layer.full_run = full_run.data();
    layer.minimum = kMinimum;
    layer.maximum = kMaximum;
    return layer;
  }

  static constexpr int kReach = 50;
  static constexpr int kInput = 6000;
  static constexpr float kMinimum = -1.5f, kMaximum = 1.25f;
  int height;
  std::vector<uint32_t> start, column;
  std::vector<uint16_t> column16;
  std::vector<int32_t> offset, row;
  std::vector<float> value, bias, input;
  std::vector<uint8_t> full_run;
};

// Every used lane of both bands at the first `pixels` of every segment of `y`
// is what `expected(band, lane, segment, pixel)` says, and nothing else is
// written.
template <class Function>
void CheckPixels(const Bands& b, const std::vector<Segment>& segments,
                 int pixels, int output_pixel, const std::vector<float>& y,
                 float tolerance, Function expected) {
  size_t written = 0;
  for (const Segment& segment : segments) {
    for (int p = 0; p < pixels; ++p) {
      for (int band = 0; band < 2; ++band) {
        for (int lane = 0; lane < b.height; ++lane) {
          const int row = b.row[band * b.height + lane];
          if (row < 0) continue;
          ++written;
          ASSERT_NEAR(y[segment.output + p * output_pixel + row],
                      expected(band, lane, segment, p), tolerance);
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
    for (int i = 0; i < kernels->band_count; ++i) {
      const BandKernelRow& entry = kernels->band[i];
      for (int segments = 1; segments <= entry.max_segments; ++segments) {
        const int kept = kKept[(i + segments) % 5];
        SCOPED_TRACE(testing::Message()
                     << IsaName(isa) << " R " << entry.band_rows << " length "
                     << entry.length << " segments " << segments << " kept "
                     << kept);
        Bands b(entry.band_rows, kept, i * 100 + segments);
        const int pixel = 3, output_pixel = 2 * b.height + 5;
        BandLayer layer = b.Layer<BandLayer>();
        layer.output_stride = output_pixel;
        layer.band_start = b.start.data();
        layer.offset = b.offset.data();
        layer.pixel_stride = pixel * sizeof(float);
        std::vector<Segment> segment;
        for (int g = 0; g < segments; ++g) {
          // Uneven distances: every segment has a base of its own.
          segment.push_back({g * 97 + g * g, int64_t{g} * output_pixel * 40});
        }
        std::vector<float> y(size_t(segments) * output_pixel * 40, NAN);
        entry.kernel[segments - 1](layer, 0, 2, b.input.data(), y.data(),
                                   segment.data());
        ASSERT_NO_FATAL_FAILURE(CheckPixels(
            b, segment, entry.length, output_pixel, y, Tolerance(kept + 1),
            [&](int band, int lane, const Segment& from, int p) {
              return b.Expected(band, lane, b.start[band], b.start[band + 1],
                                from.input + p * pixel);
            }));
      }
    }
  }
}

TEST(KernelsTest, PlanarTilesComputeTheirFormula) {
  for (Isa isa : SupportedIsas()) {
    const Kernels* kernels = SelectKernels(isa);
    for (int i = 0; i < kernels->planar_count; ++i) {
      const PlanarKernelRow& entry = kernels->planar[i];
      for (int segments = 1; segments <= entry.max_segments; ++segments) {
        const int kept = kKept[(i + segments) % 5];
        const int last = 1 + (i + segments) % entry.unit;
        SCOPED_TRACE(testing::Message()
                     << IsaName(isa) << " R " << entry.band_rows << " unit "
                     << entry.unit << " length " << entry.length << " segments "
                     << segments << " kept " << kept << " last " << last);
        Bands b(entry.band_rows, kept, i * 100 + segments);
        const int output_pixel = 2 * b.height + 5;
        // Channels and taps of a column, and where they lie in the planes.
        constexpr int kChannels = 17, kStride = 3;
        constexpr int kTapFirst[] = {4, 0, 11};
        ptrdiff_t tap_offset[3];
        for (int t = 0; t < 3; ++t) {
          tap_offset[t] = (kTapFirst[t] - t * kChannels * kStride) *
                          static_cast<ptrdiff_t>(sizeof(float));
        }
        for (size_t n = 0; n < b.column.size(); ++n) {
          b.column[n] = b.column16[n] % kChannels * kStride +
                        kTapFirst[b.column16[n] / kChannels];
        }
        // Three kernel rows: [a, b), [b, c), [c, end) of every band.
        std::vector<uint32_t> start;
        for (int band = 0; band < 2; ++band) {
          const uint32_t n = b.start[band + 1] - b.start[band];
          for (uint32_t part : {0u, n / 4, n / 2, n}) {
            start.push_back(b.start[band] + part);
          }
        }
        PlanarLayer layer = b.Layer<PlanarLayer>();
        layer.output_stride = output_pixel;
        layer.start = start.data();
        layer.start_stride = 4;
        layer.column = b.column16.data();
        layer.channel_stride = kStride * sizeof(float);
        layer.tap_scale = TapScale(kChannels);
        layer.tap_offset = tap_offset;
        const int pixels = (entry.length - 1) * entry.unit + last;
        std::vector<Segment> segment;
        for (int g = 0; g < segments; ++g) {
          segment.push_back({g * 131 + g * g, int64_t{g} * output_pixel * 130});
        }
        for (uint32_t tap = 0; tap < 3; ++tap) {
          const uint32_t tap_end = tap == 0 ? 3 : 2;
          std::vector<float> y(size_t(segments) * output_pixel * 130, NAN);
          entry.kernel[segments - 1](layer, 0, 2, tap, tap_end, last,
                                     b.input.data(), y.data(), segment.data());
          ASSERT_NO_FATAL_FAILURE(CheckPixels(
              b, segment, pixels, output_pixel, y, Tolerance(kept + 1),
              [&](int band, int lane, const Segment& from, int p) {
                return b.Expected(band, lane, start[band * 4 + tap],
                                  start[band * 4 + tap_end], from.input + p);
              }));
        }
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

TEST(KernelsTest, GemvComputesItsFormula) {
  for (Isa isa : SupportedIsas()) {
    const Kernels* kernels = SelectKernels(isa);
    for (int i = 0; i < kernels->gemv_count; ++i) {
      const GemvKernelRow& entry = kernels->gemv[i];
      for (int kept : {0, 1, 3, 7, 8, 9, 65}) {
        SCOPED_TRACE(testing::Message()
                     << IsaName(isa) << " R " << entry.band_rows << " index "
                     << entry.index_bytes << " kept " << kept);
        Bands b(entry.band_rows, kept, kept);
        GemvLayer layer = b.Layer<GemvLayer>();
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
      for (int i = 0; i < kernels->band_count; ++i) {
        single_pixel += kernels->band[i].band_rows == height &&
                        kernels->band[i].length == 1;
      }
      EXPECT_EQ(single_pixel, 1) << IsaName(isa) << " R " << height;
      EXPECT_NE(SelectGemv(*kernels, height, 2), nullptr);
      EXPECT_NE(SelectGemv(*kernels, height, 4), nullptr);
    }
  }
}

}  // namespace
}  // namespace tfrewprune
