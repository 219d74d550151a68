// SPDX-License-Identifier: Apache-2.0
#include "isa/isa.h"

#include <cstring>
#include <initializer_list>

#if defined(__arm__) && defined(TFREWPRUNE_NEON)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace tfrewprune {
namespace {

constexpr const char* kNames[kIsaCount] = {"reference", "portable", "avx2",
                                           "avx512", "neon"};

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
    case Isa::kPortable:
      return true;
#if defined(__x86_64__)
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
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

int FmasPerCycle(Isa isa, int lanes) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512 && lanes > 8 && __builtin_cpu_is("amdfam19h")) {
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
