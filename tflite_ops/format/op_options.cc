// SPDX-License-Identifier: Apache-2.0
#include "format/op_options.h"

#include <cstring>

namespace tfrewprune {
namespace {

constexpr int kFields = 16;
constexpr int32_t kMagic = 0x4F504654;  // "TFPO"
// Kernel sizes, strides and dilations beyond this are not in any model, and
// products of three of them must stay within 64 bits.
constexpr int32_t kLargest = 1 << 20;

struct Field {
  const char* name;
  int32_t lowest, highest;
};

constexpr Field kCommon[4] = {{"magic", kMagic, kMagic},
                              {"version", 1, 1},
                              {"operator kind", 0, 1},
                              {"fused activation", 0, 5}};

constexpr Field kConv[kFields - 4] = {{"kernel height", 1, kLargest},
                                      {"kernel width", 1, kLargest},
                                      {"input channels", 1, INT32_MAX},
                                      {"stride height", 1, kLargest},
                                      {"stride width", 1, kLargest},
                                      {"dilation height", 1, kLargest},
                                      {"dilation width", 1, kLargest},
                                      {"padding", 0, 1},
                                      {"output before the sum", 0, INT32_MAX},
                                      {"field 13", 0, 0},
                                      {"field 14", 0, 0},
                                      {"field 15", 0, 0}};

constexpr Field kFullyConnected[kFields - 4] = {
    {"field 4", 0, 0},
    {"field 5", 0, 0},
    {"field 6", 0, 0},
    {"field 7", 0, 0},
    {"field 8", 0, 0},
    {"field 9", 0, 0},
    {"field 10", 0, 0},
    {"keep_num_dims", 0, 1},
    {"asymmetric_quantize_inputs", 0, 1},
    {"field 13", 0, 0},
    {"field 14", 0, 0},
    {"field 15", 0, 0}};

bool InRange(const Field& field, int32_t value, OptionError* error) {
  if (value >= field.lowest && value <= field.highest) return true;
  *error = {field.name, field.lowest, field.highest, value};
  return false;
}

}  // namespace

bool ParseOpOptions(const void* data, size_t bytes, OpKind kind,
                    OpOptions* options, OptionError* error) {
  int32_t value[kFields];
  if (data == nullptr || bytes != sizeof(value)) {
    *error = {"length in bytes", sizeof(value), sizeof(value),
              data == nullptr ? 0 : static_cast<int64_t>(bytes)};
    return false;
  }
  memcpy(value, data, sizeof(value));
  for (int i = 0; i < 4; ++i) {
    if (!InRange(kCommon[i], value[i], error)) return false;
  }
  const int32_t expected_kind = static_cast<int32_t>(kind);
  if (!InRange({"operator kind", expected_kind, expected_kind}, value[2],
               error)) {
    return false;
  }
  const Field* fields = kind == OpKind::kConv2D ? kConv : kFullyConnected;
  for (int i = 4; i < kFields; ++i) {
    if (!InRange(fields[i - 4], value[i], error)) return false;
  }
  *options = {};
  options->kind = kind;
  options->activation = value[3];
  if (kind == OpKind::kConv2D) {
    options->kernel_h = value[4];
    options->kernel_w = value[5];
    options->in_channels = value[6];
    options->stride_h = value[7];
    options->stride_w = value[8];
    options->dilation_h = value[9];
    options->dilation_w = value[10];
    options->same_padding = value[11] == 0;
  } else {
    options->keep_num_dims = value[11] == 1;
  }
  return true;
}

}  // namespace tfrewprune
