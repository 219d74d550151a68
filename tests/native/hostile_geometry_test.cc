// SPDX-License-Identifier: Apache-2.0
//
// Geometries that no network has, but a file may claim: preparing a layer takes
// time and memory in proportion to its payload and activations.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "every_driver.h"
#include "random_irregular.h"

namespace tfrewprune {
namespace {

struct Hostile {
  const char* name;
  ConvGeometry geometry;  // the padding is resolved afterwards
  bool same;
};

constexpr int kVast = 1 << 20;

const Hostile kHostile[] = {
    {"strides times rows",
     {1, 1000000, 1, 1, 0, 0, 3, 3, 1, kVast, 1, 1, 0, 0},
     true},
    {"strides times pixels",
     {1, 1, 1000000, 1, 0, 0, 3, 3, kVast, 1, 1, 1, 0, 0},
     true},
    {"vast strides", {1, 9, 9, 4, 0, 0, 3, 3, kVast, kVast, 1, 1, 0, 0}, true},
    {"vast dilation of a small image",
     {1, 40, 40, 1, 0, 0, 3, 3, 1, 1, 20000, 20000, 0, 0},
     true},
    {"vast dilation of one row",
     {1, 1, 3000, 2, 0, 0, 1, 3, 1, 1, 1, 500000, 0, 0},
     true},
    {"vast dilation of one column",
     {1, 3000, 1, 2, 0, 0, 3, 1, 1, 1, 500000, 1, 0, 0},
     true},
    {"a kernel of many rows",
     {1, 3, 3, 1, 0, 0, 1 << 18, 1, 1, 1, 1, 1, 0, 0},
     true},
    {"a kernel larger than its image",
     {1, 64, 64, 1, 0, 0, 255, 255, 1, 1, 1, 1, 0, 0},
     true},
    {"a million rows of one pixel",
     {1, 1000000, 1, 1, 0, 0, 3, 1, 1, 1, 1, 1, 0, 0},
     true},
    {"a million pixels",
     {1, 1, 1000000, 1, 0, 0, 1, 3, 1, 1, 1, 1, 0, 0},
     true},
    {"many small images", {30000, 2, 2, 1, 0, 0, 2, 2, 1, 1, 1, 1, 0, 0}, true},
};

template <class Weights>
void ExpectBounded(const Weights& weights, uint64_t payload, uint32_t rows,
                   const Hostile& hostile) {
  ConvGeometry g = hostile.geometry;
  ResolvePadding(hostile.same, &g);
  const double activations =
      4.0 * g.batch *
      (double(g.in_h) * g.in_w * g.in_c + double(g.out_h) * g.out_w * rows);
  const double most_bytes = (32 << 20) + 24 * (double(payload) + activations);
  for (int threads : {1, 4}) {
    ThreadPool* pool = ThreadPool::Create(threads);
    for (Isa isa : {BestIsa(), Isa::kPortable}) {
      for (const Driver* driver : AllDrivers()) {
        SCOPED_TRACE(std::string(hostile.name) + ", " + IsaName(isa) + ", " +
                     driver->name);
        PackedOperator packed;
        packed.SetWeights(weights);
        Resources resources;
        resources.kernels = SelectKernels(isa);
        resources.pool = pool;
        resources.driver = driver;
        const uint64_t before = held_bytes;
        const auto begin = std::chrono::steady_clock::now();
        EXPECT_EQ(packed.PrepareConv2D(g, Activation::kNone, resources),
                  nullptr);
        const std::chrono::duration<double> seconds =
            std::chrono::steady_clock::now() - begin;
        EXPECT_LT(static_cast<double>(held_bytes - before), most_bytes);
        // Some hundred times what it takes, for emulators and sanitizers.
        EXPECT_LT(seconds.count(), 5.0);
      }
    }
    ThreadPool::Destroy(pool);
  }
}

TEST(HostileGeometryTest, BandedWeights) {
  for (const Hostile& hostile : kHostile) {
    const ConvGeometry& g = hostile.geometry;
    for (uint32_t band_rows : {8u, 16u}) {
      RandomLayerOptions options;
      options.columns = g.kernel_h * g.kernel_w * g.in_c;
      options.rows = 4;
      options.band_rows = band_rows;
      options.kept = 5;
      RandomLayer layer(options);
      ExpectBounded(layer.view, 1000, options.rows, hostile);
    }
  }
}

// A table of kernel rows for every band would be a gigabyte.
TEST(HostileGeometryTest, ManyBandsOfManyKernelRows) {
  constexpr uint32_t kBands = 1000, kHeight = 1 << 18;
  const std::vector<uint32_t> start(kBands + 1, 0);
  std::vector<uint32_t> rows(kBands * 16);
  for (uint32_t i = 0; i < rows.size(); ++i) rows[i] = i;
  BandedView view = {};
  view.rows = kBands * 16;
  view.columns = kHeight;
  view.band_rows = 16;
  view.band_count = kBands;
  view.index_bytes = 4;
  view.row_id = rows.data();
  view.band_start = start.data();
  ExpectBounded(
      view, 4 * (rows.size() + start.size()), view.rows,
      {"many bands", {1, 1, 1, 1, 0, 0, kHeight, 1, 1, 1, 1, 1, 0, 0}, true});
}

TEST(HostileGeometryTest, IrregularWeights) {
  for (const Hostile& hostile : kHostile) {
    const ConvGeometry& g = hostile.geometry;
    RandomIrregularOptions options;
    options.channels = g.in_c;
    options.taps = g.kernel_h * g.kernel_w;
    options.rows = 3;
    options.chunk_channels = 1;
    options.keep = 10.0 / (options.channels * options.taps);
    RandomIrregular layer(options);
    ExpectBounded(layer.view, 1000, options.rows, hostile);
  }
}

}  // namespace
}  // namespace tfrewprune
