// SPDX-License-Identifier: Apache-2.0
//
// The command line.
#ifndef TFREWPRUNE_MODEL_BENCHMARK_ARGUMENTS_H_
#define TFREWPRUNE_MODEL_BENCHMARK_ARGUMENTS_H_

namespace tfrewprune {

struct Arguments {
  const char* packed = nullptr;
  const char* dense = nullptr;   // nullptr: the packed model alone
  const char* litert = nullptr;  // nullptr: the usual places
  const char* isa = "auto";
  const char* driver = "auto";
  const char* cache = nullptr;
  const char* log_level = "warning";
  int threads = 1;
  double seconds = 3;
  double tolerance = 0;  // 0: what is usual
  bool tune = false;
  bool half = false;
  bool json = false;
};

// Returns false after a message on stderr, or after the help on stdout, in
// which case `*status`, what the program returns, is 0.
bool ParseArguments(int count, char** values, Arguments* arguments,
                    int* status);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_MODEL_BENCHMARK_ARGUMENTS_H_
