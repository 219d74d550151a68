// SPDX-License-Identifier: Apache-2.0
#include "model_benchmark/arguments.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tfrewprune {
namespace {

constexpr char kHelp[] =
    "tfrewprune_benchmark PACKED.tflite [DENSE.tflite] [options]\n"
    "\n"
    "Times a packed model in LiteRT's CompiledModel; with its dense original\n"
    "(`tfrewprune unpack PACKED.tflite DENSE.tflite` writes it) both in turn,\n"
    "after a check that their outputs agree. Inputs are random.\n"
    "\n"
    "  --litert=FILE      LiteRT's library; else libLiteRt.so beside this "
    "program\n"
    "  --threads=N        of both models (1)\n"
    "  --seconds=S        how long to measure, both models together (3)\n"
    "  --tune             measure kernels first, as an app with tune=once "
    "does\n"
    "  --cache=FILE       keeps what was measured, with --tune\n"
    "  --isa=NAME         kernels: auto, neon, portable, ...\n"
    "  --driver=NAME      one driver, where it can do the layer\n"
    "  --fp16             float16 arithmetic in packed layers, where the CPU "
    "has it\n"
    "  --tolerance=X      largest difference over the largest output (0.001; "
    "with\n"
    "                     --fp16 0.01)\n"
    "  --log-level=NAME   error, warning, info; debug names every layer's "
    "driver\n"
    "  --json             one JSON document\n"
    "  --help             this text\n";

// The text behind "--name=", or nullptr.
const char* Value(const char* argument, const char* name) {
  const size_t length = strlen(name);
  return strncmp(argument, name, length) == 0 ? argument + length : nullptr;
}

bool Number(const char* text, const char* name, double lowest, double highest,
            double* number) {
  char* end;
  *number = strtod(text, &end);
  if (end != text && *end == '\0' && *number >= lowest && *number <= highest) {
    return true;
  }
  dprintf(2,
          "tfrewprune_benchmark: %s must be a number from %g to %g. Received: "
          "%s\n",
          name, lowest, highest, text);
  return false;
}

bool ParseOption(const char* argument, Arguments* arguments) {
  struct {
    const char* name;
    const char** place;
  } const texts[] = {{"--litert=", &arguments->litert},
                     {"--isa=", &arguments->isa},
                     {"--driver=", &arguments->driver},
                     {"--cache=", &arguments->cache},
                     {"--log-level=", &arguments->log_level}};
  for (const auto& text : texts) {
    if (const char* value = Value(argument, text.name)) {
      *text.place = value;
      return true;
    }
  }
  if (const char* value = Value(argument, "--threads=")) {
    double threads;
    if (!Number(value, "--threads", 1, 64, &threads)) return false;
    arguments->threads = static_cast<int>(threads);
    return true;
  }
  if (const char* value = Value(argument, "--seconds=")) {
    return Number(value, "--seconds", 0, 3600, &arguments->seconds);
  }
  if (const char* value = Value(argument, "--tolerance=")) {
    return Number(value, "--tolerance", 0, 1e9, &arguments->tolerance);
  }
  if (strcmp(argument, "--tune") == 0) {
    arguments->tune = true;
  } else if (strcmp(argument, "--fp16") == 0) {
    arguments->half = true;
  } else if (strcmp(argument, "--json") == 0) {
    arguments->json = true;
  } else {
    dprintf(2,
            "tfrewprune_benchmark: unknown option %s; --help lists them "
            "(values follow a '=')\n",
            argument);
    return false;
  }
  return true;
}

}  // namespace

bool ParseArguments(int count, char** values, Arguments* arguments,
                    int* status) {
  *status = 2;
  for (int i = 1; i < count; ++i) {
    const char* argument = values[i];
    if (strcmp(argument, "--help") == 0) {
      dprintf(1, "%s", kHelp);
      *status = 0;
      return false;
    }
    if (argument[0] == '-') {
      if (!ParseOption(argument, arguments)) return false;
    } else if (arguments->packed == nullptr) {
      arguments->packed = argument;
    } else if (arguments->dense == nullptr) {
      arguments->dense = argument;
    } else {
      dprintf(2,
              "tfrewprune_benchmark: expected two models at most, also "
              "received %s\n",
              argument);
      return false;
    }
  }
  if (arguments->packed == nullptr) {
    dprintf(2, "%s", kHelp);
    return false;
  }
  if (arguments->cache != nullptr && !arguments->tune) {
    dprintf(2, "tfrewprune_benchmark: --cache needs --tune\n");
    return false;
  }
  if (arguments->tolerance == 0) {
    arguments->tolerance = arguments->half ? 1e-2 : 1e-3;
  }
  return true;
}

}  // namespace tfrewprune
