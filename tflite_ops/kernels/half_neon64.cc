// SPDX-License-Identifier: Apache-2.0
//
// Compiled for ARMv8.2 with float16 arithmetic, which HalfArithmetic() asks
// for.
#include "kernels/gemv_half64.h"
#include "kernels/select.h"
#include "kernels/tile_half64.h"

namespace tfrewprune {
namespace {

constexpr uint64_t kNarrowStep = 32;

// So many steps. (Compilers move halves of registers around.)
void NarrowSteps(const float* from, uint64_t steps, Half* to) {
  __asm__ volatile(
      "1:\n"
      "ld1 {v0.4s-v3.4s}, [%[from]], #64\n"
      "ld1 {v4.4s-v7.4s}, [%[from]], #64\n"
      "subs %[steps], %[steps], #1\n"
      "fcvtn v0.4h, v0.4s\n fcvtn2 v0.8h, v1.4s\n"
      "fcvtn v1.4h, v2.4s\n fcvtn2 v1.8h, v3.4s\n"
      "fcvtn v2.4h, v4.4s\n fcvtn2 v2.8h, v5.4s\n"
      "fcvtn v3.4h, v6.4s\n fcvtn2 v3.8h, v7.4s\n"
      "st1 {v0.8h-v3.8h}, [%[to]], #64\n"
      "b.ne 1b\n"
      : [from] "+r"(from), [to] "+r"(to), [steps] "+r"(steps)
      :
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7");
}

// The contract of NarrowKernel.
void Narrow(const float* from, uint64_t count, Half* to) {
  const uint64_t steps = count / kNarrowStep, rest = count % kNarrowStep;
  if (steps > 0) NarrowSteps(from, steps, to);
  if (rest == 0) return;
  float floats[kNarrowStep] = {};
  Half halves[kNarrowStep];
  memcpy(floats, from + count - rest, rest * sizeof(float));
  NarrowSteps(floats, 1, halves);
  memcpy(to + count - rest, halves, rest * sizeof(Half));
}

// Few lengths: every number of pixels is 1 to 3 kB of code.
template <int kLength, int kMost>
constexpr DirectKernelRow kRow = {
    16, kLength, kMost,
    HalfTiles<kLength, std::make_integer_sequence<int, kMost>>::kTable};
constexpr DirectKernelRow kDirect[] = {kRow<1, 4>, kRow<2, 4>, kRow<4, 3>,
                                       kRow<6, 2>, kRow<7, 1>, kRow<12, 1>};

constexpr GemvKernelRow kGemv[] = {
    {16, 2, ValueType::kFloat16, HalfGemv<uint16_t>},
    {16, 4, ValueType::kFloat16, HalfGemv<uint32_t>}};

constexpr Kernels Make() {
  Kernels kernels = {};
  kernels.isa = Isa::kNeon;
  kernels.lanes = 8;
  kernels.direct = kDirect;
  kernels.direct_count = sizeof(kDirect) / sizeof(kDirect[0]);
  kernels.gemv = kGemv;
  kernels.gemv_count = sizeof(kGemv) / sizeof(kGemv[0]);
  kernels.narrow = Narrow;
  return kernels;
}
constexpr Kernels kKernels = Make();

}  // namespace

const Kernels* NeonHalfKernels() { return &kKernels; }

}  // namespace tfrewprune
