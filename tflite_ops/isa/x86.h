// SPDX-License-Identifier: Apache-2.0
//
// What an x86-64 CPU and its operating system can do, by the CPUID instruction:
// the compilers' own __builtin_cpu_supports needs a run-time library that
// Android libraries are linked without, and clang's knows fewer names.
#ifndef TFREWPRUNE_ISA_X86_H_
#define TFREWPRUNE_ISA_X86_H_

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdint.h>

namespace tfrewprune {

struct X86 {
  bool avx2;    // with FMA and F16C
  bool avx512;  // F, VL, DQ and BW, with the above
  bool zen4;    // AMD family 19h: Zen 3 and 4
};

inline X86 DetectX86() {
  constexpr unsigned kFma = 1u << 12, kOsSavesState = 1u << 27,
                     kF16c = 1u << 29;
  constexpr unsigned kAvx2 = 1u << 5;
  constexpr unsigned kAvx512 =
      1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe6;

  X86 x86 = {};
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return x86;
  const unsigned family = (a >> 8 & 0xf) + (a >> 20 & 0xff);
  const unsigned wanted = kFma | kOsSavesState | kF16c;
  if ((c & wanted) != wanted) return x86;

  uint32_t low, high;  // which registers the system saves between threads
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const uint64_t saved = uint64_t{high} << 32 | low;

  unsigned features;
  if (__get_cpuid_count(7, 0, &a, &features, &c, &d) == 0) return x86;
  x86.avx2 = (features & kAvx2) != 0 && (saved & kYmmState) == kYmmState;
  x86.avx512 = x86.avx2 && (features & kAvx512) == kAvx512 &&
               (saved & kZmmState) == kZmmState;
  __cpuid(0, a, b, c, d);
  x86.zen4 = b == signature_AMD_ebx && family == 0x19;
  return x86;
}

}  // namespace tfrewprune

#endif  // __x86_64__

#endif  // TFREWPRUNE_ISA_X86_H_
