// SPDX-License-Identifier: Apache-2.0
//
// One model in LiteRT's CompiledModel, with its input and output buffers.
#ifndef TFREWPRUNE_MODEL_BENCHMARK_MODEL_H_
#define TFREWPRUNE_MODEL_BENCHMARK_MODEL_H_

#include "delegate/options.h"
#include "model_benchmark/litert.h"

namespace tfrewprune {

class Model {
 public:
  static constexpr int kMostTensors = 32;

  explicit Model(const LiteRt& litert) : litert_(litert) {}
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // Loads the first signature of `path`, with packed layers where `options` is
  // not nullptr, and fills its inputs with the same random values whatever the
  // model. Returns false after a message on stderr, as the others do.
  bool Load(const char* path, int threads, const DelegateOptions* options);
  bool Run();

  // The largest difference of two models' outputs over the largest output, or
  // over 1 where all are 0; negative after a message.
  static double Difference(const Model& one, const Model& other);

 private:
  struct Values {
    LiteRtHandle buffer;
    int element_type;
    int64_t count;
  };

  bool Compile(int threads);
  bool MakeInputs();
  bool MakeOutputs();
  bool MakeBuffer(bool input, size_t index, const LiteRtLayout& layout);
  bool Fill(const Values& input, uint64_t* state) const;
  bool Check(LiteRtStatus status, const char* what) const;

  const LiteRt& litert_;
  const char* path_ = "";
  LiteRtHandle environment_ = nullptr, model_ = nullptr, signature_ = nullptr,
               options_ = nullptr, compiled_ = nullptr;
  size_t inputs_ = 0, outputs_ = 0;
  int made_[2] = {};  // outputs, inputs
  Values input_[kMostTensors], output_[kMostTensors];
  char threads_[32];  // LiteRT reads it while it compiles
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_MODEL_BENCHMARK_MODEL_H_
