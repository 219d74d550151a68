// SPDX-License-Identifier: Apache-2.0
//
// tfrewprune_benchmark: a packed model beside its dense original on a device
// that has neither Python nor an app. Everything of ours is linked in; LiteRT,
// without which there is no dense side, comes from the libLiteRt.so that apps
// use. Needs libc, libm and libdl alone, as the delegate does.
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "delegate/options.h"
#include "model_benchmark/arguments.h"
#include "model_benchmark/model.h"

namespace tfrewprune {
namespace {

constexpr int kMostRounds = 20000, kFewestRounds = 3;
constexpr double kWarmUp = 0.1;  // of the time to measure

double Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * now.tv_nsec;
}

struct Side {
  explicit Side(const LiteRt& litert) : model(litert) {}

  Model model;
  double load = 0, first = 0;  // seconds
  int runs = 0;
  double seconds[kMostRounds];

  void Sort() {
    qsort(seconds, runs, sizeof(double),
          [](const void* one, const void* other) {
            const double a = *static_cast<const double*>(one);
            const double b = *static_cast<const double*>(other);
            return a < b ? -1 : a > b ? 1 : 0;
          });
  }

  // Of sorted seconds, in milliseconds.
  double Quantile(double share) const {
    return 1e3 * seconds[static_cast<int>(share * (runs - 1) + 0.5)];
  }
};

bool Load(Side* side, const char* path, int threads,
          const DelegateOptions* options) {
  const double begin = Now();
  if (!side->model.Load(path, threads, options)) return false;
  const double loaded = Now();
  if (!side->model.Run()) return false;
  side->load = loaded - begin;
  side->first = Now() - loaded;
  return true;
}

bool Time(Side* side, bool keep) {
  const double begin = Now();
  if (!side->model.Run()) return false;
  if (keep) side->seconds[side->runs++] = Now() - begin;
  return true;
}

// In turn, so that both see the same clock rates and neighbours.
bool Measure(Side* packed, Side* dense, double seconds) {
  const double begin = Now();
  const double warm = begin + kWarmUp * seconds;
  const double end = warm + seconds;
  while (packed->runs < kMostRounds) {
    const double now = Now();
    if (now > end && packed->runs >= kFewestRounds) break;
    const bool keep = now >= warm;
    if (!Time(packed, keep) || (dense != nullptr && !Time(dense, keep))) {
      return false;
    }
  }
  packed->Sort();
  if (dense != nullptr) dense->Sort();
  return true;
}

void PrintText(const char* text) {
  dprintf(1, "\"");
  for (; *text != '\0'; ++text) {
    const auto letter = static_cast<unsigned char>(*text);
    if (letter == '"' || letter == '\\') {
      dprintf(1, "\\%c", letter);
    } else if (letter < 0x20) {
      dprintf(1, "\\u%04x", letter);
    } else {
      dprintf(1, "%c", letter);
    }
  }
  dprintf(1, "\"");
}

void PrintJson(const char* name, const char* path, const Side& side) {
  dprintf(1, ", \"%s\": {\"model\": ", name);
  PrintText(path);
  dprintf(1,
          ", \"median_ms\": %.6g, \"p10_ms\": %.6g, \"p90_ms\": %.6g, "
          "\"load_ms\": %.6g, \"first_ms\": %.6g}",
          side.Quantile(0.5), side.Quantile(0.1), side.Quantile(0.9),
          1e3 * side.load, 1e3 * side.first);
}

void PrintRow(const char* name, const Side& side) {
  dprintf(1, "%-8s %10.3f %10.3f %10.3f %10.1f %10.2f\n", name,
          side.Quantile(0.5), side.Quantile(0.1), side.Quantile(0.9),
          1e3 * side.load, 1e3 * side.first);
}

void Print(const Arguments& arguments, const DelegateOptions& options,
           const Side& packed, const Side* dense, double difference) {
  const bool half = arguments.half && HalfArithmetic();
  if (arguments.json) {
    dprintf(
        1,
        "{\"threads\": %d, \"isa\": \"%s\", \"float16\": %s, \"tuned\": %s, "
        "\"rounds\": %d",
        arguments.threads, IsaName(options.isa), half ? "true" : "false",
        arguments.tune ? "true" : "false", packed.runs);
    PrintJson("packed", arguments.packed, packed);
    if (dense != nullptr) {
      PrintJson("dense", arguments.dense, *dense);
      dprintf(1, ", \"ratio\": %.4g, \"difference\": %.3g",
              dense->Quantile(0.5) / packed.Quantile(0.5), difference);
    }
    dprintf(1, "}\n");
    return;
  }
  dprintf(1, "%d thread%s, %s kernels%s, %d rounds%s\n", arguments.threads,
          arguments.threads == 1 ? "" : "s", IsaName(options.isa),
          half             ? " in float16 arithmetic"
          : arguments.half ? " (this CPU has no float16 arithmetic)"
                           : "",
          packed.runs, arguments.tune ? ", tuned" : "");
  dprintf(1, "%-8s %10s %10s %10s %10s %10s\n", "model", "median ms", "p10",
          "p90", "load ms", "first ms");
  if (dense != nullptr) PrintRow("dense", *dense);
  PrintRow("packed", packed);
  if (dense != nullptr) {
    const double ratio = dense->Quantile(0.5) / packed.Quantile(0.5);
    dprintf(1, "%.2fx %s; outputs agree to %.1e of the largest\n",
            ratio < 1 ? 1 / ratio : ratio, ratio < 1 ? "slower" : "faster",
            difference);
  }
}

bool Options(const Arguments& arguments, DelegateOptions* options) {
  char threads[16];
  snprintf(threads, sizeof(threads), "%d", arguments.threads);
  const char* keys[] = {"threads", "isa",       "driver",    "log_level",
                        "tune",    "precision", "cache_path"};
  const char* values[] = {threads,
                          arguments.isa,
                          arguments.driver,
                          arguments.log_level,
                          arguments.tune ? "once" : "off",
                          arguments.half ? "float16" : "float32",
                          arguments.cache};
  char error[512];
  const size_t count = arguments.cache == nullptr ? 6 : 7;
  if (ParseDelegateOptions(keys, values, count, options, error,
                           sizeof(error))) {
    return true;
  }
  dprintf(2, "%s\n", error);
  return false;
}

int Run(const Arguments& arguments, const LiteRt& litert,
        const DelegateOptions& options) {
  Side packed(litert), dense(litert);
  Side* other = arguments.dense == nullptr ? nullptr : &dense;
  if (!Load(&packed, arguments.packed, arguments.threads, &options)) return 1;
  double difference = 0;
  if (other != nullptr) {
    if (!Load(other, arguments.dense, arguments.threads, nullptr)) return 1;
    difference = Model::Difference(packed.model, dense.model);
    if (difference < 0) return 1;
    if (!(difference <= arguments.tolerance)) {
      dprintf(2,
              "tfrewprune_benchmark: outputs differ by %.3g of the largest, "
              "expected %g at most, so nothing was timed\n",
              difference, arguments.tolerance);
      return 1;
    }
  }
  if (!Measure(&packed, other, arguments.seconds)) return 1;
  Print(arguments, options, packed, other, difference);
  return 0;
}

}  // namespace
}  // namespace tfrewprune

int main(int count, char** values) {
  tfrewprune::Arguments arguments;
  int status;
  if (!tfrewprune::ParseArguments(count, values, &arguments, &status)) {
    return status;
  }
  tfrewprune::DelegateOptions options;
  if (!tfrewprune::Options(arguments, &options)) return 2;
  const tfrewprune::LiteRt* litert = tfrewprune::LoadLiteRt(arguments.litert);
  return litert == nullptr ? 1 : tfrewprune::Run(arguments, *litert, options);
}
