// SPDX-License-Identifier: Apache-2.0
#include "delegate/claimed_node.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "format/payload.h"

namespace tfrewprune {
namespace {

using tflite::Context;
using tflite::Status;
using tflite::Tensor;

// Weights of a fully connected layer are read once an Invoke: where they do not
// begin a cache line that takes 20 to 27 % longer from the second-level cache,
// 4 % from memory. Those that may stay in that cache are copied. (Convolutions:
// 0 to 2 %.)
constexpr size_t kLine = 64, kSmallPayload = 1 << 20;

constexpr const char* kKindNames[] = {
    "TfrewpruneConv2D", "TfrewpruneFullyConnected", "TfrewpruneGRU",
    "TfrewpruneLSTM", "TfrewpruneRNN"};

}  // namespace

bool FindNode(Context* context, int index, NodeInGraph* found) {
  tflite::Node* node;
  tflite::Registration* registration;
  if (context->GetNodeAndRegistration(context, index, &node, &registration) !=
      tflite::kOk) {
    context->ReportError(context, "tfrewprune: TFLite gave no node %d.", index);
    return false;
  }
  *found = {node, {}, index};
  if (!FindOpKind(registration->custom_name, &found->kind)) {
    context->ReportError(context, "tfrewprune: unknown operator %s (node %d).",
                         registration->custom_name, index);
    return false;
  }
  return true;
}

ClaimedNode::~ClaimedNode() {
  GraphWorkspace::Release(workspace_);
  for (void* copy : payload_copy_) free(copy);
}

Status ClaimedNode::Fail(Context* context, const char* format, ...) const {
  char text[640];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  const Tensor* output = output_ >= 0 ? tensor(context, output_) : nullptr;
  const char* label =
      output != nullptr && output->name != nullptr ? output->name : "";
  char number[24] = "";  // TFLite adds it where only TFLite knows
  if (node_index_ >= 0) {
    snprintf(number, sizeof(number), "node %d, ", node_index_);
  }
  context->ReportError(context, "tfrewprune: %s (%soutput '%s'): %s",
                       kKindNames[static_cast<int>(options_.kind)], number,
                       label, text);
  return tflite::kError;
}

Status ClaimedNode::CheckTensors(Context* context, const tflite::Node& node,
                                 const Signature& signature) {
  const int inputs = node.inputs->size, outputs = node.outputs->size;
  if (inputs < signature.fewest || inputs > signature.most ||
      outputs != signature.outputs) {
    return Fail(context,
                "expected the inputs %s and %d output%s. Received: %d inputs "
                "and %d outputs.",
                signature.inputs, signature.outputs,
                signature.outputs == 1 ? "" : "s", inputs, outputs);
  }
  const int last = static_cast<int>(context->tensors_size) - 1;
  for (int i = 0; i < inputs; ++i) {
    const int index = node.inputs->data[i];
    const bool optional = (signature.optional >> i & 1) != 0;
    const int lowest = optional ? tflite::kOptionalTensor : 0;
    if (index < lowest || index > last) {
      return Fail(context,
                  "input %d must be a tensor from %d to %d. Received: %d.", i,
                  lowest, last, index);
    }
  }
  for (int i = 0; i < outputs; ++i) {
    if (node.outputs->data[i] < 0 || node.outputs->data[i] > last) {
      return Fail(context,
                  "the output must be a tensor from 0 to %d. "
                  "Received: %d.",
                  last, node.outputs->data[i]);
    }
  }
  output_ = node.outputs->data[0];
  return tflite::kOk;
}

Status ClaimedNode::ReadOptions(Context* context, const tflite::Node& node) {
  const OpKind kind = options_.kind;
  OptionError error;
  const int size = node.custom_initial_data_size;
  if (!ParseOpOptions(node.custom_initial_data, size < 0 ? 0 : size, kind,
                      &options_, &error)) {
    options_.kind = kind;
    return Fail(context,
                "custom_options are damaged: %s must be from %lld to %lld. "
                "Received: %lld.",
                error.field, static_cast<long long>(error.lowest),
                static_cast<long long>(error.highest),
                static_cast<long long>(error.received));
  }
  return tflite::kOk;
}

Status ClaimedNode::ReadPayload(Context* context, int index, bool fast,
                                int number, PackedOperator* packed) {
  const Tensor& tensor = context->tensors[index];
  if (tensor.allocation_type != tflite::kMmapRo ||
      tensor.data.data == nullptr) {
    return Fail(context,
                "the payload must be a constant of the model. Received: a "
                "tensor that is computed or empty.");
  }
  if (tensor.type != tflite::kUInt8) {
    return Fail(context,
                "the payload must be of TFLite type %d (uint8). Received: "
                "type %d.",
                tflite::kUInt8, tensor.type);
  }
  const void* data = tensor.data.data;
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  const bool misaligned = address % kPayloadAlignment != 0;
  if (misaligned ||
      (fast && address % kLine != 0 && tensor.bytes <= kSmallPayload)) {
    void** copy = &payload_copy_[number];
    if (posix_memalign(copy, kLine, tensor.bytes + 1) != 0) {
      *copy = nullptr;
      return Fail(context, "out of memory for a copy of %zu payload bytes.",
                  tensor.bytes);
    }
    memcpy(*copy, data, tensor.bytes);
    data = *copy;
    delegate_->Log(misaligned ? LogLevel::kWarning : LogLevel::kDebug,
                   "node %d: the model's payload is not aligned to %zu bytes "
                   "in memory, so %zu bytes were copied",
                   node_index_, misaligned ? kPayloadAlignment : kLine,
                   tensor.bytes);
  }
  if (const char* error = packed->ReadPayload(data, tensor.bytes)) {
    char header[256];
    DescribePayload(data, tensor.bytes, header, sizeof(header));
    return Fail(context, "the payload is damaged: %s. Received: %s.", error,
                header);
  }
  if (packed->rows() > INT32_MAX || packed->columns() > INT32_MAX) {
    return Fail(context,
                "the payload must have less than 2^31 rows and columns. "
                "Received: %u x %u.",
                packed->rows(), packed->columns());
  }
  return tflite::kOk;
}

Status ClaimedNode::AcquireWorkspace(Context* context) {
  workspace_ = delegate_->AcquireWorkspace(context);
  return workspace_ == nullptr ? Fail(context, "out of memory.") : tflite::kOk;
}

Status ClaimedNode::CheckVector(Context* context, int index, const char* name,
                                uint32_t count) const {
  const Tensor* vector = tensor(context, index);
  if (vector == nullptr) return tflite::kOk;
  const Shape shape = ShapeOf(*vector);
  if (vector->type != tflite::kFloat32 || shape.elements() != count) {
    char text[kShapeText];
    return Fail(context,
                "the %s must be float32 (type %d) with %u values. Received: "
                "type %d, shape %s.",
                name, tflite::kFloat32, count, vector->type, shape.Print(text));
  }
  return tflite::kOk;
}

Status ClaimedNode::ResizeOutput(Context* context, int index,
                                 const Shape& shape) const {
  // TFLite takes the array over and gives it to free().
  tflite::IntArray* dims = static_cast<tflite::IntArray*>(
      malloc(sizeof(tflite::IntArray) + shape.rank * sizeof(int)));
  if (dims == nullptr) return Fail(context, "out of memory for a shape.");
  dims->size = shape.rank;
  for (int i = 0; i < shape.rank; ++i) dims->data[i] = shape.dims[i];
  return context->ResizeTensor(context, &context->tensors[index], dims);
}

Resources ClaimedNode::ResourcesWith(ThreadPool* pool) const {
  Resources resources;
  resources.kernels = delegate_->kernels();
  resources.half_kernels = delegate_->half_kernels();
  resources.pool = pool;
  resources.workspace = &workspace_->workspace;
  resources.driver = delegate_->options().driver;
  resources.tuner = delegate_->tuner();
  return resources;
}

void ClaimedNode::LogDriver(const PackedOperator& packed) {
  const Driver* wanted = delegate_->options().driver;
  const Driver* taken = packed.driver();
  if (Tuner* tuner = delegate_->tuner()) {
    const Tuner::Chosen& chosen = packed.chosen();
    delegate_->Log(LogLevel::kDebug,
                   "node %d: driver %s on %d threads is %s, %.2f times as fast "
                   "as predicted best",
                   node_index_, taken->name, packed.threads(),
                   OriginName(chosen.origin), chosen.gain);
    if (const char* error = tuner->TakeWriteError()) {
      delegate_->Log(LogLevel::kWarning,
                     "what was measured could not be written to cache_path: "
                     "%s",
                     error);
    }
  }
  if (wanted != nullptr && wanted != taken) {
    delegate_->Log(LogLevel::kWarning,
                   "node %d: driver %s cannot do this layer; %s does it",
                   node_index_, wanted->name, taken->name);
  }
  if (taken != ReferenceDriver() || wanted == taken || warned_ ||
      delegate_->options().isa == Isa::kReference) {
    return;
  }
  warned_ = true;
  delegate_->Log(LogLevel::kWarning,
                 "node %d: no driver is made for this layer, so it runs in "
                 "plain loops, many times slower than a dense one",
                 node_index_);
}

}  // namespace tfrewprune
