// SPDX-License-Identifier: Apache-2.0
#include "delegate/node.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "delegate/delegate.h"
#include "delegate/shapes.h"
#include "format/op_options.h"
#include "format/payload.h"
#include "operators/packed_operator.h"

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

class PackedNode {
 public:
  explicit PackedNode(PackedDelegate* delegate) : delegate_(delegate) {}
  ~PackedNode() {
    GraphWorkspace::Release(workspace_);
    free(payload_copy_);
  }

  Status Init(Context* context, int node_index);
  Status Prepare(Context* context);
  Status Invoke(Context* context);

 private:
  Status ReadGraph(Context* context, int node_index);
  Status ReadPayload(Context* context);
  Status CheckBias(Context* context);
  Status CheckResidual(Context* context, const Shape& output);
  Status PrepareConv2D(Context* context, ThreadPool* pool, Shape* output);
  Status PrepareFullyConnected(Context* context, ThreadPool* pool,
                               Shape* output);
  void Announce(Context* context);
  Resources ResourcesWith(ThreadPool* pool);
  void LogDriver();
  Status ResizeOutput(Context* context, const Shape& shape);

  // Reports "tfrewprune: <operator> (node <n>, output '<name>'): <message>".
  __attribute__((format(printf, 3, 4))) Status Fail(Context* context,
                                                    const char* format,
                                                    ...) const;

  const char* name() const {
    return options_.kind == OpKind::kConv2D ? "TfrewpruneConv2D"
                                            : "TfrewpruneFullyConnected";
  }
  Tensor* tensor(Context* context, int index) const {
    return index == tflite::kOptionalTensor ? nullptr
                                            : &context->tensors[index];
  }

  PackedDelegate* delegate_;
  bool valid_ = false;     // Init went well
  bool prepared_ = false;  // the operator fits the present shapes
  bool warned_ = false;    // of plain loops
  int node_index_ = -1;
  // Indices, not pointers: TFLite may move its tensors.
  int input_ = -1, payload_ = -1, bias_ = -1, residual_ = -1, output_ = -1;
  OpOptions options_ = {};
  GraphWorkspace* workspace_ = nullptr;
  void* payload_copy_ = nullptr;  // where the model's is misaligned
  // What the operator was prepared for.
  ThreadPool* pool_ = nullptr;
  ConvGeometry geometry_ = {};
  size_t input_bytes_ = 0, output_bytes_ = 0;
  PackedOperator operator_;
};

Status PackedNode::Fail(Context* context, const char* format, ...) const {
  char text[640];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  const Tensor* output = output_ >= 0 ? tensor(context, output_) : nullptr;
  const char* label =
      output != nullptr && output->name != nullptr ? output->name : "";
  context->ReportError(context, "tfrewprune: %s (node %d, output '%s'): %s",
                       name(), node_index_, label, text);
  return tflite::kError;
}

Status PackedNode::Init(Context* context, int node_index) {
  if (ReadGraph(context, node_index) != tflite::kOk) return tflite::kError;
  if (ReadPayload(context) != tflite::kOk) return tflite::kError;
  workspace_ = delegate_->AcquireWorkspace(context);
  if (workspace_ == nullptr) return Fail(context, "out of memory.");
  if (delegate_->tuner() != nullptr) Announce(context);
  valid_ = true;
  return tflite::kOk;
}

// Which tensors and options the replaced node had.
Status PackedNode::ReadGraph(Context* context, int node_index) {
  node_index_ = node_index;
  tflite::Node* node;
  tflite::Registration* registration;
  if (context->GetNodeAndRegistration(context, node_index, &node,
                                      &registration) != tflite::kOk) {
    return Fail(context, "TFLite does not give the node.");
  }
  const OpKind kind = strcmp(registration->custom_name, kConv2DName) == 0
                          ? OpKind::kConv2D
                          : OpKind::kFullyConnected;
  options_.kind = kind;
  const int inputs = node->inputs->size;
  const int most = kind == OpKind::kConv2D ? 4 : 3;
  if (inputs < 2 || inputs > most || node->outputs->size != 1) {
    return Fail(
        context,
        "expected the inputs activation, payload and, optionally, bias%s "
        "and 1 output. Received: %d inputs and %d outputs.",
        most == 4 ? " and residual" : "", inputs, node->outputs->size);
  }
  const int last = static_cast<int>(context->tensors_size) - 1;
  for (int i = 0; i < inputs; ++i) {
    const int index = node->inputs->data[i];
    const int lowest = i == 2 ? tflite::kOptionalTensor : 0;
    if (index < lowest || index > last) {
      return Fail(context,
                  "input %d must be a tensor from %d to %d. Received: %d.", i,
                  lowest, last, index);
    }
  }
  if (node->outputs->data[0] < 0 || node->outputs->data[0] > last) {
    return Fail(context,
                "the output must be a tensor from 0 to %d. "
                "Received: %d.",
                last, node->outputs->data[0]);
  }
  input_ = node->inputs->data[0];
  payload_ = node->inputs->data[1];
  bias_ = inputs > 2 ? node->inputs->data[2] : tflite::kOptionalTensor;
  residual_ = inputs > 3 ? node->inputs->data[3] : tflite::kOptionalTensor;
  output_ = node->outputs->data[0];
  OptionError error;
  const int size = node->custom_initial_data_size;
  if (!ParseOpOptions(node->custom_initial_data, size < 0 ? 0 : size, kind,
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

// Checks the weights; they stay where the model has them.
Status PackedNode::ReadPayload(Context* context) {
  const Tensor& tensor = context->tensors[payload_];
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
  if (misaligned || (options_.kind == OpKind::kFullyConnected &&
                     address % kLine != 0 && tensor.bytes <= kSmallPayload)) {
    if (posix_memalign(&payload_copy_, kLine, tensor.bytes + 1) != 0) {
      payload_copy_ = nullptr;
      return Fail(context, "out of memory for a copy of %zu payload bytes.",
                  tensor.bytes);
    }
    memcpy(payload_copy_, data, tensor.bytes);
    data = payload_copy_;
    delegate_->Log(misaligned ? LogLevel::kWarning : LogLevel::kDebug,
                   "node %d: the model's payload is not aligned to %zu bytes "
                   "in memory, so %zu bytes were copied",
                   node_index_, misaligned ? kPayloadAlignment : kLine,
                   tensor.bytes);
  }
  if (const char* error = operator_.ReadPayload(data, tensor.bytes)) {
    char header[256];
    DescribePayload(data, tensor.bytes, header, sizeof(header));
    return Fail(context, "the payload is damaged: %s. Received: %s.", error,
                header);
  }
  if (operator_.rows() > INT32_MAX || operator_.columns() > INT32_MAX) {
    return Fail(context,
                "the payload must have less than 2^31 rows and columns. "
                "Received: %u x %u.",
                operator_.rows(), operator_.columns());
  }
  if (options_.kind == OpKind::kConv2D) {
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
  }
  return tflite::kOk;
}

Status PackedNode::CheckBias(Context* context) {
  const Tensor* bias = tensor(context, bias_);
  if (bias == nullptr) return tflite::kOk;
  const Shape shape = ShapeOf(*bias);
  if (bias->type != tflite::kFloat32 || shape.elements() != operator_.rows()) {
    char text[kShapeText];
    return Fail(context,
                "the bias must be float32 (type %d) with %u values. Received: "
                "type %d, shape %s.",
                tflite::kFloat32, operator_.rows(), bias->type,
                shape.Print(text));
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

Status PackedNode::Prepare(Context* context) {
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
  if (CheckBias(context) != tflite::kOk) return tflite::kError;
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
  return ResizeOutput(context, output);
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
  LogDriver();
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
  LogDriver();
  char text[160];
  operator_.Describe(text, sizeof(text));
  delegate_->Log(LogLevel::kDebug, "node %d: FullyConnected %d x %u -> %u, %s",
                 node_index_, geometry.batch, operator_.columns(),
                 operator_.rows(), text);
  return tflite::kOk;
}

Resources PackedNode::ResourcesWith(ThreadPool* pool) {
  Resources resources;
  resources.kernels = delegate_->kernels();
  resources.pool = pool;
  resources.workspace = &workspace_->workspace;
  resources.driver = delegate_->options().driver;
  resources.tuner = delegate_->tuner();
  return resources;
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

// What a user should know of the driver that was chosen.
void PackedNode::LogDriver() {
  const Driver* wanted = delegate_->options().driver;
  const Driver* taken = operator_.driver();
  if (Tuner* tuner = delegate_->tuner()) {
    const Tuner::Chosen& chosen = operator_.chosen();
    delegate_->Log(LogLevel::kDebug,
                   "node %d: driver %s on %d threads is %s, %.2f times as fast "
                   "as predicted best",
                   node_index_, taken->name, operator_.threads(),
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

Status PackedNode::ResizeOutput(Context* context, const Shape& shape) {
  // TFLite takes the array over and gives it to free().
  tflite::IntArray* dims = static_cast<tflite::IntArray*>(
      malloc(sizeof(tflite::IntArray) + shape.rank * sizeof(int)));
  if (dims == nullptr) return Fail(context, "out of memory for a shape.");
  dims->size = shape.rank;
  for (int i = 0; i < shape.rank; ++i) dims->data[i] = shape.dims[i];
  return context->ResizeTensor(context, &context->tensors[output_], dims);
}

Status PackedNode::Invoke(Context* context) {
  const Tensor& input = context->tensors[input_];
  const Tensor& output = context->tensors[output_];
  const Tensor* bias = tensor(context, bias_);
  const Tensor* residual = tensor(context, residual_);
  // A tensor of another size than Prepare saw would be read past its end.
  if (!prepared_ || input.bytes != input_bytes_ ||
      output.bytes != output_bytes_ ||
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

void* InitNode(Context* context, const char* buffer, size_t) {
  const auto* params = reinterpret_cast<const tflite::DelegateParams*>(buffer);
  void* memory = nullptr;
  // The operators may hold cache-line aligned members.
  if (posix_memalign(&memory, 64, sizeof(PackedNode)) != 0) {
    context->ReportError(context, "tfrewprune: out of memory.");
    return nullptr;
  }
  PackedDelegate* delegate = PackedDelegate::From(params->delegate);
  PackedNode* node = new (memory) PackedNode(delegate);
  if (node->Init(context, params->nodes_to_replace->data[0]) != tflite::kOk) {
    delegate->NodeRefused();
  }
  return node;
}

void FreeNode(Context*, void* buffer) {
  if (buffer == nullptr) return;
  static_cast<PackedNode*>(buffer)->~PackedNode();
  free(buffer);
}

Status PrepareNode(Context* context, tflite::Node* node) {
  if (node->user_data == nullptr) return tflite::kError;
  return static_cast<PackedNode*>(node->user_data)->Prepare(context);
}

Status InvokeNode(Context* context, tflite::Node* node) {
  return static_cast<PackedNode*>(node->user_data)->Invoke(context);
}

}  // namespace

tflite::Registration PackedNodeRegistration() {
  tflite::Registration registration = {};
  registration.init = InitNode;
  registration.free = FreeNode;
  registration.prepare = PrepareNode;
  registration.invoke = InvokeNode;
  registration.custom_name = kClaimedName;
  registration.version = 1;
  return registration;
}

}  // namespace tfrewprune
