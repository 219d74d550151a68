// SPDX-License-Identifier: Apache-2.0
//
// 8 x 8 floats in 8 registers.
#ifndef TFREWPRUNE_SIMD_SQUARE_AVX2_H_
#define TFREWPRUNE_SIMD_SQUARE_AVX2_H_

#include "simd/square.h"
#include "simd/vec_avx2.h"

namespace tfrewprune {

struct SquareAvx2 : SquareTail<F32x8Avx2> {
  using Vec = F32x8Avx2;
  using Reg = Vec::Reg;

  TFREWPRUNE_VEC Reg LoadFour(const float* p) {
    return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
  }
  template <int kIndex>
  TFREWPRUNE_VEC Reg Splat(Reg four) {
    return _mm256_permute_ps(four, kIndex * 0x55);
  }
  // Pairs, then quads inside 128 bits, then the 128-bit halves.
  TFREWPRUNE_VEC void Transpose(Reg* r) {
    Reg t[8];
    Unroll<4>([&](auto i) TFREWPRUNE_INLINE {
      t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    });
    Unroll<2>([&](auto i) TFREWPRUNE_INLINE {
      const __m256d a = _mm256_castps_pd(t[4 * i]);
      const __m256d b = _mm256_castps_pd(t[4 * i + 1]);
      const __m256d c = _mm256_castps_pd(t[4 * i + 2]);
      const __m256d d = _mm256_castps_pd(t[4 * i + 3]);
      r[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
      r[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
      r[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
      r[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    });
    Unroll<4>([&](auto i) TFREWPRUNE_INLINE {
      const Reg low = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
      r[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
      r[i] = low;
    });
  }
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_SQUARE_AVX2_H_
