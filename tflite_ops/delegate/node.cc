// SPDX-License-Identifier: Apache-2.0
#include "delegate/node.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "delegate/claimed_node.h"
#include "delegate/registration.h"

namespace tfrewprune {
namespace {

using tflite::Context;
using tflite::Status;
using tflite::Tensor;

class PackedNode : private ClaimedNode {
 public:
  explicit PackedNode(PackedDelegate* delegate) : ClaimedNode(delegate) {}

  Status Init(Context* context, const NodeInGraph& place);
  Status Prepare(Context* context, const tflite::Node& node);
  Status Invoke(Context* context);

 private:
  Status ReadGraph(Context* context, const tflite::Node& node);
  Status CheckColumns(Context* context) const;
  Status CheckResidual(Context* context, const Shape& output);
  Status PrepareConv2D(Context* context, ThreadPool* pool, Shape* output);
  Status PrepareFullyConnected(Context* context, ThreadPool* pool,
                               Shape* output);
  void Announce(Context* context);

  bool valid_ = false;     // Init went well
  bool prepared_ = false;  // the operator fits the present shapes
  int input_ = -1, payload_ = -1, bias_ = -1, residual_ = -1;
  // What the operator was prepared for.
  ThreadPool* pool_ = nullptr;
  ConvGeometry geometry_ = {};
  size_t input_bytes_ = 0, output_bytes_ = 0;
  PackedOperator operator_;
};

Status PackedNode::Init(Context* context, const NodeInGraph& place) {
  SetPlace(place);
  if (ReadGraph(context, *place.node) != tflite::kOk) return tflite::kError;
  const bool conv = options_.kind == OpKind::kConv2D;
  if (ReadPayload(context, payload_, !conv, 0, &operator_) != tflite::kOk ||
      (conv && CheckColumns(context) != tflite::kOk) ||
      AcquireWorkspace(context) != tflite::kOk) {
    return tflite::kError;
  }
  if (delegate_->tuner() != nullptr) Announce(context);
  valid_ = true;
  return tflite::kOk;
}

Status PackedNode::ReadGraph(Context* context, const tflite::Node& node) {
  const bool conv = options_.kind == OpKind::kConv2D;
  const Signature signature = {
      conv ? "activation, payload and, optionally, bias and residual"
           : "activation, payload and, optionally, bias",
      2, conv ? 4 : 3, 1u << 2, 1};
  if (CheckTensors(context, node, signature) != tflite::kOk) {
    return tflite::kError;
  }
  const int inputs = node.inputs->size;
  input_ = node.inputs->data[0];
  payload_ = node.inputs->data[1];
  bias_ = inputs > 2 ? node.inputs->data[2] : tflite::kOptionalTensor;
  residual_ = inputs > 3 ? node.inputs->data[3] : tflite::kOptionalTensor;
  return ReadOptions(context, node);
}

Status PackedNode::CheckColumns(Context* context) const {
  const int64_t taps = int64_t{options_.kernel_h} * options_.kernel_w;
  // `taps` is at most 2^40: the division keeps the product out of reach.
  if (taps > INT32_MAX / options_.in_channels ||
      taps * options_.in_channels != operator_.columns()) {
    return Fail(context,
                "the payload must have kernel height x kernel width x input "
                "channels = %d x %d x %d columns. Received: %u columns.",
                options_.kernel_h, options_.kernel_w, options_.in_channels,
                operator_.columns());
  }
  return tflite::kOk;
}

Status PackedNode::CheckResidual(Context* context, const Shape& output) {
  const Tensor* residual = tensor(context, residual_);
  if (residual == nullptr) return tflite::kOk;
  const Shape shape = ShapeOf(*residual);
  if (residual->type != tflite::kFloat32 || !shape.Same(output)) {
    char expected[kShapeText], received[kShapeText];
    return Fail(context,
                "the residual must be float32 (type %d) and shaped as the "
                "output, %s. Received: type %d, shape %s.",
                tflite::kFloat32, output.Print(expected), residual->type,
                shape.Print(received));
  }
  return tflite::kOk;
}

Status PackedNode::Prepare(Context* context, const tflite::Node&) {
  if (!valid_) {
    return Fail(context, "the node was refused when it was initialised.");
  }
  prepared_ = false;
  const Tensor& input = context->tensors[input_];
  if (input.type != tflite::kFloat32 ||
      context->tensors[output_].type != tflite::kFloat32) {
    return Fail(context,
                "activation and output must be of TFLite type %d (float32). "
                "Received: types %d and %d.",
                tflite::kFloat32, input.type, context->tensors[output_].type);
  }
  if (CheckVector(context, bias_, "bias", operator_.rows()) != tflite::kOk)
    return tflite::kError;
  ThreadPool* pool = delegate_->PoolFor(context);
  if (pool == nullptr) return Fail(context, "out of memory for threads.");
  Shape output;
  const Status status = options_.kind == OpKind::kConv2D
                            ? PrepareConv2D(context, pool, &output)
                            : PrepareFullyConnected(context, pool, &output);
  if (status != tflite::kOk) return status;
  if (CheckResidual(context, output) != tflite::kOk) return tflite::kError;
  input_bytes_ = ShapeOf(input).elements() * sizeof(float);
  output_bytes_ = output.elements() * sizeof(float);
  prepared_ = true;
  return ResizeOutput(context, output_, output);
}

Status PackedNode::PrepareConv2D(Context* context, ThreadPool* pool,
                                 Shape* output) {
  const Shape input = ShapeOf(context->tensors[input_]);
  ConvGeometry geometry;
  char error[256];
  if (!Conv2DShape(options_, operator_.rows(), input, &geometry, output, error,
                   sizeof(error))) {
    return Fail(context, "%s", error);
  }
  if (output->elements() == 0) return tflite::kOk;
  if (pool == pool_ && memcmp(&geometry, &geometry_, sizeof(geometry)) == 0) {
    return tflite::kOk;
  }
  pool_ = nullptr;
  const char* message = operator_.PrepareConv2D(
      geometry, static_cast<Activation>(options_.activation),
      ResourcesWith(pool), residual_ != tflite::kOptionalTensor);
  if (message != nullptr) {
    char text[kShapeText];
    return Fail(context, "%s. Received: input %s, %u output channels.", message,
                input.Print(text), operator_.rows());
  }
  geometry_ = geometry;
  pool_ = pool;
  LogDriver(operator_);
  char text[160];
  operator_.Describe(text, sizeof(text));
  delegate_->Log(LogLevel::kDebug,
                 "node %d: Conv2D %dx%dx%dx%d -> %dx%dx%u, kernel %dx%d, %s",
                 node_index_, geometry.batch, geometry.in_h, geometry.in_w,
                 geometry.in_c, geometry.out_h, geometry.out_w,
                 operator_.rows(), geometry.kernel_h, geometry.kernel_w, text);
  return tflite::kOk;
}

Status PackedNode::PrepareFullyConnected(Context* context, ThreadPool* pool,
                                         Shape* output) {
  const Shape input = ShapeOf(context->tensors[input_]);
  ConvGeometry geometry = {};
  char error[256];
  if (!FullyConnectedShape(options_, operator_.rows(), operator_.columns(),
                           input, &geometry.batch, output, error,
                           sizeof(error))) {
    return Fail(context, "%s", error);
  }
  if (output->elements() == 0) return tflite::kOk;
  if (pool == pool_ && geometry.batch == geometry_.batch) return tflite::kOk;
  pool_ = nullptr;
  const char* message = operator_.PrepareFullyConnected(
      geometry.batch, static_cast<Activation>(options_.activation),
      ResourcesWith(pool));
  if (message != nullptr) {
    char text[kShapeText];
    return Fail(context, "%s. Received: input %s, %u outputs.", message,
                input.Print(text), operator_.rows());
  }
  geometry_ = geometry;
  pool_ = pool;
  LogDriver(operator_);
  char text[160];
  operator_.Describe(text, sizeof(text));
  delegate_->Log(LogLevel::kDebug, "node %d: FullyConnected %d x %u -> %u, %s",
                 node_index_, geometry.batch, operator_.columns(),
                 operator_.rows(), text);
  return tflite::kOk;
}

// Tells the tuner of the layer as the file has it. Inputs may be resized yet,
// but then most layers change alike.
void PackedNode::Announce(Context* context) {
  ThreadPool* pool = delegate_->PoolFor(context);
  if (pool == nullptr) return;
  const Shape input = ShapeOf(context->tensors[input_]);
  const bool convolution = options_.kind == OpKind::kConv2D;
  ConvGeometry geometry = {};
  Shape output;
  char error[256];
  if (convolution) {
    if (!Conv2DShape(options_, operator_.rows(), input, &geometry, &output,
                     error, sizeof(error))) {
      return;
    }
  } else {
    int batch;
    if (!FullyConnectedShape(options_, operator_.rows(), operator_.columns(),
                             input, &batch, &output, error, sizeof(error))) {
      return;
    }
    geometry = RowOfPixels(batch, operator_.columns());
  }
  if (output.elements() <= 0) return;
  operator_.Announce(geometry, ResourcesWith(pool),
                     residual_ != tflite::kOptionalTensor);
}

Status PackedNode::Invoke(Context* context) {
  if (!prepared_) return Fail(context, "the node was not prepared.");
  const Tensor& input = context->tensors[input_];
  const Tensor& output = context->tensors[output_];
  const Tensor* bias = tensor(context, bias_);
  const Tensor* residual = tensor(context, residual_);
  // A tensor of another size than Prepare saw would be read past its end.
  if (input.bytes != input_bytes_ || output.bytes != output_bytes_ ||
      (bias != nullptr && bias->bytes != operator_.rows() * sizeof(float)) ||
      (residual != nullptr && residual->bytes != output_bytes_)) {
    return Fail(context,
                "tensors changed since they were allocated: expected %zu input "
                "and %zu output bytes. Received: %zu and %zu.",
                input_bytes_, output_bytes_, input.bytes, output.bytes);
  }
  if (output_bytes_ == 0) return tflite::kOk;
  const float* bias_values = bias == nullptr ? nullptr : bias->data.f;
  const float* addend = residual == nullptr ? nullptr : residual->data.f;
  if (input.data.f == nullptr || output.data.f == nullptr ||
      (bias != nullptr && bias_values == nullptr) ||
      (residual != nullptr && addend == nullptr)) {
    return Fail(context, "a tensor has no memory; allocate tensors first.");
  }
  const int64_t begin = delegate_->BeginRun();
  operator_.Invoke({input.data.f, bias_values, addend, output.data.f});
  delegate_->EndRun(node_index_, begin, operator_.threads(),
                    operator_.driver()->name);
  return tflite::kOk;
}

}  // namespace

tflite::Registration PackedNodeRegistration() {
  return RegistrationOf<PackedNode>();
}

tflite::Registration PackedOpRegistration(OpKind kind) {
  return kind == OpKind::kConv2D
             ? OpRegistrationOf<PackedNode, OpKind::kConv2D>()
             : OpRegistrationOf<PackedNode, OpKind::kFullyConnected>();
}

}  // namespace tfrewprune
