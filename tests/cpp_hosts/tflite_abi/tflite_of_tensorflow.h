// SPDX-License-Identifier: Apache-2.0
//
// TFLite's C++ classes as libtensorflow_cc.so of the TensorFlow wheel exports
// them: as much as tflite_ops/examples uses. No wheel has TFLite's headers; the
// symbols are the wheel's, so the example runs in the real interpreter, with
// the real MutableOpResolver. What is inline in TFLite is written here for
// models whose input is called x and whose output y.
#ifndef TFREWPRUNE_TESTS_TFLITE_OF_TENSORFLOW_H_
#define TFREWPRUNE_TESTS_TFLITE_OF_TENSORFLOW_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <new>
#include <unordered_map>
#include <vector>

enum TfLiteStatus { kTfLiteOk = 0 };
struct TfLiteRegistration;
struct TfLiteTensor {
  int type;
  union {
    float* f;
    char* raw;
  } data;
  void* dims;
  char quantization[8];
  int allocation_type;
  size_t bytes;
};

extern "C" {
extern void* const _ZTVN6tflite17MutableOpResolverE[];
void _ZN6tflite17MutableOpResolverD2Ev(void* resolver);
}

namespace tflite {

class Allocation;
class ErrorReporter;
class InterpreterOptions;
class Model;
class OpResolver;

ErrorReporter* DefaultErrorReporter();

// An OpResolver without saying so: its functions are in the wheel's table, and
// so is its destructor, which no program calls by its usual name.
class MutableOpResolver {
 public:
  MutableOpResolver() { new (content_) Content; }
  ~MutableOpResolver() { _ZN6tflite17MutableOpResolverD2Ev(this); }
  MutableOpResolver(const MutableOpResolver&) = delete;
  MutableOpResolver& operator=(const MutableOpResolver&) = delete;
  void AddCustom(const char* name, const TfLiteRegistration* registration,
                 int version = 1);
  const OpResolver& base() const {
    return reinterpret_cast<const OpResolver&>(*this);
  }

 private:
  struct Content {
    void* const* functions = _ZTVN6tflite17MutableOpResolverE + 2;
    std::shared_ptr<int> cache;
    bool user_defined = false;
    std::vector<int> creators[2];
    std::unordered_map<int, int> operators[2];  // builtin, custom
    std::vector<int> chained;
  };
  alignas(Content) char content_[sizeof(Content)];
};

namespace ops {
namespace builtin {
// The wheel does not export the builtin operators.
using BuiltinOpResolver = MutableOpResolver;
}  // namespace builtin
}  // namespace ops

namespace impl {

class FlatBufferModel {
 public:
  static std::unique_ptr<FlatBufferModel> BuildFromFile(const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return nullptr;
    auto model = std::make_unique<FlatBufferModel>();
    model->content_.assign(std::istreambuf_iterator<char>(file), {});
    return model;
  }
  const Model* model() const {  // a flatbuffer begins with its root's offset
    uint32_t offset;
    memcpy(&offset, content_.data(), sizeof(offset));
    return reinterpret_cast<const Model*>(content_.data() + offset);
  }

 private:
  std::vector<char> content_;
};

class SignatureRunner {
 public:
  TfLiteTensor* input_tensor(const char* name);
  const TfLiteTensor* output_tensor(const char* name) const;
};

class Interpreter {
 public:
  ~Interpreter();
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  SignatureRunner* GetSignatureRunner(const char* key);
  TfLiteTensor* input_tensor(int) {
    return GetSignatureRunner(nullptr)->input_tensor("x");
  }
  const TfLiteTensor* output_tensor(int) {
    return GetSignatureRunner(nullptr)->output_tensor("y");
  }
};

class InterpreterBuilder {
 public:
  InterpreterBuilder(const FlatBufferModel& model,
                     const MutableOpResolver& resolver)
      : InterpreterBuilder(model.model(), resolver.base(),
                           DefaultErrorReporter(), nullptr, nullptr) {}
  InterpreterBuilder(const Model*, const OpResolver&, ErrorReporter*,
                     const InterpreterOptions*, const Allocation*);
  ~InterpreterBuilder();
  TfLiteStatus operator()(std::unique_ptr<Interpreter>* interpreter);
  TfLiteStatus SetNumThreads(int threads);

 private:
  alignas(64) char larger_than_the_real_one_[4096];
};

}  // namespace impl

using impl::FlatBufferModel;
using impl::Interpreter;
using impl::InterpreterBuilder;

}  // namespace tflite

#endif  // TFREWPRUNE_TESTS_TFLITE_OF_TENSORFLOW_H_
