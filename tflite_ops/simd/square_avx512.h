// SPDX-License-Identifier: Apache-2.0
//
// 16 x 16 floats in 16 registers.
#ifndef TFREWPRUNE_SIMD_SQUARE_AVX512_H_
#define TFREWPRUNE_SIMD_SQUARE_AVX512_H_

#include "simd/square.h"
#include "simd/vec_avx512.h"

namespace tfrewprune {

struct SquareAvx512 {
  using Vec = F32x16Avx512;
  using Reg = Vec::Reg;

  TFREWPRUNE_VEC Reg LoadFirst(const float* p, int n) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
  }
  TFREWPRUNE_VEC void StoreFirst(float* p, Reg v, int n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
  }
  // Shuffles inside 128 bits are free beside FMAs, loads are not.
  TFREWPRUNE_VEC Reg LoadFour(const float* p) {
    return _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(p));
  }
  template <int kIndex>
  TFREWPRUNE_VEC Reg Splat(Reg four) {
    return _mm512_maskz_permute_ps(0xffff, four, kIndex * 0x55);
  }
  // Pairs, then quads inside 128 bits, then the 128-bit parts. (Full masks, as
  // in vec_avx512.h, only avoid a false warning of GCC 12.)
  TFREWPRUNE_VEC void Transpose(Reg* r) {
    const __mmask16 all = 0xffff;
    Reg t[16];
    Unroll<8>([&](auto i) TFREWPRUNE_INLINE {
      t[2 * i] = _mm512_maskz_unpacklo_ps(all, r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm512_maskz_unpackhi_ps(all, r[2 * i], r[2 * i + 1]);
    });
    Unroll<4>([&](auto i) TFREWPRUNE_INLINE {
      const __m512d a = _mm512_castps_pd(t[4 * i]);
      const __m512d b = _mm512_castps_pd(t[4 * i + 1]);
      const __m512d c = _mm512_castps_pd(t[4 * i + 2]);
      const __m512d d = _mm512_castps_pd(t[4 * i + 3]);
      r[4 * i] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, a, c));
      r[4 * i + 1] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, a, c));
      r[4 * i + 2] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, b, d));
      r[4 * i + 3] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, b, d));
    });
    Unroll<4>([&](auto i) TFREWPRUNE_INLINE {
      t[i] = _mm512_maskz_shuffle_f32x4(all, r[i], r[4 + i], 0x88);
      t[4 + i] = _mm512_maskz_shuffle_f32x4(all, r[i], r[4 + i], 0xdd);
      t[8 + i] = _mm512_maskz_shuffle_f32x4(all, r[8 + i], r[12 + i], 0x88);
      t[12 + i] = _mm512_maskz_shuffle_f32x4(all, r[8 + i], r[12 + i], 0xdd);
    });
    Unroll<4>([&](auto i) TFREWPRUNE_INLINE {
      r[i] = _mm512_maskz_shuffle_f32x4(all, t[i], t[8 + i], 0x88);
      r[8 + i] = _mm512_maskz_shuffle_f32x4(all, t[i], t[8 + i], 0xdd);
      r[4 + i] = _mm512_maskz_shuffle_f32x4(all, t[4 + i], t[12 + i], 0x88);
      r[12 + i] = _mm512_maskz_shuffle_f32x4(all, t[4 + i], t[12 + i], 0xdd);
    });
  }
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_SQUARE_AVX512_H_
