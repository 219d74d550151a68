// SPDX-License-Identifier: Apache-2.0
#include "operators/tiling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <tuple>

#include "kernels/select.h"
#include "random_layer.h"

namespace tfrewprune {
namespace {

constexpr int kWidth = 1000, kMost = 1 << 20;

struct Read {
  int times;
  uint32_t tap_begin, tap_end;
};

// What the tiles read for every output pixel.
std::map<int64_t, Read> Pixels(const Tiling& tiling, int64_t most_pixels) {
  std::map<int64_t, Read> pixels;
  for (int i = 0; i < tiling.tiles(); ++i) {
    const Tile& tile = tiling.tile(i);
    EXPECT_NE(tile.kernel, nullptr);
    EXPECT_LE(tile.segments * tile.length, most_pixels);
    for (int s = 0; s < tile.segments; ++s) {
      const Segment& segment = tiling.segments(tile)[s];
      EXPECT_EQ(segment.input, 2 * segment.output);
      for (int p = 0; p < tile.length; ++p) {
        Read& read = pixels[segment.output + p];
        ++read.times;
        read.tap_begin = tile.tap_begin;
        read.tap_end = tile.tap_end;
      }
    }
  }
  return pixels;
}

TEST(TilingTest, EveryPixelOnceWithItsTaps) {
  std::mt19937 random(7);
  Tiling tiling;
  for (Isa isa : SupportedIsas()) {
    if (isa == Isa::kReference) continue;
    for (int repeat = 0; repeat < 500; ++repeat) {
      SCOPED_TRACE(testing::Message() << IsaName(isa) << " " << repeat);
      const uint32_t band_rows = 4u << random() % 4;
      const int64_t most = repeat % 3 == 0 ? 1 + random() % 20 : kMost;
      const int height = 1 + random() % 9, width = 1 + random() % 90;
      const int taps = 1 + random() % 4;
      const int top = random() % 4, bottom = random() % 4;
      ASSERT_EQ(tiling.Begin(*SelectKernels(isa), band_rows, most, 2, 1),
                nullptr);
      std::map<int64_t, Read> expected;
      for (int y = 0; y < height; ++y) {
        PixelRow row;
        row.output = y * kWidth;
        row.input = 2 * row.output;
        row.pixels = width;
        // Rows further in read more taps; some read none.
        row.tap_begin = std::min(taps, std::max(0, top - y));
        row.tap_end = std::max(
            row.tap_begin,
            std::min(taps, taps - std::max(0, bottom - (height - 1 - y))));
        if (random() % 16 == 0) row.tap_begin = row.tap_end = 0;
        ASSERT_TRUE(tiling.Add(row));
        for (int x = 0; x < row.pixels; ++x) {
          expected[row.output + x] = {1, static_cast<uint32_t>(row.tap_begin),
                                      static_cast<uint32_t>(row.tap_end)};
        }
      }
      ASSERT_TRUE(tiling.Flush());
      const std::map<int64_t, Read> got = Pixels(tiling, most);
      ASSERT_EQ(got.size(), expected.size());
      for (const auto& [output, read] : expected) {
        const Read& tile = got.at(output);
        ASSERT_EQ(std::tie(tile.times, tile.tap_begin, tile.tap_end),
                  std::tie(read.times, read.tap_begin, read.tap_end))
            << "pixel " << output;
      }
    }
  }
}

// The rows of a 7x7 image, whose tiles have 28 pixels on AVX-512.
TEST(TilingTest, RowsOfNarrowImagesFillTiles) {
  for (Isa isa : SupportedIsas()) {
    if (isa == Isa::kReference) continue;
    SCOPED_TRACE(IsaName(isa));
    const Kernels& kernels = *SelectKernels(isa);
    const int64_t most = TilePixels(kernels, 16, kMost);
    Tiling tiling;
    ASSERT_EQ(tiling.Begin(kernels, 16, kMost, 1, 1), nullptr);
    for (int y = 0; y < 28; ++y) {
      ASSERT_TRUE(tiling.Add({y * kWidth, y * kWidth, 7, 0, 3}));
    }
    ASSERT_TRUE(tiling.Flush());
    // As few as full ones, and a half.
    EXPECT_LE(2 * tiling.tiles() * most, 3 * 28 * 7);
  }
}

TEST(TilingTest, RefusesHeightsThatNoKernelHas) {
  Tiling tiling;
  for (Isa isa : SupportedIsas()) {
    const Kernels& kernels = *SelectKernels(isa);
    EXPECT_EQ(TilePixels(kernels, 5, kMost), 0);
    EXPECT_NE(tiling.Begin(kernels, 5, kMost, 1, 1), nullptr);
  }
}

}  // namespace
}  // namespace tfrewprune
