// SPDX-License-Identifier: Apache-2.0
//
// 4 x 4 floats in 4 GNU vectors.
#ifndef TFREWPRUNE_SIMD_SQUARE_PORTABLE_H_
#define TFREWPRUNE_SIMD_SQUARE_PORTABLE_H_

#include "simd/square.h"
#include "simd/vec_portable.h"

namespace tfrewprune {

struct SquarePortable : SquareTail<F32x4Portable> {
  using Vec = F32x4Portable;
  using Reg = Vec::Reg;

  TFREWPRUNE_VEC Reg LoadFour(const float* p) { return Vec::Load(p); }
  template <int kIndex>
  TFREWPRUNE_VEC Reg Splat(Reg four) {
    return Vec::Set(four[kIndex]);
  }
  TFREWPRUNE_VEC void Transpose(Reg* r) {
    Reg t[4];
    Unroll<4>([&](auto i) TFREWPRUNE_INLINE {
      constexpr int kLane = i;
      t[i] = Reg{r[0][kLane], r[1][kLane], r[2][kLane], r[3][kLane]};
    });
    Unroll<4>([&](auto i) TFREWPRUNE_INLINE { r[i] = t[i]; });
  }
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_SQUARE_PORTABLE_H_
