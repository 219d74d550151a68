// SPDX-License-Identifier: Apache-2.0
//
// The CPU's caches, for measurements.
#ifndef TFREWPRUNE_ISA_CACHES_H_
#define TFREWPRUNE_ISA_CACHES_H_

#include <stddef.h>
#include <stdio.h>

namespace tfrewprune {

inline constexpr size_t kCacheLine = 64;

// Bytes of the third level, which cores share; 4 MB, as phones have, where the
// system does not tell. (sysconf of glibc multiplies it in virtual machines.)
inline size_t LastCacheBytes() {
  unsigned kilobytes = 0;
  char text[16] = "";  // "32768K"
  FILE* file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "re");
  if (file != nullptr) {
    if (fgets(text, sizeof(text), file) == nullptr) text[0] = '\0';
    fclose(file);
  }
  for (const char* c = text; *c >= '0' && *c <= '9' && c < text + 7; ++c) {
    kilobytes = kilobytes * 10 + unsigned(*c - '0');
  }
  return size_t{kilobytes == 0 ? 4096 : kilobytes} << 10;
}

// Sends what lies there to memory, from all caches; nothing where programs
// cannot (32-bit ARM).
inline void FlushFromCaches(const void* data, size_t bytes) {
  const char* line = static_cast<const char*>(data);
  for (size_t i = 0; i < bytes; i += kCacheLine) {
#if defined(__x86_64__)
    __builtin_ia32_clflush(line + i);
#elif defined(__aarch64__)
    asm volatile("dc civac, %0" : : "r"(line + i) : "memory");
#else
    (void)line;
#endif
  }
#if defined(__x86_64__)
  __builtin_ia32_mfence();
#elif defined(__aarch64__)
  asm volatile("dsb ish" : : : "memory");
#endif
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_ISA_CACHES_H_
