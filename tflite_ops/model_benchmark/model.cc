// SPDX-License-Identifier: Apache-2.0
#include "model_benchmark/model.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "delegate/accelerator.h"

namespace tfrewprune {
namespace {

constexpr int kCpu = 1;  // kLiteRtHwAcceleratorCpu
constexpr int kRead = 0, kWrite = 1;
constexpr int kFloat32 = 1;
constexpr int kMinLoggerSeverity = 25, kIntegerOption = 2, kErrors = 3;

// Bytes of one value, 0 for types that are not plain numbers.
int ElementBytes(int type) {
  switch (type) {
    case 3:  // uint8
    case 6:  // bool
    case 9:  // int8
      return 1;
    case 7:   // int16
    case 10:  // float16
    case 17:  // uint16
      return 2;
    case kFloat32:
    case 2:   // int32
    case 16:  // uint32
      return 4;
    case 4:   // int64
    case 11:  // float64
    case 13:  // uint64
      return 8;
    default:
      return 0;
  }
}

// Knuth's linear congruential generator; its upper bits are good enough.
uint32_t Next(uint64_t* state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(*state >> 40);  // 24 bits
}

}  // namespace

bool Model::Check(LiteRtStatus status, const char* what) const {
  if (status == 0) return true;
  dprintf(2, "tfrewprune_benchmark: %s: LiteRT could not %s (status %d)\n",
          path_, what, status);
  return false;
}

Model::~Model() {
  for (int i = 0; i < made_[1]; ++i) {
    litert_.DestroyTensorBuffer(input_[i].buffer);
  }
  for (int i = 0; i < made_[0]; ++i) {
    litert_.DestroyTensorBuffer(output_[i].buffer);
  }
  if (compiled_ != nullptr) litert_.DestroyCompiledModel(compiled_);
  if (options_ != nullptr) litert_.DestroyOptions(options_);
  if (model_ != nullptr) litert_.DestroyModel(model_);
  if (environment_ != nullptr) litert_.DestroyEnvironment(environment_);
}

bool Model::Load(const char* path, int threads,
                 const DelegateOptions* options) {
  path_ = path;
  const LiteRtEnvironmentOption quiet = {kMinLoggerSeverity,
                                         {kIntegerOption, kErrors}};
  if (!Check(litert_.CreateEnvironment(1, &quiet, &environment_), "start")) {
    return false;
  }
  if (options != nullptr) {
    if (const char* wrong =
            RegisterAccelerator(environment_, FindLiteRtSymbol, *options)) {
      dprintf(2, "tfrewprune_benchmark: %s\n", wrong);
      return false;
    }
  }
  return Check(litert_.CreateModelFromFile(environment_, path, &model_),
               "read the file") &&
         Check(litert_.GetModelSignature(model_, 0, &signature_),
               "find a signature") &&
         Compile(threads) && MakeInputs() && MakeOutputs();
}

bool Model::Compile(int threads) {
  LiteRtHandle cpu = nullptr;
  snprintf(threads_, sizeof(threads_), "num_threads = %d\n", threads);
  return Check(litert_.CreateOptions(&options_), "make options") &&
         Check(litert_.SetOptionsHardwareAccelerators(options_, kCpu),
               "choose the CPU") &&
         Check(litert_.CreateOpaqueOptions(
                   "xnnpack", threads_, [](void*) {}, &cpu),
               "make options") &&
         Check(litert_.AddOpaqueOptions(options_, cpu), "set threads") &&
         Check(litert_.CreateCompiledModel(environment_, model_, options_,
                                           &compiled_),
               "compile the model");
}

bool Model::MakeBuffer(bool input, size_t index, const LiteRtLayout& layout) {
  LiteRtHandle tensor = nullptr, requirements = nullptr, buffer = nullptr;
  LiteRtTensorType type;
  const auto find = input ? litert_.GetSignatureInputTensorByIndex
                          : litert_.GetSignatureOutputTensorByIndex;
  const auto require = input ? litert_.GetCompiledModelInputBufferRequirements
                             : litert_.GetCompiledModelOutputBufferRequirements;
  if (!Check(find(signature_, index, &tensor), "find a tensor") ||
      !Check(litert_.GetRankedTensorType(tensor, &type), "tell a type")) {
    return false;
  }
  type.layout = layout;
  if (!Check(require(compiled_, 0, index, &requirements),
             "tell what a buffer needs") ||
      !Check(litert_.CreateManagedTensorBufferFromRequirements(
                 environment_, &type, requirements, &buffer),
             "make a buffer")) {
    return false;
  }
  int64_t count = 1;
  for (int i = 0; i < layout.rank(); ++i) count *= layout.dimensions[i];
  (input ? input_ : output_)[made_[input]++] = {buffer, type.element_type,
                                                count};
  return true;
}

bool Model::MakeInputs() {
  if (!Check(litert_.GetNumSignatureInputs(signature_, &inputs_), "count") ||
      !Check(litert_.GetNumSignatureOutputs(signature_, &outputs_), "count")) {
    return false;
  }
  if (inputs_ > kMostTensors || outputs_ > kMostTensors) {
    dprintf(2,
            "tfrewprune_benchmark: %s: expected %d inputs and outputs at most, "
            "received %zu and %zu\n",
            path_, kMostTensors, inputs_, outputs_);
    return false;
  }
  uint64_t state = 1;
  for (size_t i = 0; i < inputs_; ++i) {
    LiteRtLayout layout;
    if (!Check(
            litert_.GetCompiledModelInputTensorLayout(compiled_, 0, i, &layout),
            "tell a shape")) {
      return false;
    }
    bool open = false;  // a batch or length that the caller chooses
    for (int k = 0; k < layout.rank(); ++k) {
      if (layout.dimensions[k] >= 0) continue;
      layout.dimensions[k] = 1;
      open = true;
    }
    if (open && !Check(litert_.CompiledModelResizeInputTensorNonStrict(
                           compiled_, 0, i, layout.dimensions,
                           static_cast<size_t>(layout.rank())),
                       "resize an input")) {
      return false;
    }
    if (!MakeBuffer(true, i, layout) || !Fill(input_[i], &state)) return false;
  }
  return true;
}

bool Model::MakeOutputs() {
  LiteRtLayout layouts[kMostTensors];
  if (!Check(litert_.GetCompiledModelOutputTensorLayouts(compiled_, 0, outputs_,
                                                         layouts, true),
             "tell its outputs' shapes")) {
    return false;
  }
  for (size_t i = 0; i < outputs_; ++i) {
    if (!MakeBuffer(false, i, layouts[i])) return false;
  }
  return true;
}

bool Model::Fill(const Values& input, uint64_t* state) const {
  void* place;
  if (!Check(litert_.LockTensorBuffer(input.buffer, &place, kWrite),
             "give an input's memory")) {
    return false;
  }
  if (input.element_type == kFloat32) {
    auto* floats = static_cast<float*>(place);
    for (int64_t i = 0; i < input.count; ++i) {
      floats[i] = static_cast<float>(Next(state)) / (1 << 23) - 1;  // [-1, 1)
    }
  } else {  // 0 is a value of every type, and an index that always exists
    memset(place, 0, input.count * ElementBytes(input.element_type));
  }
  return Check(litert_.UnlockTensorBuffer(input.buffer), "take an input");
}

bool Model::Run() {
  LiteRtHandle inputs[kMostTensors], outputs[kMostTensors];
  for (size_t i = 0; i < inputs_; ++i) inputs[i] = input_[i].buffer;
  for (size_t i = 0; i < outputs_; ++i) outputs[i] = output_[i].buffer;
  return Check(litert_.RunCompiledModel(compiled_, 0, inputs_, inputs, outputs_,
                                        outputs),
               "run the model");
}

double Model::Difference(const Model& one, const Model& other) {
  if (one.outputs_ != other.outputs_) {
    dprintf(2,
            "tfrewprune_benchmark: expected two forms of one model, received "
            "%zu and %zu outputs\n",
            one.outputs_, other.outputs_);
    return -1;
  }
  double worst = 0;
  for (size_t i = 0; i < one.outputs_; ++i) {
    const Values& a = one.output_[i];
    const Values& b = other.output_[i];
    if (a.count != b.count || a.element_type != b.element_type) {
      dprintf(2,
              "tfrewprune_benchmark: expected two forms of one model, received "
              "outputs %zu of other sizes or types\n",
              i);
      return -1;
    }
    void *left, *right;
    if (!one.Check(one.litert_.LockTensorBuffer(a.buffer, &left, kRead),
                   "give an output")) {
      return -1;
    }
    if (!other.Check(other.litert_.LockTensorBuffer(b.buffer, &right, kRead),
                     "give an output")) {
      one.litert_.UnlockTensorBuffer(a.buffer);
      return -1;
    }
    double difference = 0, largest = 0;
    if (a.element_type == kFloat32) {
      const auto* x = static_cast<const float*>(left);
      const auto* y = static_cast<const float*>(right);
      for (int64_t k = 0; k < a.count; ++k) {
        // Written so that a NaN counts as different.
        const double gap = std::fabs(double{x[k]} - double{y[k]});
        if (!(gap <= difference)) difference = gap;
        if (std::fabs(y[k]) > largest) largest = std::fabs(y[k]);
      }
    } else {
      const size_t bytes = a.count * ElementBytes(a.element_type);
      if (memcmp(left, right, bytes) != 0) difference = 1;
    }
    one.litert_.UnlockTensorBuffer(a.buffer);
    other.litert_.UnlockTensorBuffer(b.buffer);
    if (largest > 0) difference /= largest;
    if (!(difference <= worst)) worst = difference;
  }
  return worst;
}

}  // namespace tfrewprune
