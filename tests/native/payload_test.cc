// SPDX-License-Identifier: Apache-2.0
#include "format/payload.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "golden.h"

namespace tfrewprune {
namespace {

using Weights = std::map<std::pair<uint32_t, uint32_t>, float>;

const char* Parse(AlignedBytes* bytes, BandedView* view) {
  return ParsePayload(bytes->data(), bytes->size(), view);
}

// Walks every index of the view; under ASan this proves that they stay inside.
Weights Unpack(const BandedView& view) {
  Weights weights;
  for (uint32_t band = 0; band < view.band_count; ++band) {
    for (uint32_t n = view.band_start[band]; n < view.band_start[band + 1];
         ++n) {
      for (uint32_t lane = 0; lane < view.band_rows; ++lane) {
        const uint32_t row = view.RowId(uint64_t{band} * view.band_rows + lane);
        const float value = view.value[uint64_t{n} * view.band_rows + lane] *
                            (row < view.rows ? view.value.Scale(row) : 1.0f);
        if (row < view.rows && value != 0.0f) {
          weights[{row, view.Column(n)}] = value;
        }
      }
    }
  }
  return weights;
}

TEST(Payload, ReadsTheGoldenBytes) {
  ASSERT_GE(GoldenPayloads().size(), 8u);
  for (const GoldenPayload& golden : GoldenPayloads()) {
    SCOPED_TRACE(golden.name);
    AlignedBytes bytes(ReadGolden(golden.name + ".payload"));
    BandedView view;
    ASSERT_STREQ(Parse(&bytes, &view), nullptr);
    EXPECT_EQ(view.rows, golden.rows);
    EXPECT_EQ(view.columns, golden.columns);
    EXPECT_EQ(view.band_rows, golden.band_rows);
    EXPECT_EQ(view.band_count, golden.band_count);
    EXPECT_EQ(view.column_count, golden.column_count);

    Weights expected;
    const std::string listed = ReadGolden(golden.name + ".weights");
    for (size_t at = 0; at + 12 <= listed.size(); at += 12) {
      uint32_t row, column;
      float value;
      memcpy(&row, &listed[at], 4);
      memcpy(&column, &listed[at + 4], 4);
      memcpy(&value, &listed[at + 8], 4);
      expected[{row, column}] = value;
    }
    EXPECT_EQ(Unpack(view), expected);
  }
}

TEST(Payload, RefusesEveryDamagedGoldenFileWithAMessage) {
  ASSERT_GE(GoldenNames("refused.txt").size(), 30u);
  for (const std::string& name : GoldenNames("refused.txt")) {
    SCOPED_TRACE(name);
    AlignedBytes bytes(ReadGolden(name + ".refused"));
    BandedView view;
    const char* error = Parse(&bytes, &view);
    ASSERT_NE(error, nullptr);
    EXPECT_GT(strlen(error), 10u);
  }
}

TEST(Payload, RefusesOtherValueTypesAndLengthsOfAnotherType) {
  const struct {
    const char* payload;
    uint32_t value_type;
    const char* error;
  } cases[] = {
      {"ragged", 3,
       "value_type is not 0 (float32), 1 (float16) or 2 (int8), the only ones "
       "known"},
      {"ragged", 2, "scale_count of int8 values is neither 1 nor rows"},
      {"ragged", 1,
       "value section length is not column_count * band_rows * 4 (float32), 2 "
       "(float16) or 1 (int8)"},
      {"half_ragged", 0,
       "value section length is not column_count * band_rows * 4 (float32), 2 "
       "(float16) or 1 (int8)"},
      {"int8_ragged", 0,
       "scale_offset or scale_count is not 0, but values are not int8"},
  };
  for (const auto& c : cases) {
    std::string changed = ReadGolden(std::string(c.payload) + ".payload");
    memcpy(&changed[12], &c.value_type, 4);
    AlignedBytes bytes(changed);
    BandedView view;
    EXPECT_STREQ(Parse(&bytes, &view), c.error);
  }
}

TEST(Payload, RefusesEveryTruncationAndEveryTrailingByte) {
  for (const GoldenPayload& golden : GoldenPayloads()) {
    const std::string whole = ReadGolden(golden.name + ".payload");
    for (size_t length = 0; length < whole.size(); ++length) {
      AlignedBytes bytes(whole.substr(0, length));
      BandedView view;
      ASSERT_NE(Parse(&bytes, &view), nullptr) << golden.name << " " << length;
    }
    AlignedBytes longer(whole + std::string(1, '\0'));
    BandedView view;
    ASSERT_NE(Parse(&longer, &view), nullptr) << golden.name;
  }
}

// Each header field is fixed or tied to another one. What a single flip can
// leave valid: rows or columns that still hold all indices, an empty section
// that lies elsewhere in the same gap, and of no bands the type of values and
// the form of rows.
TEST(Payload, EveryBitFlipOfTheHeaderIsRefusedOrStaysInBounds) {
  for (const GoldenPayload& golden : GoldenPayloads()) {
    const std::string whole = ReadGolden(golden.name + ".payload");
    AlignedBytes sound(whole);
    BandedView sound_view;
    ASSERT_EQ(Parse(&sound, &sound_view), nullptr);
    const Weights weights = Unpack(sound_view);
    for (size_t bit = 0; bit < 128 * 8; ++bit) {
      std::string flipped = whole;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      AlignedBytes bytes(flipped);
      BandedView view;
      const char* error = Parse(&bytes, &view);
      if (error != nullptr) continue;
      EXPECT_EQ(Unpack(view), weights) << golden.name << " bit " << bit;
      const size_t at = bit / 8;
      EXPECT_TRUE((at >= 16 && at < 24) || (at >= 48 && at < 112) ||
                  ((at == 12 || at == 44) && weights.empty()))
          << golden.name << " bit " << bit;
    }
  }
}

TEST(Payload, EveryByteOfTheIndexSectionsIsCheckedBeforeUse) {
  for (const GoldenPayload& golden : GoldenPayloads()) {
    const std::string whole = ReadGolden(golden.name + ".payload");
    for (size_t at = 128; at < whole.size() && at < 2048; ++at) {
      for (int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
        std::string changed = whole;
        changed[at] = static_cast<char>(value);
        AlignedBytes bytes(changed);
        BandedView view;
        if (Parse(&bytes, &view) == nullptr) Unpack(view);
      }
    }
  }
}

TEST(Payload, CountsThatOverflowAreRefused) {
  const std::string whole = ReadGolden("two_bands.payload");
  struct {
    size_t offset;
    uint64_t value;
    size_t width;
  } hostile[] = {
      {28, 0xffffffff, 4},          {28, 0x08000000, 4},
      {32, 0x4000000000000000, 8},  {32, 0xffffffffffffffff, 8},
      {32, 0x0400000000000000, 8},  {48, 0xffffffffffffffc0, 8},
      {56, 0xffffffffffffffff, 8},  {96, 0xffffffffffffffc0, 8},
      {104, 0xffffffffffffffff, 8}, {112, 0xffffffffffffffff, 8},
      {16, 0xffffffff, 4},          {20, 0xffffffff, 4},
  };
  for (const auto& change : hostile) {
    std::string changed = whole;
    memcpy(&changed[change.offset], &change.value, change.width);
    AlignedBytes bytes(changed);
    BandedView view;
    EXPECT_NE(Parse(&bytes, &view), nullptr)
        << change.offset << " " << change.value;
  }
}

TEST(Payload, NullAndMisalignedMemoryAreRefused) {
  BandedView view;
  EXPECT_NE(ParsePayload(nullptr, 128, &view), nullptr);
  const std::string whole = ReadGolden("one_weight.payload");
  for (size_t shift : {1, 2, 3, 4, 20, 63}) {
    AlignedBytes shifted(std::string(shift, '\0') + whole);
    EXPECT_STREQ(
        ParsePayload(shifted.data() + shift, whole.size(), &view),
        shift % 4 == 0 ? nullptr : "payload memory is not aligned to 4 bytes");
  }
}

TEST(Payload, DescriptionNamesWhatTheHeaderHolds) {
  AlignedBytes bytes(ReadGolden("ragged.payload"));
  char text[256];
  DescribePayload(bytes.data(), bytes.size(), text, sizeof(text));
  EXPECT_NE(std::string(text).find("rows 19, columns 36, band_rows 8"),
            std::string::npos)
      << text;
  DescribePayload(bytes.data(), 5, text, sizeof(text));
  EXPECT_STREQ(text, "5 bytes");
}

}  // namespace
}  // namespace tfrewprune
