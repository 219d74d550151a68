// SPDX-License-Identifier: Apache-2.0
//
// Transposition of blocks of 16 x 16 floats.
#ifndef TFREWPRUNE_SIMD_TRANSPOSE_AVX512_H_
#define TFREWPRUNE_SIMD_TRANSPOSE_AVX512_H_

#include <cstddef>
#include <utility>

#include "simd/vec_avx512.h"

namespace tfrewprune {

inline constexpr __mmask16 kAllLanes = 0xffff;

// Transposes 16 vectors of 16: store(i, v) gets element i of load(0 .. 15).
template <class Load, class Store>
TFREWPRUNE_VEC void Transpose16x16(Load&& load, Store&& store) {
  __m512 a[16], b[16];
  Unroll<8>([&](auto i) TFREWPRUNE_INLINE {
    const __m512 x = load(std::integral_constant<int, 2 * i>());
    const __m512 y = load(std::integral_constant<int, 2 * i + 1>());
    b[2 * i] = _mm512_maskz_unpacklo_ps(kAllLanes, x, y);
    b[2 * i + 1] = _mm512_maskz_unpackhi_ps(kAllLanes, x, y);
  });
  Unroll<4>([&](auto i) TFREWPRUNE_INLINE {
    Unroll<2>([&](auto j) TFREWPRUNE_INLINE {
      const __m512d x = _mm512_castps_pd(b[4 * i + j]);
      const __m512d y = _mm512_castps_pd(b[4 * i + j + 2]);
      a[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, x, y));
      a[4 * i + 2 * j + 1] =
          _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, x, y));
    });
  });
  // Lane l of a[4 q + i] now holds element 4 l + i of vectors 4 q .. 4 q + 3.
  Unroll<4>([&](auto i) TFREWPRUNE_INLINE {
    constexpr int kElement = i;
    const __m512 low02 =
        _mm512_maskz_shuffle_f32x4(kAllLanes, a[i], a[4 + i], 0x88);
    const __m512 low13 =
        _mm512_maskz_shuffle_f32x4(kAllLanes, a[i], a[4 + i], 0xdd);
    const __m512 high02 =
        _mm512_maskz_shuffle_f32x4(kAllLanes, a[8 + i], a[12 + i], 0x88);
    const __m512 high13 =
        _mm512_maskz_shuffle_f32x4(kAllLanes, a[8 + i], a[12 + i], 0xdd);
    store(kElement, _mm512_maskz_shuffle_f32x4(kAllLanes, low02, high02, 0x88));
    store(kElement + 4,
          _mm512_maskz_shuffle_f32x4(kAllLanes, low13, high13, 0x88));
    store(kElement + 8,
          _mm512_maskz_shuffle_f32x4(kAllLanes, low02, high02, 0xdd));
    store(kElement + 12,
          _mm512_maskz_shuffle_f32x4(kAllLanes, low13, high13, 0xdd));
  });
}

// to[i] = from[i]
TFREWPRUNE_VEC void CopyAvx512(const float* from, int count, float* to) {
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    _mm512_storeu_ps(to + i, _mm512_loadu_ps(from + i));
  }
  const __mmask16 rest = static_cast<__mmask16>((1u << (count - i)) - 1);
  _mm512_mask_storeu_ps(to + i, rest, _mm512_maskz_loadu_ps(rest, from + i));
}

// One block of a TransposeJob: n <= 16 pixels of 16 channels or, with kWide,
// n <= 8 pixels of 32; zeros are stored up to pixel `end`. (Masks also where
// nothing is cut off: GCC 12 would fold plain loads into two shuffles each,
// which takes half as long again.)
template <bool kWide>
TFREWPRUNE_VEC void TransposeBlock(const float* in, ptrdiff_t in_stride, int n,
                                   int end, int channels, float* out,
                                   ptrdiff_t out_stride) {
  const auto mask = [](int count) TFREWPRUNE_INLINE {
    return static_cast<__mmask16>(count >= 16  ? 0xffff
                                  : count <= 0 ? 0
                                               : (1u << count) - 1);
  };
  const __mmask16 low = mask(channels);
  const __mmask16 high = mask(channels - 16);
  constexpr int kPixels = kWide ? 8 : 16;
  const __mmask16 stored = mask(end);
  Transpose16x16(
      [&](auto i) TFREWPRUNE_INLINE {
        constexpr int kPixel = i % kPixels;
        const bool inside = kPixel < n;  // else nothing is loaded
        const float* pixel = in + (inside ? kPixel : 0) * in_stride;
        return i < kPixels
                   ? _mm512_maskz_loadu_ps(inside ? low : 0, pixel)
                   : _mm512_maskz_loadu_ps(inside ? high : 0, pixel + 16);
      },
      [&](int i, __m512 v) TFREWPRUNE_INLINE {
        float* to = out + i * out_stride;
        if (!kWide) {
          if (i < channels) _mm512_mask_storeu_ps(to, stored, v);
          return;
        }
        if (i < channels) {
          _mm512_mask_storeu_ps(to, stored, _mm512_maskz_mov_ps(0xff, v));
        }
        if (i + 16 < channels) {
          _mm512_mask_storeu_ps(
              to + 16 * out_stride, stored,
              _mm512_zextps256_ps512(_mm512_maskz_extractf32x8_ps(0xff, v, 1)));
        }
      });
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_TRANSPOSE_AVX512_H_
