// SPDX-License-Identifier: Apache-2.0
#include "delegate/shapes.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

namespace tfrewprune {
namespace {

Shape Make(std::initializer_list<int> dims) {
  Shape shape;
  for (int d : dims) shape.dims[shape.rank++] = d;
  return shape;
}

OpOptions Conv(int kernel, int stride, int dilation, bool same) {
  OpOptions o = {};
  o.kind = OpKind::kConv2D;
  o.kernel_h = o.kernel_w = kernel;
  o.in_channels = 3;
  o.stride_h = o.stride_w = stride;
  o.dilation_h = o.dilation_w = dilation;
  o.same_padding = same;
  return o;
}

TEST(Shapes, ElementsAndText) {
  char text[kShapeText];
  EXPECT_EQ(Make({2, 3, 4}).elements(), 24);
  EXPECT_EQ(Make({}).elements(), 1);
  EXPECT_EQ(Make({5, 0, 3}).elements(), 0);
  EXPECT_EQ(Make({-1, 3}).elements(), -1);
  EXPECT_EQ(Make({65536, 65536}).elements(), -1);
  EXPECT_EQ(Make({65536, 65536, 0}).elements(), -1);
  EXPECT_STREQ(Make({2, 3}).Print(text), "[2, 3]");
  EXPECT_STREQ(Make({}).Print(text), "[]");
}

// Output sizes and leading pads as TFLite computes them, by hand.
TEST(Shapes, Conv2DFollowsTFLite) {
  struct {
    int in, kernel, stride, dilation;
    bool same;
    int out, pad;
  } cases[] = {
      {9, 3, 1, 1, true, 9, 1},     {9, 3, 2, 1, true, 5, 1},
      {8, 3, 2, 1, true, 4, 0},     {8, 2, 1, 1, true, 8, 0},
      {9, 3, 1, 2, true, 9, 2},     {9, 3, 1, 1, false, 7, 0},
      {9, 3, 2, 1, false, 4, 0},    {9, 3, 1, 4, false, 1, 0},
      {1, 7, 1, 1, true, 1, 3},     {5, 1, 3, 1, true, 2, 0},
      {224, 7, 2, 1, true, 112, 2},
  };
  for (const auto& c : cases) {
    ConvGeometry g;
    Shape out;
    char error[256];
    ASSERT_TRUE(Conv2DShape(Conv(c.kernel, c.stride, c.dilation, c.same), 16,
                            Make({2, c.in, c.in, 3}), &g, &out, error,
                            sizeof(error)))
        << error;
    EXPECT_EQ(out.dims[0], 2);
    EXPECT_EQ(out.dims[1], c.out) << c.in << " " << c.kernel;
    EXPECT_EQ(out.dims[2], c.out);
    EXPECT_EQ(out.dims[3], 16);
    EXPECT_EQ(g.out_h, c.out);
    EXPECT_EQ(g.pad_top, c.pad) << c.in << " " << c.kernel;
    EXPECT_EQ(g.pad_left, c.pad);
  }
}

TEST(Shapes, Conv2DRefusesWithExpectedAndReceived) {
  struct {
    OpOptions options;
    Shape input;
    const char* message;
  } cases[] = {
      {Conv(3, 1, 1, true), Make({1, 9, 3}), "[batch, height, width, 3]"},
      {Conv(3, 1, 1, true), Make({1, 9, 9, 4}), "[1, 9, 9, 4]"},
      {Conv(3, 1, 1, false), Make({1, 2, 9, 3}), "no output pixel"},
      {Conv(3, 1, 1, true), Make({1, 0, 9, 3}), "no output pixel"},
      {Conv(3, 1, 1 << 20, true), Make({1, 9, 9, 3}), "padded activation"},
      {Conv(1 << 20, 1, 1 << 20, true), Make({1, 9, 9, 3}),
       "padded activation"},
      {Conv(3, 1, 1, true), Make({1, 46341, 46341, 3}), "2^31"},
  };
  for (const auto& c : cases) {
    ConvGeometry g;
    Shape out;
    char error[256];
    ASSERT_FALSE(
        Conv2DShape(c.options, 16, c.input, &g, &out, error, sizeof(error)));
    EXPECT_NE(std::string(error).find(c.message), std::string::npos) << error;
    EXPECT_NE(std::string(error).find("Received"), std::string::npos) << error;
  }
  ConvGeometry g;
  Shape out;
  char error[256];
  EXPECT_FALSE(Conv2DShape(Conv(1, 1, 1, true), INT32_MAX, Make({1, 9, 9, 3}),
                           &g, &out, error, sizeof(error)));
  EXPECT_NE(std::string(error).find("output"), std::string::npos) << error;
}

TEST(Shapes, FullyConnectedFlattensOrKeeps) {
  OpOptions flatten = {}, keep = {};
  keep.keep_num_dims = true;
  int batch;
  Shape out;
  char error[256], text[kShapeText];
  ASSERT_TRUE(FullyConnectedShape(flatten, 5, 12, Make({2, 3, 4, 6}), &batch,
                                  &out, error, sizeof(error)));
  EXPECT_EQ(batch, 12);
  EXPECT_STREQ(out.Print(text), "[12, 5]");
  ASSERT_TRUE(FullyConnectedShape(keep, 5, 6, Make({2, 3, 6}), &batch, &out,
                                  error, sizeof(error)));
  EXPECT_EQ(batch, 6);
  EXPECT_STREQ(out.Print(text), "[2, 3, 5]");
  ASSERT_TRUE(FullyConnectedShape(flatten, 5, 12, Make({12}), &batch, &out,
                                  error, sizeof(error)));
  EXPECT_STREQ(out.Print(text), "[1, 5]");
  ASSERT_TRUE(FullyConnectedShape(keep, 5, 12, Make({12}), &batch, &out, error,
                                  sizeof(error)));
  EXPECT_STREQ(out.Print(text), "[5]");
}

TEST(Shapes, FullyConnectedRefusesWithExpectedAndReceived) {
  OpOptions flatten = {}, keep = {};
  keep.keep_num_dims = true;
  int batch;
  Shape out;
  char error[256];
  EXPECT_FALSE(FullyConnectedShape(flatten, 5, 12, Make({2, 7}), &batch, &out,
                                   error, sizeof(error)));
  EXPECT_STREQ(error,
               "the activation must be [batch, 12] when flattened. Received: "
               "[2, 7].");
  EXPECT_FALSE(FullyConnectedShape(keep, 5, 12, Make({12, 2}), &batch, &out,
                                   error, sizeof(error)));
  EXPECT_STREQ(error,
               "the last dimension of the activation must be 12. Received: "
               "[12, 2].");
  EXPECT_FALSE(FullyConnectedShape(keep, 5, 12, Make({}), &batch, &out, error,
                                   sizeof(error)));
  EXPECT_FALSE(FullyConnectedShape(flatten, 1 << 20, 1, Make({1 << 20}), &batch,
                                   &out, error, sizeof(error)));
  EXPECT_NE(std::string(error).find("output"), std::string::npos);
}

}  // namespace
}  // namespace tfrewprune
