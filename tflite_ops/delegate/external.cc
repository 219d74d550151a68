// SPDX-License-Identifier: Apache-2.0
//
// The exported C symbols: the two of TFLite's external delegate interface, and
// what the Python package asks a delegate. Pointers to delegates are
// TfLiteDelegate*.
#include <cstddef>
#include <cstdio>

#include "delegate/accelerator.h"
#include "delegate/delegate.h"
#include "delegate/options.h"
#include "operators/buffer.h"

#define TFREWPRUNE_EXPORT extern "C" __attribute__((visibility("default")))

using tfrewprune::PackedDelegate;

// Returns nullptr, after a call of report_error (may be nullptr), when an
// option is unknown or its value is not understood. See delegate/options.h.
TFREWPRUNE_EXPORT tfrewprune::tflite::Delegate* tflite_plugin_create_delegate(
    const char* const* options_keys, const char* const* options_values,
    size_t num_options, void (*report_error)(const char*)) {
  char error[512] = "tfrewprune: out of memory.";
  tfrewprune::DelegateOptions options;
  if (tfrewprune::ParseDelegateOptions(options_keys, options_values,
                                       num_options, &options, error,
                                       sizeof(error))) {
    PackedDelegate* delegate = PackedDelegate::Create(options);
    if (delegate != nullptr) return delegate->base();
  }
  if (report_error != nullptr) report_error(error);
  return nullptr;
}

TFREWPRUNE_EXPORT void tflite_plugin_destroy_delegate(
    tfrewprune::tflite::Delegate* delegate) {
  if (delegate != nullptr) {
    PackedDelegate::Destroy(PackedDelegate::From(delegate));
  }
}

// Lets every CompiledModel of a LiteRtEnvironment run packed layers; see
// delegate/accelerator.h, and the options of tflite_plugin_create_delegate.
// Returns 0; or 1 after a call of report_error (may be nullptr).
TFREWPRUNE_EXPORT int tfrewprune_register_accelerator(
    void* environment, tfrewprune::FindSymbol find_symbol,
    const char* const* options_keys, const char* const* options_values,
    size_t num_options, void (*report_error)(const char*)) {
  char error[512];
  tfrewprune::DelegateOptions options;
  if (tfrewprune::ParseDelegateOptions(options_keys, options_values,
                                       num_options, &options, error,
                                       sizeof(error))) {
    const char* wrong =
        tfrewprune::RegisterAccelerator(environment, find_symbol, options);
    if (wrong == nullptr) return 0;
    snprintf(error, sizeof(error), "tfrewprune_register_accelerator: %s.",
             wrong);
  }
  if (report_error != nullptr) report_error(error);
  return 1;
}

// The version of the library, "major.minor.patch".
TFREWPRUNE_EXPORT const char* tfrewprune_version() {
  return TFREWPRUNE_VERSION;
}

// How many nodes the delegate runs.
TFREWPRUNE_EXPORT int tfrewprune_claimed_nodes(
    tfrewprune::tflite::Delegate* delegate) {
  return PackedDelegate::From(delegate)->claimed_nodes();
}

// The kernels in use: avx512, avx2, neon, portable or reference.
TFREWPRUNE_EXPORT const char* tfrewprune_isa_name(
    tfrewprune::tflite::Delegate* delegate) {
  return tfrewprune::IsaName(PackedDelegate::From(delegate)->options().isa);
}

// How many threads its layers use; 1 before tensors were allocated.
TFREWPRUNE_EXPORT int tfrewprune_threads(
    tfrewprune::tflite::Delegate* delegate) {
  return PackedDelegate::From(delegate)->threads();
}

// Bytes of tables and scratch of all delegates in the process: what packed
// layers take besides the file, where their weights stay.
TFREWPRUNE_EXPORT uint64_t tfrewprune_held_bytes() {
  return __atomic_load_n(&tfrewprune::held_bytes, __ATOMIC_RELAXED);
}

// See PackedDelegate::Trace.
TFREWPRUNE_EXPORT int tfrewprune_trace(tfrewprune::tflite::Delegate* delegate,
                                       tfrewprune::NodeRun* runs,
                                       int capacity) {
  return PackedDelegate::From(delegate)->Trace(runs, capacity);
}
