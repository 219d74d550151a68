// SPDX-License-Identifier: Apache-2.0
//
// As much of TFLite as a delegate sees: one graph of nodes and tensors, and the
// callbacks of its context. Lets native tests (and sanitizers) drive the
// delegate's own entry points on graphs no converter would write.
#ifndef TFREWPRUNE_TESTS_NATIVE_FAKE_INTERPRETER_H_
#define TFREWPRUNE_TESTS_NATIVE_FAKE_INTERPRETER_H_

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "delegate/tflite_abi.h"

namespace tfrewprune {

class FakeInterpreter {
 public:
  FakeInterpreter() {
    context_ = {};
    context_.impl = this;
    context_.recommended_num_threads = -1;
    context_.GetExecutionPlan = GetExecutionPlan;
    context_.GetNodeAndRegistration = GetNodeAndRegistration;
    context_.ReplaceNodeSubsetsWithDelegateKernels = Replace;
    context_.ResizeTensor = ResizeTensor;
    context_.ReportError = ReportError;
  }
  FakeInterpreter(const FakeInterpreter&) = delete;
  ~FakeInterpreter() {
    for (Kernel& kernel : kernels_) {
      kernel.registration.free(&context_, kernel.node.user_data);
    }
    for (tflite::Tensor& tensor : tensors_) free(tensor.dims);
    for (void* memory : memory_) free(memory);
    for (tflite::IntArray* array : arrays_) free(array);
  }

  // A float32 variable; it has memory after Allocate().
  int AddTensor(std::vector<int> shape, const char* name = "tensor") {
    tflite::Tensor tensor = {};
    tensor.type = tflite::kFloat32;
    tensor.dims = Array(shape);
    tensor.name = name;
    tensors_.push_back(tensor);
    memory_.push_back(nullptr);
    SetBytes(&tensors_.back());
    context_.tensors = tensors_.data();
    context_.tensors_size = tensors_.size();
    return static_cast<int>(tensors_.size()) - 1;
  }
  // A uint8 constant; `data` stays with the caller.
  int AddConstant(const void* data, size_t bytes) {
    const int index = AddTensor({static_cast<int>(bytes)}, "constant");
    tflite::Tensor& constant = tensors_[index];
    constant.type = tflite::kUInt8;
    constant.allocation_type = tflite::kMmapRo;
    constant.data.data = const_cast<void*>(data);
    constant.bytes = bytes;
    return index;
  }
  void AddNode(const char* custom_name, std::vector<int> inputs,
               std::vector<int> outputs, const void* options, size_t bytes) {
    nodes_.emplace_back();
    Kernel& kernel = nodes_.back();
    kernel.registration = {};
    kernel.registration.custom_name = custom_name;
    kernel.node = {};
    kernel.inputs = Array(inputs);
    kernel.outputs = Array(outputs);
    kernel.node.inputs = kernel.inputs;
    kernel.node.outputs = kernel.outputs;
    kernel.node.custom_initial_data = options;
    kernel.node.custom_initial_data_size = static_cast<int>(bytes);
    arrays_.push_back(kernel.inputs);
    arrays_.push_back(kernel.outputs);
  }

  tflite::Status Apply(tflite::Delegate* delegate) {
    return delegate->Prepare(&context_, delegate);
  }
  // Prepares the claimed nodes, then gives every variable its memory.
  tflite::Status Allocate() {
    for (Kernel& kernel : kernels_) {
      const tflite::Status status =
          kernel.registration.prepare(&context_, &kernel.node);
      if (status != tflite::kOk) return status;
    }
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].allocation_type == tflite::kMmapRo) continue;
      // Exactly as long as the tensor: sanitizers see every slip.
      free(memory_[i]);
      memory_[i] = malloc(tensors_[i].bytes);
      tensors_[i].data.data = memory_[i];
    }
    return tflite::kOk;
  }
  tflite::Status Invoke() {
    for (Kernel& kernel : kernels_) {
      const tflite::Status status =
          kernel.registration.invoke(&context_, &kernel.node);
      if (status != tflite::kOk) return status;
    }
    return tflite::kOk;
  }
  void Resize(int index, std::vector<int> shape) {
    ResizeTensor(&context_, &tensors_[index], Array(shape));
  }

  tflite::Context& context() { return context_; }
  tflite::Tensor& tensor(int index) { return tensors_[index]; }
  std::vector<int> shape(int index) {
    const tflite::IntArray* dims = tensors_[index].dims;
    return std::vector<int>(dims->data, dims->data + dims->size);
  }
  size_t claimed() const { return kernels_.size(); }
  const std::string& errors() const { return errors_; }

 private:
  struct Kernel {
    tflite::Node node;
    tflite::Registration registration;
    tflite::IntArray* inputs;
    tflite::IntArray* outputs;
  };

  static FakeInterpreter* From(tflite::Context* context) {
    return static_cast<FakeInterpreter*>(context->impl);
  }
  static tflite::IntArray* Array(const std::vector<int>& values) {
    auto* array = static_cast<tflite::IntArray*>(
        malloc(sizeof(tflite::IntArray) + values.size() * sizeof(int)));
    array->size = static_cast<int>(values.size());
    std::copy(values.begin(), values.end(), array->data);
    return array;
  }
  static void SetBytes(tflite::Tensor* tensor) {
    tensor->bytes = sizeof(float);
    for (int i = 0; i < tensor->dims->size; ++i) {
      tensor->bytes *= static_cast<size_t>(
          tensor->dims->data[i] < 0 ? 0 : tensor->dims->data[i]);
    }
  }
  static tflite::Status GetExecutionPlan(tflite::Context* context,
                                         tflite::IntArray** plan) {
    FakeInterpreter* self = From(context);
    std::vector<int> order(self->nodes_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    *plan = Array(order);
    self->arrays_.push_back(*plan);
    return tflite::kOk;
  }
  static tflite::Status GetNodeAndRegistration(
      tflite::Context* context, int index, tflite::Node** node,
      tflite::Registration** registration) {
    Kernel& kernel = From(context)->nodes_[index];
    *node = &kernel.node;
    *registration = &kernel.registration;
    return tflite::kOk;
  }
  static tflite::Status Replace(tflite::Context* context,
                                tflite::Registration registration,
                                const tflite::IntArray* nodes,
                                tflite::Delegate* delegate) {
    FakeInterpreter* self = From(context);
    tflite::DelegateParams params = {};
    params.delegate = delegate;
    params.nodes_to_replace = const_cast<tflite::IntArray*>(nodes);
    self->kernels_.emplace_back();
    Kernel& kernel = self->kernels_.back();
    kernel.registration = registration;
    kernel.node = {};
    kernel.node.user_data = registration.init(
        context, reinterpret_cast<const char*>(&params), sizeof(params));
    return tflite::kOk;
  }
  static tflite::Status ResizeTensor(tflite::Context*, tflite::Tensor* tensor,
                                     tflite::IntArray* shape) {
    free(tensor->dims);
    tensor->dims = shape;
    SetBytes(tensor);
    return tflite::kOk;
  }
  static void ReportError(tflite::Context* context, const char* format, ...) {
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    From(context)->errors_ += std::string(text) + "\n";
  }

  tflite::Context context_;
  std::vector<tflite::Tensor> tensors_;
  std::deque<Kernel> nodes_;    // as in the model
  std::deque<Kernel> kernels_;  // claimed
  std::vector<void*> memory_;   // of the tensors
  std::vector<tflite::IntArray*> arrays_;
  std::string errors_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_TESTS_NATIVE_FAKE_INTERPRETER_H_
