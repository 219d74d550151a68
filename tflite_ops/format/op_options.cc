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
                              {"operator kind", 0, 4},
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

struct RecurrentFields {
  Field field[kFields - 4];
};

// Bits of the largest finite float32; those of positive ones ascend as they do.
constexpr int32_t kLargestFloat = 0x7F7FFFFF;

constexpr RecurrentFields MakeRecurrent(int32_t gate, int32_t reset,
                                        bool lstm = false) {
  return {{{"activation", 0, 3},
           {"recurrent activation", 0, gate},
           {"reset_after", 0, reset},
           {"go_backwards", 0, 1},
           {"output", 0, 2},
           {"zero_output", 0, 1},
           {"cell clip", 0, lstm ? kLargestFloat : 0},
           {"stateful", 0, lstm},
           {"field 12", 0, 0},
           {"field 13", 0, 0},
           {"field 14", 0, 0},
           {"field 15", 0, 0}}};
}
constexpr RecurrentFields kGru = MakeRecurrent(3, 1);
constexpr RecurrentFields kLstm = MakeRecurrent(3, 0, true);
constexpr RecurrentFields kRnn = MakeRecurrent(0, 0);

// By kind.
struct Kind {
  const char* name;
  const Field* fields;
};
constexpr Kind kKinds[] = {{kConv2DName, kConv},
                           {kFullyConnectedName, kFullyConnected},
                           {kGruName, kGru.field},
                           {kLstmName, kLstm.field},
                           {kRnnName, kRnn.field}};

bool InRange(const Field& field, int32_t value, OptionError* error) {
  if (value >= field.lowest && value <= field.highest) return true;
  *error = {field.name, field.lowest, field.highest, value};
  return false;
}

// Whether an LSTM is what TFLite's own, which keeps its states, can be: gates
// are sigmoids, and it goes forwards and gives out every step.
bool IsSequenceLstm(const int32_t* value, OptionError* error) {
  return InRange({"recurrent activation of a stateful LSTM", 2, 2}, value[5],
                 error) &&
         InRange({"go_backwards of a stateful LSTM", 0, 0}, value[7], error) &&
         InRange({"output of a stateful LSTM", 1, 1}, value[8], error) &&
         InRange({"zero_output of a stateful LSTM", 0, 0}, value[9], error);
}

}  // namespace

bool FindOpKind(const char* custom_name, OpKind* kind) {
  for (int i = 0; i < static_cast<int>(sizeof(kKinds) / sizeof(Kind)); ++i) {
    if (strcmp(custom_name, kKinds[i].name) != 0) continue;
    *kind = static_cast<OpKind>(i);
    return true;
  }
  return false;
}

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
  if (IsRecurrent(kind) &&
      !InRange({"fused activation", 0, 0}, value[3], error)) {
    return false;
  }
  const Field* fields = kKinds[expected_kind].fields;
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
  } else if (IsRecurrent(kind)) {
    options->cell_activation = value[4];
    options->gate_activation = value[5];
    options->reset_after = value[6] == 1;
    options->go_backwards = value[7] == 1;
    options->output = static_cast<SequenceOutput>(value[8]);
    options->zero_output = value[9] == 1;
    memcpy(&options->cell_clip, &value[10], sizeof(float));
    options->stateful = value[11] == 1;
    return !options->stateful || IsSequenceLstm(value, error);
  } else {
    options->keep_num_dims = value[11] == 1;
  }
  return true;
}

}  // namespace tfrewprune
