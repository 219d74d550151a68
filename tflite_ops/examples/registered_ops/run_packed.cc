// SPDX-License-Identifier: Apache-2.0
//
// Runs a packed model once in an interpreter that knows our operators.
#include <cstdio>
#include <memory>

#include "tensorflow/lite/interpreter.h"
#include "tensorflow/lite/interpreter_builder.h"
#include "tensorflow/lite/kernels/register.h"
#include "tensorflow/lite/model_builder.h"
#include "tfrewprune_ops.h"

int main(int count, char** values) {
  if (count != 2) {
    fprintf(stderr, "run_packed MODEL.tflite\n");
    return 2;
  }
  const auto model = tflite::FlatBufferModel::BuildFromFile(values[1]);
  if (model == nullptr) return 1;
  tflite::ops::builtin::BuiltinOpResolver resolver;
  tfrewprune::RegisterTfrewpruneOps(&resolver);
  std::unique_ptr<tflite::Interpreter> interpreter;
  tflite::InterpreterBuilder builder(*model, resolver);
  builder.SetNumThreads(2);
  if (builder(&interpreter) != kTfLiteOk ||
      interpreter->AllocateTensors() != kTfLiteOk) {
    return 1;
  }
  TfLiteTensor* input = interpreter->input_tensor(0);
  for (size_t i = 0; i < input->bytes / sizeof(float); ++i) {
    input->data.f[i] = 0.01f * (i % 100);
  }
  if (interpreter->Invoke() != kTfLiteOk) return 1;
  const TfLiteTensor* output = interpreter->output_tensor(0);
  for (size_t i = 0; i < output->bytes / sizeof(float) && i < 10; ++i) {
    printf("%g\n", output->data.f[i]);
  }
  return 0;
}
