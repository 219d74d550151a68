// SPDX-License-Identifier: Apache-2.0
//
// The custom_options block of our operators (PAYLOAD.md, "Custom operators").
#ifndef TFREWPRUNE_FORMAT_OP_OPTIONS_H_
#define TFREWPRUNE_FORMAT_OP_OPTIONS_H_

#include <cstddef>
#include <cstdint>

namespace tfrewprune {

// The names of the operators in a file. LiteRT without the delegate prints the
// name, and nothing else of ours, when it refuses a model: it says where to go.
#define TFREWPRUNE_RUN_IT " (run it in tfrewprune.Interpreter)"
inline constexpr char kConv2DName[] = "TfrewpruneConv2D" TFREWPRUNE_RUN_IT;
inline constexpr char kFullyConnectedName[] =
    "TfrewpruneFullyConnected" TFREWPRUNE_RUN_IT;
inline constexpr char kGruName[] = "TfrewpruneGRU" TFREWPRUNE_RUN_IT;
inline constexpr char kLstmName[] = "TfrewpruneLSTM" TFREWPRUNE_RUN_IT;
inline constexpr char kRnnName[] = "TfrewpruneRNN" TFREWPRUNE_RUN_IT;
#undef TFREWPRUNE_RUN_IT

enum class OpKind : int32_t {
  kConv2D = 0,
  kFullyConnected = 1,
  kGru = 2,
  kLstm = 3,
  kRnn = 4,
};

// The kind of an operator of that name; false where it is none of ours.
bool FindOpKind(const char* custom_name, OpKind* kind);
inline bool IsRecurrent(OpKind kind) { return kind >= OpKind::kGru; }

// What a recurrent operator gives out before its states.
enum class SequenceOutput : int32_t { kNone = 0, kAll = 1, kLast = 2 };

struct OpOptions {
  OpKind kind;
  int32_t activation;  // 0 .. 5, TFLite's enum
  // Conv2D only.
  int32_t kernel_h, kernel_w;
  int32_t in_channels;
  int32_t stride_h, stride_w;
  int32_t dilation_h, dilation_w;
  bool same_padding;
  // FullyConnected only.
  bool keep_num_dims;
  // GRU, LSTM and RNN only.
  int32_t cell_activation, gate_activation;  // CellActivation
  bool reset_after, go_backwards, zero_output;
  SequenceOutput output;
  float cell_clip;  // LSTM: 0 is none
  // States are variable tensors, which it begins with and leaves its last in.
  bool stateful;
};

// A field of the block that holds what it must not.
struct OptionError {
  const char* field;
  int64_t lowest, highest;  // what was expected
  int64_t received;
};

// Reads the block of an operator of the given kind. Returns false and fills
// `error` when a field is outside its range; never reads outside
// [data, data + bytes). `data` needs no alignment.
bool ParseOpOptions(const void* data, size_t bytes, OpKind kind,
                    OpOptions* options, OptionError* error);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_FORMAT_OP_OPTIONS_H_
