// SPDX-License-Identifier: Apache-2.0
//
// Compiled for ARMv8.2 with float16 arithmetic, which HalfArithmetic() asks
// for.
#include <arm_neon.h>

#include "kernels/gemv_half64.h"
#include "kernels/select.h"
#include "kernels/tile_half64.h"

namespace tfrewprune {
namespace {

float16x8_t Narrow8(const float* from) {
  return vcvt_high_f16_f32(vcvt_f16_f32(vld1q_f32(from)), vld1q_f32(from + 4));
}

// The contract of NarrowKernel.
void Narrow(const float* from, uint64_t count, Half* to) {
  const auto store = [](Half* to, float16x8_t halves) {
    vst1q_u16(&to->bits, vreinterpretq_u16_f16(halves));
  };
  uint64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const float16x8_t low = Narrow8(from + i), high = Narrow8(from + i + 8);
    store(to + i, low);
    store(to + i + 8, high);
  }
  if (i == count) return;
  float rest[16] = {};
  memcpy(rest, from + i, (count - i) * sizeof(float));
  Half halves[16];
  store(halves, Narrow8(rest));
  store(halves + 8, Narrow8(rest + 8));
  memcpy(to + i, halves, (count - i) * sizeof(Half));
}

// By lengths that divide 12, so that segments of each fill a tile; and rows
// of 7.
template <int kLength, int kMost>
constexpr DirectKernelRow kRow = {
    16, kLength, kMost,
    HalfTiles<kLength, std::make_integer_sequence<int, kMost>>::kTable};
constexpr DirectKernelRow kDirect[] = {kRow<1, 6>, kRow<2, 6>, kRow<3, 4>,
                                       kRow<4, 3>, kRow<6, 2>, kRow<7, 1>,
                                       kRow<12, 1>};

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
