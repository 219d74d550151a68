// SPDX-License-Identifier: Apache-2.0
#include "format/op_options.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace tfrewprune {
namespace {

using Block = std::vector<int32_t>;

const Block kConv = {0x4F504654, 1, 0, 3, 5, 4, 7, 2, 1, 3, 6, 1, 0, 0, 0, 0};
const Block kFullyConnected = {0x4F504654, 1, 1, 4, 0, 0, 0, 0,
                               0,          0, 0, 1, 0, 0, 0, 0};

bool Parse(const Block& block, OpKind kind, OpOptions* options,
           OptionError* error) {
  // A copy of exactly this size on the heap, at an odd address.
  std::string bytes(1 + block.size() * 4, '\0');
  memcpy(&bytes[1], block.data(), block.size() * 4);
  return ParseOpOptions(&bytes[1], block.size() * 4, kind, options, error);
}

TEST(OpOptions, ReadsConv2D) {
  OpOptions o;
  OptionError error;
  ASSERT_TRUE(Parse(kConv, OpKind::kConv2D, &o, &error));
  EXPECT_EQ(o.kind, OpKind::kConv2D);
  EXPECT_EQ(o.activation, 3);
  EXPECT_EQ(o.kernel_h, 5);
  EXPECT_EQ(o.kernel_w, 4);
  EXPECT_EQ(o.in_channels, 7);
  EXPECT_EQ(o.stride_h, 2);
  EXPECT_EQ(o.stride_w, 1);
  EXPECT_EQ(o.dilation_h, 3);
  EXPECT_EQ(o.dilation_w, 6);
  EXPECT_FALSE(o.same_padding);
}

TEST(OpOptions, ReadsFullyConnected) {
  OpOptions o;
  OptionError error;
  ASSERT_TRUE(Parse(kFullyConnected, OpKind::kFullyConnected, &o, &error));
  EXPECT_EQ(o.kind, OpKind::kFullyConnected);
  EXPECT_EQ(o.activation, 4);
  EXPECT_TRUE(o.keep_num_dims);
  Block quantized = kFullyConnected;
  quantized[12] = 1;  // for unpacking only
  EXPECT_TRUE(Parse(quantized, OpKind::kFullyConnected, &o, &error));
  quantized[12] = 2;
  ASSERT_FALSE(Parse(quantized, OpKind::kFullyConnected, &o, &error));
  EXPECT_STREQ(error.field, "asymmetric_quantize_inputs");
}

TEST(OpOptions, RefusesEachFieldOutOfRangeAndNamesIt) {
  const char* conv_names[16] = {"magic",
                                "version",
                                "operator kind",
                                "fused activation",
                                "kernel height",
                                "kernel width",
                                "input channels",
                                "stride height",
                                "stride width",
                                "dilation height",
                                "dilation width",
                                "padding",
                                "output before the sum",
                                "field 13",
                                "field 14",
                                "field 15"};
  for (int field = 0; field < 16; ++field) {
    for (int32_t value : {-1, INT32_MIN, INT32_MAX}) {
      if ((field == 6 || field == 12) && value == INT32_MAX) continue;
      Block block = kConv;
      block[field] = value;
      OpOptions o;
      OptionError error;
      ASSERT_FALSE(Parse(block, OpKind::kConv2D, &o, &error)) << field;
      EXPECT_STREQ(error.field, conv_names[field]);
      EXPECT_EQ(error.received, value);
      EXPECT_TRUE(value < error.lowest || value > error.highest);
    }
  }
  for (int field = 0; field < 16; ++field) {
    Block block = kFullyConnected;
    block[field] = 77;
    OpOptions o;
    OptionError error;
    ASSERT_FALSE(Parse(block, OpKind::kFullyConnected, &o, &error)) << field;
    EXPECT_EQ(error.received, 77);
  }
}

TEST(OpOptions, RefusesTheOptionsOfTheOtherOperator) {
  OpOptions o;
  OptionError error;
  ASSERT_FALSE(Parse(kConv, OpKind::kFullyConnected, &o, &error));
  EXPECT_STREQ(error.field, "operator kind");
  EXPECT_EQ(error.lowest, 1);
  ASSERT_FALSE(Parse(kFullyConnected, OpKind::kConv2D, &o, &error));
  EXPECT_STREQ(error.field, "operator kind");
  EXPECT_EQ(error.highest, 0);
}

TEST(OpOptions, RefusesEveryOtherLength) {
  for (size_t fields = 0; fields < 20; ++fields) {
    if (fields == 16) continue;
    Block block = kConv;
    block.resize(fields);
    OpOptions o;
    OptionError error;
    ASSERT_FALSE(Parse(block, OpKind::kConv2D, &o, &error));
    EXPECT_STREQ(error.field, "length in bytes");
    EXPECT_EQ(error.received, static_cast<int64_t>(fields * 4));
  }
  OpOptions o;
  OptionError error;
  EXPECT_FALSE(ParseOpOptions(nullptr, 64, OpKind::kConv2D, &o, &error));
}

}  // namespace
}  // namespace tfrewprune
