// SPDX-License-Identifier: Apache-2.0
//
// AVX-512: 16 lanes, and 8 and 4 (AVX-512VL: 32 registers and broadcast
// operands at every width) for narrow bands.
#ifndef TFREWPRUNE_SIMD_VEC_AVX512_H_
#define TFREWPRUNE_SIMD_VEC_AVX512_H_

#include <immintrin.h>

#include "simd/vec.h"

namespace tfrewprune {

struct F32x16Avx512 {
  static constexpr int kLanes = 16;
  using Reg = __m512;

  TFREWPRUNE_VEC Reg Zero() { return _mm512_setzero_ps(); }
  TFREWPRUNE_VEC Reg Set(float s) { return _mm512_set1_ps(s); }
  TFREWPRUNE_VEC Reg Load(const float* p) { return _mm512_loadu_ps(p); }
  TFREWPRUNE_VEC Reg Load(const Half* p) {
    return _mm512_maskz_cvtph_ps(
        __mmask16{0xffff},
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  TFREWPRUNE_VEC Reg Load(const int8_t* p) {
    const __mmask16 all = 0xffff;
    return _mm512_maskz_cvtepi32_ps(
        all, _mm512_maskz_cvtepi8_epi32(
                 all, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  TFREWPRUNE_VEC void Store(float* p, Reg v) { _mm512_storeu_ps(p, v); }
  TFREWPRUNE_VEC Reg Fma(Reg a, Reg b, Reg c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  TFREWPRUNE_VEC Reg Add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  TFREWPRUNE_VEC Reg Mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  TFREWPRUNE_VEC Reg Div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  // The second operand of max and min is the result when one is NaN. The full
  // mask only avoids GCC 12's false warning about the plain intrinsics.
  TFREWPRUNE_VEC Reg Clamp(Reg lo, Reg hi, Reg v) {
    const __mmask16 all = 0xffff;
    return _mm512_maskz_min_ps(all, hi, _mm512_maskz_max_ps(all, lo, v));
  }
};

struct F32x8Avx512 {
  static constexpr int kLanes = 8;
  using Reg = __m256;

  TFREWPRUNE_VEC Reg Zero() { return _mm256_setzero_ps(); }
  TFREWPRUNE_VEC Reg Set(float s) { return _mm256_set1_ps(s); }
  TFREWPRUNE_VEC Reg Load(const float* p) { return _mm256_loadu_ps(p); }
  TFREWPRUNE_VEC Reg Load(const Half* p) {
    return _mm256_cvtph_ps(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  TFREWPRUNE_VEC Reg Load(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  TFREWPRUNE_VEC void Store(float* p, Reg v) { _mm256_storeu_ps(p, v); }
  TFREWPRUNE_VEC Reg Fma(Reg a, Reg b, Reg c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  TFREWPRUNE_VEC Reg Add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  TFREWPRUNE_VEC Reg Clamp(Reg lo, Reg hi, Reg v) {
    return _mm256_min_ps(hi, _mm256_max_ps(lo, v));
  }
};

struct F32x4Avx512 {
  static constexpr int kLanes = 4;
  using Reg = __m128;

  TFREWPRUNE_VEC Reg Zero() { return _mm_setzero_ps(); }
  TFREWPRUNE_VEC Reg Set(float s) { return _mm_set1_ps(s); }
  TFREWPRUNE_VEC Reg Load(const float* p) { return _mm_loadu_ps(p); }
  TFREWPRUNE_VEC Reg Load(const Half* p) {
    return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  TFREWPRUNE_VEC Reg Load(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)));
  }
  TFREWPRUNE_VEC void Store(float* p, Reg v) { _mm_storeu_ps(p, v); }
  TFREWPRUNE_VEC Reg Fma(Reg a, Reg b, Reg c) { return _mm_fmadd_ps(a, b, c); }
  TFREWPRUNE_VEC Reg Add(Reg a, Reg b) { return _mm_add_ps(a, b); }
  TFREWPRUNE_VEC Reg Clamp(Reg lo, Reg hi, Reg v) {
    return _mm_min_ps(hi, _mm_max_ps(lo, v));
  }
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_VEC_AVX512_H_
