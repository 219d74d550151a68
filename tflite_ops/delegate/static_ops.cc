// SPDX-License-Identifier: Apache-2.0
//
// The C functions of the static library alone (tfrewprune_ops.h).
#include "delegate/ops.h"
#include "delegate/options.h"
#include "tfrewprune_ops.h"

const TfLiteRegistration* tfrewprune_op(int index, const char** name) {
  const tfrewprune::Op op = tfrewprune::OpAt(index);
  if (name != nullptr) *name = op.name;
  // The same struct by TFLite's name (delegate/tflite_abi.h).
  return reinterpret_cast<const TfLiteRegistration*>(op.registration);
}

int tfrewprune_set_op_options(const char* const* options_keys,
                              const char* const* options_values,
                              size_t num_options,
                              void (*report_error)(const char* message)) {
  char error[512];
  tfrewprune::DelegateOptions options;
  if (tfrewprune::ParseDelegateOptions(options_keys, options_values,
                                       num_options, &options, error,
                                       sizeof(error))) {
    tfrewprune::SetOpOptions(options);
    return 0;
  }
  if (report_error != nullptr) report_error(error);
  return 1;
}
