// SPDX-License-Identifier: Apache-2.0
//
// float16 arithmetic: kernels and drivers. Small whole numbers have halves, and
// so do their products and sums here, so that most results are exact.
#include "kernels/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "every_driver.h"
#include "kernels/select.h"
#include "operators/packed_operator.h"
#include "random_layer.h"

namespace tfrewprune {
namespace {

const Kernels* HalfKernels() { return SelectHalfKernels(BestIsa()); }

std::vector<Half> Narrowed(const std::vector<float>& values) {
  std::vector<Half> halves(values.size());
  HalfKernels()->narrow(values.data(), values.size(), halves.data());
  return halves;
}

float WholeNumber(std::mt19937* random, int most) {
  return static_cast<float>(static_cast<int>((*random)() % (2 * most + 1)) -
                            most);
}

std::vector<float> WholeNumbers(std::mt19937* random, size_t count, int most) {
  std::vector<float> values(count);
  for (float& v : values) v = WholeNumber(random, most);
  return values;
}

TEST(HalfTest, KernelsAreThereWhereTheCpuHasTheArithmetic) {
  for (Isa isa : SupportedIsas()) {
    EXPECT_EQ(SelectHalfKernels(isa) != nullptr,
              isa == Isa::kNeon && HalfArithmetic());
  }
}

TEST(HalfTest, NarrowRoundsToTheNearest) {
  if (!HalfArithmetic()) return;
  const std::vector<float> values = {
      0.0f,     1.0f,      -2.5f,   65504.0f, 65519.0f, 65520.0f, -1e9f,
      1 / 3.0f, 2049.0f,   2051.0f, 6e-8f,    2e-8f,    INFINITY, -INFINITY,
      NAN,      0.000061f, 100.03f, -7.7f,    5.0f};
  for (size_t count = 0; count <= values.size(); ++count) {
    std::vector<Half> halves(count + 1, Half{77});
    HalfKernels()->narrow(values.data(), count, halves.data());
    EXPECT_EQ(halves[count].bits, 77) << "wrote past the end";
    for (size_t i = 0; i < count; ++i) {
      const float got = ValueOfHalf(halves[i]);
      if (std::isnan(values[i])) {
        EXPECT_TRUE(std::isnan(got));
      } else if (std::fabs(values[i]) >= 65520.0f) {
        EXPECT_EQ(got, std::copysign(INFINITY, values[i]));
      } else {
        // Half of a unit in the last place, and of the smallest half.
        EXPECT_NEAR(got, values[i],
                    std::fabs(values[i]) / 2048 + std::ldexp(1.0f, -25))
            << i;
      }
    }
  }
}

// Two bands: one of neighbouring rows, one scattered with unused lanes.
struct Bands {
  Bands(int kept, uint32_t seed) : random(seed) {
    const uint32_t n = static_cast<uint32_t>(kept);
    start = {0, n, 2 * n + 1};
    for (uint32_t i = 0; i < start[2]; ++i) {
      column.push_back(random() % kReach);
      column16.push_back(static_cast<uint16_t>(column.back()));
      offset.push_back(static_cast<int32_t>(sizeof(Half) * column.back()));
    }
    offset.insert(offset.end(), 2, -1);  // read, never used
    value = WholeNumbers(&random, start[2] * 16, 3);
    halves = Narrowed(value);
    for (int r = 0; r < 16; ++r) row.push_back(16 + r);
    for (int r = 0; r < 16; ++r) row.push_back(r % 5 == 3 ? -1 : 15 - r);
    bias = WholeNumbers(&random, 32, 100000);  // float32, beyond halves
    input = WholeNumbers(&random, 6000, 3);
    input_halves = Narrowed(input);
    if (random() % 2) minimum = 0;
    if (random() % 3 == 0) maximum = 6;
  }

  float Expected(int band, int lane, uint32_t begin, uint32_t end,
                 int64_t x) const {
    float sum = bias[band * 16 + lane];
    for (uint32_t n = begin; n < end; ++n) {
      sum += input[x + column[n]] * value[n * 16 + lane];
    }
    return std::fmin(maximum, std::fmax(minimum, sum));
  }

  static constexpr int kReach = 50;
  std::mt19937 random;
  float minimum = -INFINITY, maximum = INFINITY;
  std::vector<uint32_t> start, column;
  std::vector<uint16_t> column16;
  std::vector<int32_t> offset, row;
  std::vector<float> value, bias, input;
  std::vector<Half> halves, input_halves;
  const uint8_t full_run[2] = {1, 0};
};

constexpr int kKept[] = {0, 1, 2, 3, 31, 32, 33, 64, 131};

TEST(HalfTest, TilesComputeTheirFormulaExactly) {
  if (!HalfArithmetic()) return;
  for (int i = 0; i < HalfKernels()->direct_count; ++i) {
    const DirectKernelRow& entry = HalfKernels()->direct[i];
    for (int segments = 1; segments <= entry.max_segments; ++segments) {
      for (int kept : kKept) {
        SCOPED_TRACE(testing::Message()
                     << "length " << entry.length << " segments " << segments
                     << " kept " << kept);
        Bands b(kept, i * 100 + segments);
        const int pixel = 3, output_pixel = 37, segment_size = 40 * 37;
        DirectLayer layer = {};
        layer.value = b.halves.data();
        // Kernel rows [0, 1) and [1, 3).
        std::vector<uint32_t> start;
        for (int band = 0; band < 2; ++band) {
          const uint32_t n = b.start[band + 1] - b.start[band];
          for (uint32_t part : {0u, n / 4, n / 2, n}) {
            start.push_back(b.start[band] + part);
          }
        }
        layer.start = start.data();
        layer.start_stride = 4;
        layer.offset = b.offset.data();
        layer.bias = b.bias.data();
        layer.row = b.row.data();
        layer.full_run = b.full_run;
        layer.pixel_stride = pixel * sizeof(Half);
        layer.output_stride = output_pixel;
        layer.minimum = b.minimum;
        layer.maximum = b.maximum;
        std::vector<Segment> segment;
        for (int g = 0; g < segments; ++g) {
          segment.push_back({g * 97 + g * g, int64_t{g} * segment_size});
        }
        for (uint32_t tap : {0u, 1u}) {
          std::vector<float> y(size_t(segments) * segment_size, NAN);
          entry.kernel[segments - 1](layer, 0, 2, tap, 3, b.input_halves.data(),
                                     y.data(), segment.data());
          size_t written = 0;
          for (int g = 0; g < segments; ++g) {
            for (int p = 0; p < entry.length; ++p) {
              for (int lane = 0; lane < 32; ++lane) {
                if (b.row[lane] < 0) continue;
                const int band = lane / 16;
                ASSERT_EQ(y[segment[g].output + p * output_pixel + b.row[lane]],
                          b.Expected(band, lane % 16, start[band * 4 + tap],
                                     start[band * 4 + 3],
                                     segment[g].input + p * pixel))
                    << "pixel " << p << " lane " << lane;
                ++written;
              }
            }
          }
          for (float v : y) written -= !std::isnan(v);
          ASSERT_EQ(written, 0u) << "wrote where it must not";
        }
      }
    }
  }
}

TEST(HalfTest, GemvComputesItsFormulaExactly) {
  if (!HalfArithmetic()) return;
  for (uint32_t index_bytes : {2u, 4u}) {
    const GemvKernel kernel =
        SelectGemv(*HalfKernels(), 16, index_bytes, ValueType::kFloat16);
    ASSERT_NE(kernel, nullptr);
    for (int kept : {0, 1, 7, 8, 9, 65, 127, 128, 129, 300}) {
      SCOPED_TRACE(testing::Message() << index_bytes << " kept " << kept);
      Bands b(kept, kept);
      GemvLayer layer = {};
      layer.value = b.halves.data();
      layer.band_start = b.start.data();
      layer.column = index_bytes == 2
                         ? static_cast<const void*>(b.column16.data())
                         : b.column.data();
      layer.bias = b.bias.data();
      layer.row = b.row.data();
      layer.full_run = b.full_run;
      layer.minimum = b.minimum;
      layer.maximum = b.maximum;
      std::vector<float> y(37, NAN);
      kernel(layer, 0, 2, b.input_halves.data(), y.data());
      size_t written = 0;
      for (int lane = 0; lane < 32; ++lane) {
        if (b.row[lane] < 0) continue;
        const int band = lane / 16;
        ASSERT_EQ(y[b.row[lane]], b.Expected(band, lane % 16, b.start[band],
                                             b.start[band + 1], 0));
        ++written;
      }
      for (float v : y) written -= !std::isnan(v);
      ASSERT_EQ(written, 0u) << "wrote where it must not";
    }
  }
}

Resources AllKernels(ThreadPool* pool = nullptr) {
  Resources resources;
  resources.kernels = SelectKernels(BestIsa());
  resources.half_kernels = HalfKernels();
  resources.pool = pool;
  return resources;
}

bool InHalves(const PackedOperator& packed) {
  return strncmp(packed.driver()->name, "half_", 5) == 0;
}

// A layer of whole numbers.
struct WholeLayer {
  WholeLayer(const ConvGeometry& geometry, RandomLayerOptions options)
      : g(geometry), layer(With(options, geometry)) {
    values.assign(layer.view.value.floats(),
                  layer.view.value.floats() + ValueCount(layer.view));
    for (float& v : values) {
      if (v != 0) v = v > 0 ? std::ceil(3 * v) : std::floor(3 * v);
    }
    for (float& v : layer.dense) {
      if (v != 0) v = v > 0 ? std::ceil(3 * v) : std::floor(3 * v);
    }
    layer.view.value = values.data();
    input = WholeNumbers(&layer.random,
                         size_t(g.batch) * g.in_h * g.in_w * g.in_c, 3);
    bias = WholeNumbers(&layer.random, layer.view.rows, 1000);
    expected = DenseConv2D(layer.dense, layer.view.rows, g, Activation::kNone,
                           input, bias.data());
  }
  static RandomLayerOptions With(RandomLayerOptions options,
                                 const ConvGeometry& g) {
    options.columns = g.kernel_h * g.kernel_w * g.in_c;
    return options;
  }

  ConvGeometry g;
  RandomLayer layer;
  std::vector<float> values, input, bias, expected;
};

void CheckExactly(const ConvGeometry& g, const RandomLayerOptions& options,
                  int threads) {
  WholeLayer whole(g, options);
  // Every other layer has a residual, which comes before the activation.
  std::vector<float> residual;
  if (options.seed % 2 == 0) {
    residual = WholeNumbers(&whole.layer.random, whole.expected.size(), 9);
    for (size_t i = 0; i < residual.size(); ++i) {
      whole.expected[i] += residual[i];
    }
  }
  ThreadPool* pool = ThreadPool::Create(threads);
  const std::vector<Half> halves =
      HalvesOf(whole.values.data(), whole.values.size());
  int runs = 0;
  for (bool stored : {false, true}) {
    for (const Driver* driver : AllDrivers()) {
      if (strncmp(driver->name, "half_", 5) != 0) continue;
      SCOPED_TRACE(testing::Message() << driver->name << " of size " << g.in_h
                                      << " channels " << g.in_c << " kernel "
                                      << g.kernel_h << " stored " << stored);
      BandedView view = whole.layer.view;
      if (stored) view.value = halves.data();
      PackedOperator packed;
      packed.SetWeights(view);
      Workspace workspace;
      Resources resources = AllKernels(pool);
      resources.driver = driver;
      resources.workspace = &workspace;
      ASSERT_EQ(packed.PrepareConv2D(g, Activation::kRelu6, resources,
                                     !residual.empty()),
                nullptr);
      if (packed.driver() != driver) continue;
      ++runs;
      std::vector<float> output(whole.expected.size() + 64, NAN);
      for (int repeat = 0; repeat < 2; ++repeat) {
        std::fill_n(workspace.get(), workspace.count(), NAN);
        packed.Invoke({whole.input.data(), whole.bias.data(),
                       residual.empty() ? nullptr : residual.data(),
                       output.data()});
        ASSERT_NO_FATAL_FAILURE(
            ExpectOutput(whole.expected, Activation::kRelu6, 0, output));
      }
    }
  }
  EXPECT_EQ(runs, HalfArithmetic()
                      ? (g.kernel_h == 1 && g.stride_h == 1 ? 4 : 2)
                      : 0);
  ThreadPool::Destroy(pool);
}

TEST(HalfTest, DriversAreExact) {
  RandomLayerOptions options;
  options.rows = 40;
  for (int size : {1, 2, 3, 6, 7, 8, 12, 13, 14, 28}) {
    options.seed = size;
    options.scattered = size % 3 == 0;
    for (int kernel : {1, 3}) {
      CheckExactly(SquareGeometry(1, size, 17, kernel), options, 1 + size % 2);
    }
  }
  options.kept = 130;
  CheckExactly(SquareGeometry(2, 15, 16, 3, 2), options, 2);
  CheckExactly(SquareGeometry(1, 12, 16, 3, 1, 2), options, 1);
  CheckExactly(SquareGeometry(1, 9, 16, 3, 1, 1, false), options, 1);
  CheckExactly(SquareGeometry(3, 5, 160, 1), options, 2);
  options.kept = 700;
  CheckExactly(SquareGeometry(2, 1, 1000, 1), options, 2);
}

TEST(HalfTest, TakenWhereTheCpuHasIt) {
  for (int size : {1, 7, 28}) {
    for (int kernel : {1, 3}) {
      if (size < kernel) continue;
      RandomLayerOptions options;
      options.kept = 16;
      WholeLayer whole(SquareGeometry(1, size, 32, kernel), options);
      PackedOperator packed;
      packed.SetWeights(whole.layer.view);
      ASSERT_EQ(packed.PrepareConv2D(whole.g, Activation::kRelu6, AllKernels()),
                nullptr);
      EXPECT_EQ(InHalves(packed), HalfArithmetic())
          << packed.driver()->name << " at " << size << " kernel " << kernel;
      // And not without being asked for.
      Resources plain = AllKernels();
      plain.half_kernels = nullptr;
      ASSERT_EQ(packed.PrepareConv2D(whole.g, Activation::kRelu6, plain),
                nullptr);
      EXPECT_FALSE(InHalves(packed)) << packed.driver()->name;
      std::vector<float> output(whole.expected.size());
      packed.Invoke(
          {whole.input.data(), whole.bias.data(), nullptr, output.data()});
      ExpectOutput(whole.expected, Activation::kRelu6, 0, output);
    }
  }
}

TEST(HalfTest, OtherBandsAndIntegersKeepFloats) {
  for (uint32_t band_rows : {4u, 8u, 32u}) {
    RandomLayerOptions options;
    options.rows = 2 * band_rows;
    options.band_rows = band_rows;
    WholeLayer whole(SquareGeometry(1, 8, 16, 3), options);
    PackedOperator packed;
    packed.SetWeights(whole.layer.view);
    ASSERT_EQ(packed.PrepareConv2D(whole.g, Activation::kRelu6, AllKernels()),
              nullptr);
    EXPECT_FALSE(InHalves(packed)) << packed.driver()->name;
  }
  WholeLayer whole(SquareGeometry(1, 8, 16, 3), {});
  const Integers integers = IntegersOf(whole.layer.view);
  BandedView view = whole.layer.view;
  view.value = Values(integers.value.data(), integers.scale.data(),
                      static_cast<uint32_t>(integers.scale.size()));
  PackedOperator packed;
  packed.SetWeights(view);
  ASSERT_EQ(packed.PrepareConv2D(whole.g, Activation::kRelu6, AllKernels()),
            nullptr);
  EXPECT_FALSE(InHalves(packed)) << packed.driver()->name;
}

TEST(HalfTest, WeightsBeyondHalvesAreRefused) {
  if (!HalfArithmetic()) return;
  RandomLayerOptions options;
  options.kept = 16;
  WholeLayer whole(SquareGeometry(1, 7, 32, 1), options);
  whole.values[5] = 65520.0f;
  PackedOperator packed;
  packed.SetWeights(whole.layer.view);
  const char* error =
      packed.PrepareConv2D(whole.g, Activation::kRelu6, AllKernels());
  ASSERT_NE(error, nullptr);
  EXPECT_NE(strstr(error, "expected magnitudes below 65520"), nullptr) << error;
}

// As the documentation says: in the pixels that see them, nowhere else.
TEST(HalfTest, ActivationsBeyondHalvesBecomeInfinite) {
  if (!HalfArithmetic()) return;
  RandomLayerOptions options;
  options.kept = options.columns = 32;
  for (const char* driver : {"half_direct", "half_gemv"}) {
    WholeLayer whole(RowOfPixels(7, 32), options);
    whole.input[32 * 3 + 5] = 65520.0f;
    PackedOperator packed;
    packed.SetWeights(whole.layer.view);
    Resources resources = AllKernels();
    resources.driver = FindDriver(driver);
    ASSERT_EQ(packed.PrepareConv2D(whole.g, Activation::kNone, resources),
              nullptr);
    std::vector<float> output(whole.expected.size());
    packed.Invoke(
        {whole.input.data(), whole.bias.data(), nullptr, output.data()});
    for (size_t i = 0; i < output.size(); ++i) {
      if (i / options.rows == 3) {
        EXPECT_TRUE(std::isinf(output[i])) << driver << " at " << i;
      } else {
        EXPECT_EQ(output[i], whole.expected[i]) << driver << " at " << i;
      }
    }
  }
}

// What float16 arithmetic costs, against sums in double: root mean squares.
TEST(HalfTest, ErrorIsAboutAThousandth) {
  if (!HalfArithmetic()) return;
  for (bool positive : {false, true}) {
    for (const char* driver : {"half_direct", "half_gemv"}) {
      const int pixels = 7;
      RandomLayerOptions options;
      options.kept = options.columns = 4096;
      RandomLayer layer(options);
      std::normal_distribution<float> normal;
      std::vector<float> values(ValueCount(layer.view));
      for (float& v : values) v = normal(layer.random) / 64;
      layer.view.value = values.data();
      std::vector<float> input(size_t(pixels) * options.columns);
      for (float& v : input) {
        v = normal(layer.random);
        if (positive) v = std::fmax(v, 0.0f);
      }
      const ConvGeometry g = RowOfPixels(pixels, options.columns);
      PackedOperator packed;
      packed.SetWeights(layer.view);
      Resources resources = AllKernels();
      resources.driver = FindDriver(driver);
      ASSERT_EQ(packed.PrepareConv2D(g, Activation::kNone, resources), nullptr);
      ASSERT_STREQ(packed.driver()->name, driver);
      std::vector<float> output(size_t(pixels) * options.rows);
      packed.Invoke({input.data(), nullptr, nullptr, output.data()});
      double squares = 0, errors = 0, most = 0;
      for (int p = 0; p < pixels; ++p) {
        for (uint32_t r = 0; r < options.rows; ++r) {
          double sum = 0;
          for (uint32_t c = 0; c < options.columns; ++c) {
            sum += double{input[p * options.columns + c]} *
                   values[(r / 16 * options.columns + c) * 16 + r % 16];
          }
          const double error = output[p * options.rows + r] - sum;
          squares += sum * sum;
          errors += error * error;
          most = std::fmax(most, std::fabs(error));
        }
      }
      const double relative = std::sqrt(errors / squares);
      RecordProperty("error", std::to_string(relative));
      printf("%s, positive %d: %.2e of the root mean square, at most %.2e\n",
             driver, positive, relative,
             most / std::sqrt(squares / (pixels * options.rows)));
      EXPECT_LT(relative, 1.2e-3);
      EXPECT_GT(relative, 1e-5) << "that were float32 sums";
    }
  }
}

}  // namespace
}  // namespace tfrewprune
