// SPDX-License-Identifier: Apache-2.0
#include "isa/isa.h"

#include <atomic>
#include <cstring>
#include <initializer_list>

#include "isa/x86.h"

#if defined(TFREWPRUNE_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace tfrewprune {
namespace {

constexpr const char* kNames[kIsaCount] = {"reference", "portable", "avx2",
                                           "avx512", "neon"};

#if defined(__x86_64__)
// CPUID leaves a virtual machine, which takes microseconds, and the prediction
// of a driver's time asks often. Threads may find out twice, never wrongly.
X86 ThisX86() {
  static std::atomic<int> found{-1};
  int bits = found.load(std::memory_order_relaxed);
  if (bits < 0) {
    const X86 x86 = DetectX86();
    bits = x86.avx2 | x86.avx512 << 1 | x86.zen4 << 2;
    found.store(bits, std::memory_order_relaxed);
  }
  return {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
}
#endif

}  // namespace

const char* IsaName(Isa isa) { return kNames[static_cast<int>(isa)]; }

bool IsaFromName(const char* name, Isa* isa) {
  if (name == nullptr) return false;
  if (std::strcmp(name, "auto") == 0) {
    *isa = BestIsa();
    return true;
  }
  for (int i = 0; i < kIsaCount; ++i) {
    if (std::strcmp(name, kNames[i]) == 0) {
      *isa = static_cast<Isa>(i);
      return true;
    }
  }
  return false;
}

bool IsaSupported(Isa isa) {
  switch (isa) {
    case Isa::kReference:
#if defined(TFREWPRUNE_PORTABLE)
    case Isa::kPortable:
#endif
      return true;
#if defined(__x86_64__)
    case Isa::kAvx2:
      return ThisX86().avx2;
    case Isa::kAvx512:
      return ThisX86().avx512;
#elif defined(TFREWPRUNE_NEON)
    case Isa::kNeon:
#if defined(__arm__)  // an option there
      return (getauxval(AT_HWCAP) & (HWCAP_NEON | HWCAP_VFPv4)) ==
             (HWCAP_NEON | HWCAP_VFPv4);
#else
      return true;
#endif
#endif
    default:
      return false;
  }
}

bool HalfArithmetic() {
#if defined(__aarch64__) && defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDHP) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

int FmasPerCycle(Isa isa, int lanes) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512 && lanes > 8 && ThisX86().zen4) {
    return 1;
  }
#endif
  (void)isa, (void)lanes;
  return 2;
}

Isa BestIsa() {
  if (IsaSupported(Isa::kAvx512)) return Isa::kAvx512;
  if (IsaSupported(Isa::kAvx2)) return Isa::kAvx2;
  if (IsaSupported(Isa::kNeon)) return Isa::kNeon;
  return Isa::kPortable;
}

}  // namespace tfrewprune
