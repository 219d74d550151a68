// SPDX-License-Identifier: Apache-2.0
//
// 4 x 4 floats in 4 registers.
#ifndef TFREWPRUNE_SIMD_SQUARE_NEON_H_
#define TFREWPRUNE_SIMD_SQUARE_NEON_H_

#include "simd/square.h"
#include "simd/vec_neon.h"

namespace tfrewprune {

struct SquareNeon : SquareTail<F32x4Neon> {
  using Vec = F32x4Neon;
  using Reg = Vec::Reg;

  TFREWPRUNE_VEC Reg LoadFour(const float* p) { return Vec::Load(p); }
  template <int kIndex>
  TFREWPRUNE_VEC Reg Splat(Reg four) {
#if defined(__aarch64__)
    return vdupq_laneq_f32(four, kIndex);
#else
    return vdupq_lane_f32(kIndex < 2 ? vget_low_f32(four) : vget_high_f32(four),
                          kIndex % 2);
#endif
  }
  TFREWPRUNE_VEC void Transpose(Reg* r) {
    const float32x4x2_t ab = vtrnq_f32(r[0], r[1]);
    const float32x4x2_t cd = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0]));
    r[1] = vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1]));
    r[2] = vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0]));
    r[3] = vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1]));
  }
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_SQUARE_NEON_H_
