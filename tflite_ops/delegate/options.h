// SPDX-License-Identifier: Apache-2.0
//
// The key = value options a user hands to the delegate.
#ifndef TFREWPRUNE_DELEGATE_OPTIONS_H_
#define TFREWPRUNE_DELEGATE_OPTIONS_H_

#include <cstddef>

#include "isa/isa.h"
#include "operators/driver.h"

namespace tfrewprune {

// Of products and short sums of packed layers.
enum class Precision : int { kFloat32, kFloat16 };

enum class LogLevel : int { kError, kWarning, kInfo, kDebug };

//   threads    "auto" (default: what the interpreter was given) or 1 .. 64
//   isa        "auto" (default), "avx512", "avx2", "neon", "portable",
//              "reference"; without it the variable TFREWPRUNE_ISA counts
//   driver     "auto" (default: the one that predicts the least time) or a name
//              of the table in operators/drivers.cc, for layers that it can do;
//              without it the variable TFREWPRUNE_DRIVER counts
//   tune       "off" (default) or "once": the first AllocateTensors measures
//              the drivers that may be the best of each layer; not where
//              `driver` says which
//   tune_ms    what that may take in milliseconds, all layers together: 1 to
//              60000, 50 without it
//   cache_path a file that keeps what was measured; made where it is missing
//   precision  "float32" (default) or "float16": float16 arithmetic
//              (kernels/half.h) in the layers that have kernels for it, where
//              the CPU has it
//   log_level  "error", "warning" (default), "info", "debug"
struct DelegateOptions {
  int threads = 0;  // 0 = the interpreter's number
  Isa isa = Isa::kPortable;
  const Driver* driver = nullptr;  // nullptr = auto
  bool tune = false;
  int tune_ms = 50;
  char cache_path[1024] = "";  // empty: no file
  Precision precision = Precision::kFloat32;
  LogLevel log_level = LogLevel::kWarning;
};

// Fills `options` from the pairs and the environment. Returns false, with a
// message in `error`, for an unknown key or a value that is not understood.
bool ParseDelegateOptions(const char* const* keys, const char* const* values,
                          size_t count, DelegateOptions* options, char* error,
                          size_t error_size);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_OPTIONS_H_
