// SPDX-License-Identifier: Apache-2.0
#include "isa/isa.h"

#include <gtest/gtest.h>

#include "kernels/select.h"

namespace tfrewprune {
namespace {

TEST(IsaTest, NamesRoundTrip) {
  for (int i = 0; i < kIsaCount; ++i) {
    Isa isa = Isa::kReference;
    ASSERT_TRUE(IsaFromName(IsaName(static_cast<Isa>(i)), &isa));
    EXPECT_EQ(static_cast<int>(isa), i);
  }
}

TEST(IsaTest, AutoIsTheBest) {
  Isa isa = Isa::kReference;
  ASSERT_TRUE(IsaFromName("auto", &isa));
  EXPECT_EQ(isa, BestIsa());
  EXPECT_NE(isa, Isa::kReference);
  EXPECT_TRUE(IsaSupported(isa));
}

#if defined(__x86_64__) && !defined(__clang__)
TEST(IsaTest, AgreesWithTheCompiler) {
  const bool avx2 = __builtin_cpu_supports("avx2") &&
                    __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  EXPECT_EQ(IsaSupported(Isa::kAvx2), avx2);
  EXPECT_EQ(IsaSupported(Isa::kAvx512),
            avx2 && __builtin_cpu_supports("avx512f") &&
                __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512bw"));
  EXPECT_EQ(FmasPerCycle(Isa::kAvx512, 16),
            avx2 && __builtin_cpu_is("amdfam19h") ? 1 : 2);
}
#endif

TEST(IsaTest, UnknownNamesChangeNothing) {
  for (const char* name : {"", "AVX2", "avx", "avx5122", "sse"}) {
    Isa isa = Isa::kNeon;
    EXPECT_FALSE(IsaFromName(name, &isa)) << name;
    EXPECT_EQ(isa, Isa::kNeon);
  }
  Isa isa = Isa::kNeon;
  EXPECT_FALSE(IsaFromName(nullptr, &isa));
}

TEST(IsaTest, KernelsExactlyWhereSupported) {
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    const Kernels* kernels = SelectKernels(isa);
    EXPECT_EQ(kernels != nullptr, IsaSupported(isa)) << IsaName(isa);
    if (kernels != nullptr) {
      EXPECT_EQ(kernels->isa, isa);
    }
  }
  EXPECT_TRUE(IsaSupported(Isa::kReference));
  EXPECT_TRUE(IsaSupported(Isa::kPortable));
}

}  // namespace
}  // namespace tfrewprune
