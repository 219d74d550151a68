// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "format/irregular.h"
#include "format/payload.h"
#include "golden.h"

namespace tfrewprune {
namespace {

using Weights = std::map<std::pair<uint32_t, uint32_t>, float>;

const char* Parse(AlignedBytes* bytes, IrregularView* view,
                  IrregularIndex* index) {
  return ParseIrregular(bytes->data(), bytes->size(), view, index);
}

// Walks every index of the view; under ASan this proves that they stay inside.
Weights Unpack(const IrregularView& view) {
  Weights weights;
  for (uint32_t s = 0; s < view.segment_count; ++s) {
    EXPECT_LT(view.Chunk(s), view.chunk_count());
    for (uint32_t i = view.segment_start[s]; i < view.segment_start[s + 1];
         ++i) {
      const uint32_t column = view.Column(i) % view.taps * view.channels() +
                              view.Column(i) / view.taps;
      weights[{view.RowId(s), column}] =
          view.value[i] * view.value.Scale(view.RowId(s));
    }
  }
  return weights;
}

TEST(IrregularPayload, ReadsTheGoldenBytes) {
  ASSERT_GE(GoldenIrregulars().size(), 5u);
  for (const GoldenIrregular& golden : GoldenIrregulars()) {
    SCOPED_TRACE(golden.name);
    AlignedBytes bytes(ReadGolden(golden.name + ".payload"));
    EXPECT_EQ(PayloadLayout(bytes.data(), bytes.size()), kIrregularLayout);
    IrregularView view;
    IrregularIndex index;
    ASSERT_STREQ(Parse(&bytes, &view, &index), nullptr);
    EXPECT_EQ(view.rows, golden.rows);
    EXPECT_EQ(view.columns, golden.columns);
    EXPECT_EQ(view.taps, golden.taps);
    EXPECT_EQ(view.chunk_channels, golden.chunk_channels);
    EXPECT_EQ(view.segment_count, golden.segment_count);
    EXPECT_EQ(view.weight_count, golden.weight_count);
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
    BandedView banded;
    EXPECT_STREQ(ParsePayload(bytes.data(), bytes.size(), &banded),
                 "layout is not 0 (banded)");
  }
}

TEST(IrregularPayload, RefusesEveryDamagedGoldenFileWithAMessage) {
  ASSERT_GE(GoldenNames("irregular_refused.txt").size(), 20u);
  for (const std::string& name : GoldenNames("irregular_refused.txt")) {
    SCOPED_TRACE(name);
    AlignedBytes bytes(ReadGolden(name + ".refused"));
    IrregularView view;
    IrregularIndex index;
    const char* error = Parse(&bytes, &view, &index);
    ASSERT_NE(error, nullptr);
    EXPECT_GT(strlen(error), 10u);
  }
}

TEST(IrregularPayload, RefusesEveryTruncationAndEveryTrailingByte) {
  for (const GoldenIrregular& golden : GoldenIrregulars()) {
    const std::string whole = ReadGolden(golden.name + ".payload");
    IrregularView view;
    IrregularIndex index;
    for (size_t length = 0; length < whole.size(); ++length) {
      AlignedBytes bytes(whole.substr(0, length));
      ASSERT_NE(Parse(&bytes, &view, &index), nullptr)
          << golden.name << " " << length;
    }
    AlignedBytes longer(whole + std::string(1, '\0'));
    ASSERT_NE(Parse(&longer, &view, &index), nullptr) << golden.name;
  }
}

TEST(IrregularPayload, EveryChangedByteIsRefusedOrStaysInBounds) {
  for (const GoldenIrregular& golden : GoldenIrregulars()) {
    const std::string whole = ReadGolden(golden.name + ".payload");
    for (size_t at = 0; at < whole.size(); ++at) {
      for (int value : {0x00, 0x01, 0x02, 0x7f, 0x80, 0xff}) {
        std::string changed = whole;
        changed[at] = static_cast<char>(value);
        AlignedBytes bytes(changed);
        IrregularView view;
        IrregularIndex index;
        if (Parse(&bytes, &view, &index) == nullptr) Unpack(view);
      }
    }
  }
}

TEST(IrregularPayload, LayoutOfTooFewBytesIsUnknown) {
  EXPECT_EQ(PayloadLayout(nullptr, 128), -1);
  EXPECT_EQ(PayloadLayout("TFRP", 4), -1);
}

}  // namespace
}  // namespace tfrewprune
