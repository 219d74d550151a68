/* SPDX-License-Identifier: Apache-2.0
 *
 * libtfrewprune_ops.a: packed layers as custom operators, for hosts in C or C++
 * that build TensorFlow Lite themselves and need no delegate. In C++:
 *
 *   tflite::ops::builtin::BuiltinOpResolver resolver;
 *   tfrewprune::RegisterTfrewpruneOps(&resolver);
 *
 * In C every operator goes to TfLiteInterpreterOptionsAddCustomOp, versions 1
 * to 1. No header of TFLite is included here.
 */
#ifndef TFREWPRUNE_TFREWPRUNE_OPS_H_
#define TFREWPRUNE_TFREWPRUNE_OPS_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct TfLiteRegistration;

/* The operator of that number and its name; NULL behind the last. Both live as
 * long as the program. */
const struct TfLiteRegistration* tfrewprune_op(int index, const char** name);

/* The options of tfrewprune.h for all interpreters whose tensors are allocated
 * for the first time from now on. Returns 0; or 1, after a call of
 * report_error (may be NULL), for options that are not understood. Without this
 * call packed layers use as many threads as the interpreter. */
int tfrewprune_set_op_options(const char* const* options_keys,
                              const char* const* options_values,
                              size_t num_options,
                              void (*report_error)(const char* message));

#ifdef __cplusplus
}  // extern "C"

namespace tfrewprune {

// Adds the operators to a tflite::MutableOpResolver, wherever its header is.
template <class MutableOpResolver>
void RegisterTfrewpruneOps(MutableOpResolver* resolver) {
  const char* name;
  for (int i = 0; const auto* op = tfrewprune_op(i, &name); ++i) {
    resolver->AddCustom(name, op);
  }
}

}  // namespace tfrewprune
#endif

#endif /* TFREWPRUNE_TFREWPRUNE_OPS_H_ */
