// SPDX-License-Identifier: Apache-2.0
//
// ARM Advanced SIMD: 4 lanes.
#ifndef TFREWPRUNE_SIMD_VEC_NEON_H_
#define TFREWPRUNE_SIMD_VEC_NEON_H_

#include <arm_neon.h>

#include "simd/vec.h"

namespace tfrewprune {

struct F32x4Neon {
  static constexpr int kLanes = 4;
  using Reg = float32x4_t;

  TFREWPRUNE_VEC Reg Zero() { return vdupq_n_f32(0.0f); }
  TFREWPRUNE_VEC Reg Set(float s) { return vdupq_n_f32(s); }
  TFREWPRUNE_VEC Reg Load(const float* p) { return vld1q_f32(p); }
  // Every CPU with VFPv4 can; 32-bit compilers must be told which format.
  TFREWPRUNE_VEC Reg Load(const Half* p) {
#if defined(__aarch64__) || defined(__ARM_FP16_FORMAT_IEEE)
    return vcvt_f32_f16(
        vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
#else
    const float lanes[kLanes] = {ToFloat(p[0]), ToFloat(p[1]), ToFloat(p[2]),
                                 ToFloat(p[3])};
    return Load(lanes);
#endif
  }
  TFREWPRUNE_VEC Reg Load(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
  }
  TFREWPRUNE_VEC void Store(float* p, Reg v) { vst1q_f32(p, v); }
  TFREWPRUNE_VEC Reg Fma(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }
  TFREWPRUNE_VEC Reg Add(Reg a, Reg b) { return vaddq_f32(a, b); }
  TFREWPRUNE_VEC Reg Mul(Reg a, Reg b) { return vmulq_f32(a, b); }
  TFREWPRUNE_VEC Reg Div(Reg a, Reg b) {
#if defined(__aarch64__)
    return vdivq_f32(a, b);
#else
    // 32-bit ARM divides scalars only: an estimate of 8 bits, doubled twice.
    Reg reciprocal = vrecpeq_f32(b);
    reciprocal = vmulq_f32(reciprocal, vrecpsq_f32(b, reciprocal));
    reciprocal = vmulq_f32(reciprocal, vrecpsq_f32(b, reciprocal));
    return vmulq_f32(a, reciprocal);
#endif
  }
  // Arm's min and max return NaN when either operand is one.
  TFREWPRUNE_VEC Reg Clamp(Reg lo, Reg hi, Reg v) {
    return vminq_f32(hi, vmaxq_f32(lo, v));
  }
};

#if defined(__aarch64__)
template <>
inline constexpr int kAddressRegisters<F32x4Neon> = 12;
#endif

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_VEC_NEON_H_
