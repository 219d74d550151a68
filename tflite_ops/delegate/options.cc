// SPDX-License-Identifier: Apache-2.0
#include "delegate/options.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "operators/thread_pool.h"

namespace tfrewprune {
namespace {

constexpr char kIsaVariable[] = "TFREWPRUNE_ISA";
constexpr char kDriverVariable[] = "TFREWPRUNE_DRIVER";
constexpr int kMostTuneMs = 60000;
constexpr const char* kLogLevels[] = {"error", "warning", "info", "debug"};

// Sets *number where it is from 1 to `most`.
bool ParseNumber(const char* text, int most, int* number) {
  // Digits only: strtol would let "+2", " 2" and "2x" pass.
  int64_t read = 0;
  for (const char* c = text; *c != '\0'; ++c) {
    if (*c < '0' || *c > '9') return false;
    read = read * 10 + (*c - '0');
    if (read > most) return false;
  }
  if (read < 1) return false;
  *number = static_cast<int>(read);
  return true;
}

bool ParseThreads(const char* text, int* threads) {
  if (strcmp(text, "auto") == 0) {
    *threads = 0;
    return true;
  }
  return ParseNumber(text, ThreadPool::kMaxThreads, threads);
}

bool ParseLogLevel(const char* text, LogLevel* level) {
  for (int i = 0; i < 4; ++i) {
    if (strcmp(text, kLogLevels[i]) == 0) {
      *level = static_cast<LogLevel>(i);
      return true;
    }
  }
  return false;
}

// Sets *isa from `name`, which came from `source`.
bool ParseIsa(const char* source, const char* name, Isa* isa, char* error,
              size_t error_size) {
  Isa chosen;
  if (!IsaFromName(name, &chosen)) {
    snprintf(error, error_size,
             "tfrewprune: %s must be auto, avx512, avx2, neon, portable or "
             "reference. Received: '%s'.",
             source, name);
    return false;
  }
  if (!IsaSupported(chosen)) {
    snprintf(error, error_size,
             "tfrewprune: %s asks for kernels that this CPU or this build does "
             "not support. The best it supports is %s. Received: '%s'.",
             source, IsaName(BestIsa()), name);
    return false;
  }
  *isa = chosen;
  return true;
}

// Sets *driver from `name`, which came from `source`.
bool ParseDriver(const char* source, const char* name, const Driver** driver,
                 char* error, size_t error_size) {
  *driver = FindDriver(name);
  if (*driver != nullptr || strcmp(name, "auto") == 0) return true;
  int count;
  const Driver* drivers = Drivers(&count);
  char names[256] = "auto";
  size_t used = strlen(names);
  for (int i = 0; i < count && used < sizeof(names); ++i) {
    used += snprintf(names + used, sizeof(names) - used, "%s%s",
                     i + 1 < count ? ", " : " or ", drivers[i].name);
  }
  snprintf(error, error_size, "tfrewprune: %s must be %s. Received: '%s'.",
           source, names, name);
  return false;
}

// The value of the option, else of the variable; nullptr where neither is set.
const char* Setting(const char* option, const char* option_source,
                    const char* variable, const char* variable_source,
                    const char** source) {
  *source = option != nullptr ? option_source : variable_source;
  if (option != nullptr) return option;
  const char* value = getenv(variable);
  return value == nullptr || *value == '\0' ? nullptr : value;
}

}  // namespace

bool ParseDelegateOptions(const char* const* keys, const char* const* values,
                          size_t count, DelegateOptions* options, char* error,
                          size_t error_size) {
  *options = DelegateOptions();
  const char* isa_name = nullptr;
  const char* driver_name = nullptr;
  for (size_t i = 0; i < count; ++i) {
    const char* key = keys[i] == nullptr ? "" : keys[i];
    const char* value = values[i] == nullptr ? "" : values[i];
    if (strcmp(key, "threads") == 0) {
      if (ParseThreads(value, &options->threads)) continue;
      snprintf(error, error_size,
               "tfrewprune: option threads must be auto or a whole number from "
               "1 to %d. Received: '%s'.",
               ThreadPool::kMaxThreads, value);
      return false;
    }
    if (strcmp(key, "tune") == 0) {
      options->tune = strcmp(value, "once") == 0;
      if (options->tune || strcmp(value, "off") == 0) continue;
      snprintf(error, error_size,
               "tfrewprune: option tune must be off or once. Received: '%s'.",
               value);
      return false;
    }
    if (strcmp(key, "tune_ms") == 0) {
      if (ParseNumber(value, kMostTuneMs, &options->tune_ms)) continue;
      snprintf(error, error_size,
               "tfrewprune: option tune_ms must be a whole number from 1 to "
               "%d. Received: '%s'.",
               kMostTuneMs, value);
      return false;
    }
    if (strcmp(key, "cache_path") == 0) {
      const size_t length = strlen(value);
      if (length < sizeof(options->cache_path)) {
        memcpy(options->cache_path, value, length + 1);
        continue;
      }
      snprintf(error, error_size,
               "tfrewprune: option cache_path must have less than %zu bytes. "
               "Received: %zu.",
               sizeof(options->cache_path), length);
      return false;
    }
    if (strcmp(key, "precision") == 0) {
      const bool half = strcmp(value, "float16") == 0;
      options->precision = half ? Precision::kFloat16 : Precision::kFloat32;
      if (half || strcmp(value, "float32") == 0) continue;
      snprintf(error, error_size,
               "tfrewprune: option precision must be float32 or float16. "
               "Received: '%s'.",
               value);
      return false;
    }
    if (strcmp(key, "log_level") == 0) {
      if (ParseLogLevel(value, &options->log_level)) continue;
      snprintf(error, error_size,
               "tfrewprune: option log_level must be error, warning, info or "
               "debug. Received: '%s'.",
               value);
      return false;
    }
    if (strcmp(key, "isa") == 0) {
      isa_name = value;
      continue;
    }
    if (strcmp(key, "driver") == 0) {
      driver_name = value;
      continue;
    }
    snprintf(error, error_size,
             "tfrewprune: the delegate has the options driver, tune, tune_ms, "
             "cache_path, precision, threads, isa and log_level. Received: "
             "'%s'.",
             key);
    return false;
  }
  const char* source;
  driver_name = Setting(driver_name, "option driver", kDriverVariable,
                        "environment variable TFREWPRUNE_DRIVER", &source);
  if (driver_name != nullptr &&
      !ParseDriver(source, driver_name, &options->driver, error, error_size)) {
    return false;
  }
  isa_name = Setting(isa_name, "option isa", kIsaVariable,
                     "environment variable TFREWPRUNE_ISA", &source);
  if (isa_name != nullptr) {
    return ParseIsa(source, isa_name, &options->isa, error, error_size);
  }
  options->isa = BestIsa();
  return true;
}

}  // namespace tfrewprune
