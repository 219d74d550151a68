// SPDX-License-Identifier: Apache-2.0
#include "model_benchmark/litert.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace tfrewprune {
namespace {

constexpr char kName[] = "libLiteRt.so";

void* library = nullptr;
LiteRt functions;

// The file beside the program.
bool PathBeside(char* path, size_t size) {
  const ssize_t length = readlink("/proc/self/exe", path, size - 1);
  if (length <= 0) return false;
  path[length] = '\0';
  char* slash = strrchr(path, '/');
  if (slash == nullptr) return false;
  const size_t used = static_cast<size_t>(slash + 1 - path);
  if (used + sizeof(kName) > size) return false;
  memcpy(slash + 1, kName, sizeof(kName));
  return true;
}

void* Open(const char* path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL); }

}  // namespace

void* FindLiteRtSymbol(const char* name) { return dlsym(library, name); }

const LiteRt* LoadLiteRt(const char* path) {
  char beside[1024];
  if (path != nullptr) {
    library = Open(path);
  } else {
    if (PathBeside(beside, sizeof(beside)) && access(beside, F_OK) == 0) {
      library = Open(beside);
    } else {
      library = Open(kName);
    }
  }
  if (library == nullptr) {
    dprintf(2,
            "tfrewprune_benchmark: LiteRT's library is needed, version 2.1.6 "
            "or newer: %s beside this program or --litert=PATH. The system "
            "said: %s\n",
            kName, dlerror());
    return nullptr;
  }
#define X(name, arguments)                                                    \
  functions.name = reinterpret_cast<LiteRtStatus(*) arguments>(               \
      FindLiteRtSymbol("LiteRt" #name));                                      \
  if (functions.name == nullptr) {                                            \
    dprintf(2,                                                                \
            "tfrewprune_benchmark: expected LiteRT 2.1.6 or newer, received " \
            "one without LiteRt" #name "\n");                                 \
    return nullptr;                                                           \
  }
  TFREWPRUNE_LITERT_FUNCTIONS(X)
#undef X
  return &functions;
}

}  // namespace tfrewprune
