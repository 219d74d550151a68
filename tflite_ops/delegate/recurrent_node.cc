// SPDX-License-Identifier: Apache-2.0
//
// A claimed GRU, LSTM or RNN node around one RecurrentOperator.
#include <cstring>

#include "delegate/claimed_node.h"
#include "delegate/registration.h"
#include "operators/recurrent.h"

namespace tfrewprune {
namespace {

using tflite::Context;
using tflite::Status;
using tflite::Tensor;

// The inputs of the operator, in order (PAYLOAD.md).
enum Input {
  kX,
  kKernel,
  kRecurrent,
  kCandidate,
  kBias,
  kRecurrentBias,
  kMask,
  kHidden,
  kCell,
  kInputs,
};

// Whether a tensor is among the outputs that TFLite gives a node memory for.
bool IsRead(const tflite::Node& node, int tensor) {
  if (node.outputs == nullptr) return true;
  for (int i = 0; i < node.outputs->size; ++i) {
    if (node.outputs->data[i] == tensor) return true;
  }
  return false;
}

class RecurrentNode : private ClaimedNode {
 public:
  explicit RecurrentNode(PackedDelegate* delegate) : ClaimedNode(delegate) {}

  Status Init(Context* context, const NodeInGraph& place);
  Status Prepare(Context* context, const tflite::Node& node);
  Status Invoke(Context* context);

 private:
  bool lstm() const { return options_.kind == OpKind::kLstm; }
  bool has_sequence() const { return options_.output != SequenceOutput::kNone; }
  // Where states are: inputs that are kept, or outputs.
  bool stateful() const { return options_.stateful; }
  Status CheckShape(Context* context, int input, const char* name,
                    tflite::Type type, const Shape& expected) const;
  Status PrepareOperator(Context* context);

  bool valid_ = false, prepared_ = false;
  int input_[kInputs];
  int outputs_ = 0, outputs_at_[3];  // what all steps give out, h, c
  // What the operator was prepared for.
  int batch_ = 0, steps_ = 0;
  size_t input_bytes_[kInputs] = {}, output_bytes_[3] = {};
  // TFLite gives no memory to an output that nothing reads; states need some.
  bool read_[3] = {};
  Buffer<float> unread_[3];
  RecurrentOperator operator_;
};

Status RecurrentNode::Init(Context* context, const NodeInGraph& place) {
  const tflite::Node& node = *place.node;
  SetPlace(place);
  if (ReadOptions(context, node) != tflite::kOk) return tflite::kError;
  outputs_ = stateful() ? 1 : 1 + has_sequence() + lstm();
  const bool apart = options_.kind == OpKind::kGru && !options_.reset_after;
  uint32_t optional = 1u << kBias | 1u << kMask;
  if (!stateful()) optional |= 1u << kHidden | 1u << kCell;
  if (!apart) optional |= 1u << kCandidate;
  optional |= 1u << kRecurrentBias;
  const Signature signature = {
      "sequence, kernel, recurrent kernel, candidate's recurrent kernel, bias, "
      "recurrent bias, mask, state and cell state (-1 where there is none)",
      kInputs, kInputs, optional, outputs_};
  if (CheckTensors(context, node, signature) != tflite::kOk) {
    return tflite::kError;
  }
  memcpy(input_, node.inputs->data, sizeof(input_));
  memcpy(outputs_at_, node.outputs->data, outputs_ * sizeof(int));
  // What the operator has no use for must not be there.
  struct {
    int input;
    bool allowed;
    const char* name;
  } const absent[] = {
      {kCandidate, apart, "a candidate's recurrent kernel"},
      {kRecurrentBias, options_.reset_after, "a recurrent bias"},
      {kMask, !stateful(), "a mask"},
      {kCell, lstm(), "a cell state"}};
  for (const auto& one : absent) {
    if (!one.allowed && input_[one.input] != tflite::kOptionalTensor) {
      return Fail(context,
                  "expected no input %d: the operator has not got %s. "
                  "Received: tensor %d.",
                  one.input, one.name, input_[one.input]);
    }
  }
  for (int i = 0; i < (apart ? 3 : 2); ++i) {
    if (ReadPayload(context, input_[kKernel + i], true, i,
                    operator_.matrix(i)) != tflite::kOk) {
      return tflite::kError;
    }
  }
  if (const char* error = operator_.SetOptions(options_)) {
    return Fail(context,
                "%s. Received: a kernel of %u x %u, a recurrent kernel of %u x "
                "%u.",
                error, operator_.matrix(0)->rows(),
                operator_.matrix(0)->columns(), operator_.matrix(1)->rows(),
                operator_.matrix(1)->columns());
  }
  if (AcquireWorkspace(context) != tflite::kOk) return tflite::kError;
  valid_ = true;
  return tflite::kOk;
}

Status RecurrentNode::CheckShape(Context* context, int input, const char* name,
                                 tflite::Type type,
                                 const Shape& expected) const {
  const Tensor* tensor = this->tensor(context, input_[input]);
  if (tensor == nullptr) return tflite::kOk;
  const Shape shape = ShapeOf(*tensor);
  if (tensor->type != type || !shape.Same(expected)) {
    char wanted[kShapeText], received[kShapeText];
    return Fail(context,
                "the %s must be of TFLite type %d with shape %s. Received: "
                "type %d, shape %s.",
                name, type, expected.Print(wanted), tensor->type,
                shape.Print(received));
  }
  return tflite::kOk;
}

Status RecurrentNode::Prepare(Context* context, const tflite::Node& node) {
  if (!valid_) {
    return Fail(context, "the node was refused when it was initialised.");
  }
  prepared_ = false;
  const Tensor& x = context->tensors[input_[kX]];
  const Shape sequence = ShapeOf(x);
  char text[kShapeText];
  if (x.type != tflite::kFloat32 || sequence.rank != 3 ||
      sequence.dims[2] != operator_.features() || sequence.elements() < 0) {
    return Fail(context,
                "the sequence must be float32 (type %d) [batch, steps, %lld] "
                "with less than 2^31 values. Received: type %d, shape %s.",
                tflite::kFloat32, static_cast<long long>(operator_.features()),
                x.type, sequence.Print(text));
  }
  batch_ = sequence.dims[0];
  steps_ = sequence.dims[1];
  const int units = static_cast<int>(operator_.units());
  const int64_t rows = operator_.gates() * operator_.units();
  Shape state, mask, all;
  state.rank = mask.rank = 2;
  all.rank = 3;
  state.dims[0] = mask.dims[0] = all.dims[0] = batch_;
  mask.dims[1] = all.dims[1] = steps_;
  state.dims[1] = all.dims[2] = units;
  if (all.elements() < 0 || state.elements() < 0) {
    return Fail(context,
                "the output must have less than 2^31 values. Received: output "
                "%s.",
                all.Print(text));
  }
  const uint32_t count = static_cast<uint32_t>(rows);
  const uint32_t inner = operator_.matrix(1)->rows();
  if (CheckVector(context, input_[kBias], "bias", count) != tflite::kOk ||
      CheckVector(context, input_[kRecurrentBias], "recurrent bias", inner) !=
          tflite::kOk ||
      CheckShape(context, kMask, "mask", tflite::kBool, mask) != tflite::kOk ||
      CheckShape(context, kHidden, "state", tflite::kFloat32, state) !=
          tflite::kOk ||
      CheckShape(context, kCell, "cell state", tflite::kFloat32, state) !=
          tflite::kOk) {
    return tflite::kError;
  }
  for (int input = kHidden; input <= kCell && stateful(); ++input) {
    if (!context->tensors[input_[input]].is_variable) {
      return Fail(context,
                  "the states of a stateful LSTM must be variable tensors. "
                  "Received: input %d, tensor %d, which is none.",
                  input, input_[input]);
    }
  }
  for (int i = 0; i < outputs_; ++i) {
    const Tensor& output = context->tensors[outputs_at_[i]];
    if (output.type != tflite::kFloat32) {
      return Fail(context,
                  "output %d must be of TFLite type %d (float32). Received: "
                  "type %d.",
                  i, tflite::kFloat32, output.type);
    }
    read_[i] = IsRead(node, outputs_at_[i]);
    const bool sequence_out = i == 0 && options_.output == SequenceOutput::kAll;
    const Shape& shape = sequence_out ? all : state;
    output_bytes_[i] = shape.elements() * sizeof(float);
    if (ResizeOutput(context, outputs_at_[i], shape) != tflite::kOk) {
      return tflite::kError;
    }
    const bool is_state = i > 0 || !has_sequence();
    if (!read_[i] && is_state && !unread_[i].Allocate(state.elements())) {
      return Fail(context, "%s.", kOutOfMemory);
    }
  }
  for (int i = 0; i < kInputs; ++i) {
    const Tensor* input = tensor(context, input_[i]);
    input_bytes_[i] = input == nullptr ? 0 : input->bytes;
  }
  return PrepareOperator(context);
}

Status RecurrentNode::PrepareOperator(Context* context) {
  ThreadPool* pool = delegate_->PoolFor(context);
  if (pool == nullptr) return Fail(context, "out of memory for threads.");
  Resources resources = ResourcesWith(pool);
  // The tuner times products with weights as cold as a model leaves them; these
  // are warm from the step before.
  resources.tuner = nullptr;
  resources.half_kernels = nullptr;  // errors would add up from step to step
  const char* error = operator_.Prepare(batch_, steps_, resources);
  if (error != nullptr) {
    return Fail(context, "%s. Received: batch %d, %d steps, %lld units.", error,
                batch_, steps_, static_cast<long long>(operator_.units()));
  }
  prepared_ = true;
  if (batch_ == 0 || steps_ == 0) return tflite::kOk;
  for (int i = 0; i < operator_.matrices(); ++i) {
    char text[160];
    LogDriver(*operator_.matrix(i));
    operator_.matrix(i)->Describe(text, sizeof(text));
    delegate_->Log(LogLevel::kDebug, "node %d: matrix %d of %u x %u, %s",
                   node_index_, i, operator_.matrix(i)->rows(),
                   operator_.matrix(i)->columns(), text);
  }
  return tflite::kOk;
}

Status RecurrentNode::Invoke(Context* context) {
  if (!prepared_) return Fail(context, "the node was not prepared.");
  // A tensor of another size than Prepare saw would be read past its end.
  bool same = true;
  float* floats[kInputs] = {};
  for (int i = 0; i < kInputs; ++i) {
    const Tensor* input = tensor(context, input_[i]);
    if (input == nullptr) continue;
    same = same && input->bytes == input_bytes_[i];
    floats[i] = input->data.f;
    if (floats[i] == nullptr && input->bytes > 0) {
      return Fail(context, "a tensor has no memory; allocate tensors first.");
    }
  }
  float* output[3] = {nullptr, floats[kHidden], floats[kCell]};
  for (int i = 0; i < outputs_; ++i) {
    if (!read_[i]) {
      output[i] = unread_[i].get();
      continue;
    }
    const Tensor& tensor = context->tensors[outputs_at_[i]];
    same = same && tensor.bytes == output_bytes_[i];
    output[i] = tensor.data.f;
    if (output[i] == nullptr && tensor.bytes > 0) {
      return Fail(context, "a tensor has no memory; allocate tensors first.");
    }
  }
  if (!same) {
    return Fail(context, "tensors changed since they were allocated.");
  }
  const int64_t begin = delegate_->BeginRun();
  const int states = has_sequence() ? 1 : 0;
  operator_.Invoke({floats[kX], floats[kBias], floats[kRecurrentBias],
                    reinterpret_cast<const uint8_t*>(floats[kMask]),
                    floats[kHidden], floats[kCell],
                    states == 1 ? output[0] : nullptr, output[states],
                    lstm() ? output[states + 1] : nullptr});
  // Named after the product that every step does.
  const PackedOperator& step = *operator_.matrix(1);
  const bool ran = batch_ > 0 && steps_ > 0;
  delegate_->EndRun(node_index_, begin, ran ? step.threads() : 1,
                    ran ? step.driver()->name : "none");
  return tflite::kOk;
}

}  // namespace

tflite::Registration RecurrentNodeRegistration() {
  return RegistrationOf<RecurrentNode>();
}

tflite::Registration RecurrentOpRegistration(OpKind kind) {
  switch (kind) {
    case OpKind::kGru:
      return OpRegistrationOf<RecurrentNode, OpKind::kGru>();
    case OpKind::kLstm:
      return OpRegistrationOf<RecurrentNode, OpKind::kLstm>();
    default:
      return OpRegistrationOf<RecurrentNode, OpKind::kRnn>();
  }
}

}  // namespace tfrewprune
