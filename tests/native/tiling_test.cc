// SPDX-License-Identifier: Apache-2.0
#include "operators/tiling.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>
#include <vector>

namespace tfrewprune {
namespace {

constexpr int kUnit = 2, kWidth = 1000;

// Kernels of one to five units with and without part-time segments, and some
// with a run down a column.
std::vector<TileShape> Shapes() {
  std::vector<TileShape> shapes;
  for (int length = 1; length <= 5; ++length) {
    for (int part = 0; part <= (length > 1 ? 2 : 0); ++part) {
      const int segments = 12 / length;
      shapes.push_back({length, segments, 6.0, part, 0});
    }
  }
  for (int part = 0; part <= 1; ++part) {
    shapes.push_back({3, 3, 6.0, part, 4});
    shapes.push_back({2, 4, 6.0, part, 3});
  }
  return shapes;
}

struct Read {
  int times, tap_begin, tap_end;
};

// What the tiles read for every output pixel.
std::map<int64_t, Read> Pixels(const Tiling& tiling,
                               const std::vector<TileShape>& shapes) {
  std::map<int64_t, Read> pixels;
  const auto add = [&](int64_t output, int begin, int end) {
    Read& read = pixels[output];
    ++read.times;
    read.tap_begin = begin;
    read.tap_end = end;
  };
  for (int i = 0; i < tiling.tiles(); ++i) {
    const Tile& tile = tiling.tile(i);
    const TileShape& shape = shapes[tile.shape];
    const Segment* segment = tiling.segments(tile);
    EXPECT_LE(tile.segments, shape.max_segments);
    EXPECT_TRUE(tile.segments + tile.down > shape.part);
    for (int s = 0; s < tile.segments; ++s) {
      EXPECT_EQ(segment[s].input, segment[s].output);
      EXPECT_EQ(tile.length, (shape.length - 1) * kUnit + tile.last);
      const bool part = s < shape.part;
      for (int p = 0; p < tile.length; ++p) {
        add(segment[s].output + p, part ? tile.part_begin : tile.tap_begin,
            part ? tile.part_end : tile.tap_end);
      }
    }
    if (!tile.down) continue;
    const int units = tile.segments > 0 ? shape.down : shape.length;
    EXPECT_EQ(tile.down_pixels, (units - 1) * kUnit + tile.down_last);
    for (int p = 0; p < tile.down_pixels; ++p) {
      add(segment[tile.segments].output + p * kWidth, tile.tap_begin,
          tile.tap_end);
    }
  }
  return pixels;
}

TEST(TilingTest, EveryPixelOnceWithItsTaps) {
  const std::vector<TileShape> shapes = Shapes();
  std::mt19937 random(7);
  Tiling tiling;
  for (int repeat = 0; repeat < 2000; ++repeat) {
    SCOPED_TRACE(repeat);
    const int height = 1 + random() % 9, width = 1 + random() % 25;
    const int taps = 1 + random() % 4;
    const int top = random() % 4, bottom = random() % 4;
    tiling.Begin(shapes.data(), static_cast<int>(shapes.size()), kUnit, 1, 1);
    const bool down = random() % 2 == 0 && height > 1;
    bool takes_down = false;
    if (down) {
      takes_down = tiling.AddDown({width - 1, width - 1}, height, taps);
      EXPECT_TRUE(takes_down);
    }
    std::map<int64_t, Read> expected;
    for (int y = 0; y < height; ++y) {
      PixelRow row;
      row.input = row.output = y * kWidth;
      row.pixels = width - takes_down;
      // Rows further in read more taps; some read none.
      row.tap_begin = std::min(taps, std::max(0, top - y));
      row.tap_end = std::max(
          row.tap_begin,
          std::min(taps, taps - std::max(0, bottom - (height - 1 - y))));
      if (random() % 16 == 0) row.tap_begin = row.tap_end = 0;
      ASSERT_TRUE(tiling.Add(row));
      for (int x = 0; x < row.pixels; ++x) {
        expected[row.output + x] = {1, row.tap_begin, row.tap_end};
      }
      if (takes_down) expected[row.output + width - 1] = {1, 0, taps};
    }
    ASSERT_TRUE(tiling.Flush());
    const std::map<int64_t, Read> got = Pixels(tiling, shapes);
    ASSERT_EQ(got.size(), expected.size());
    for (const auto& [output, read] : expected) {
      const Read& tile = got.at(output);
      ASSERT_EQ(std::tie(tile.times, tile.tap_begin, tile.tap_end),
                std::tie(read.times, read.tap_begin, read.tap_end))
          << "pixel " << output;
    }
  }
}

// The rows of a 7x7 image, a 3x3 kernel: two tiles of 12 units.
TEST(TilingTest, BorderRowsAndTheLastColumnFillTiles) {
  const std::vector<TileShape> shapes = Shapes();
  Tiling tiling;
  tiling.Begin(shapes.data(), static_cast<int>(shapes.size()), kUnit, 1, 1);
  ASSERT_TRUE(tiling.AddDown({6, 6}, 7, 3));
  for (int y = 0; y < 7; ++y) {
    ASSERT_TRUE(
        tiling.Add({y * kWidth, y * kWidth, 6, y == 0, y == 6 ? 2 : 3}));
  }
  ASSERT_TRUE(tiling.Flush());
  ASSERT_EQ(tiling.tiles(), 2);
  EXPECT_EQ(tiling.tile(0).segments, 4);
  EXPECT_EQ(shapes[tiling.tile(0).shape].part, 1);
  EXPECT_FALSE(tiling.tile(0).down);
  EXPECT_EQ(tiling.tile(1).segments, 3);
  EXPECT_EQ(shapes[tiling.tile(1).shape].part, 1);
  EXPECT_TRUE(tiling.tile(1).down);
}

TEST(TilingTest, RefusesARunDownThatIsTooLong) {
  const std::vector<TileShape> shapes = Shapes();
  Tiling tiling;
  tiling.Begin(shapes.data(), static_cast<int>(shapes.size()), kUnit, 1, 1);
  EXPECT_FALSE(tiling.AddDown({0, 0}, 11, 3));
  EXPECT_FALSE(tiling.AddDown({0, 0}, 1000, 3));
}

}  // namespace
}  // namespace tfrewprune
