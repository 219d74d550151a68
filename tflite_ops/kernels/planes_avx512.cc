// SPDX-License-Identifier: Apache-2.0
#include "kernels/planes_avx512.h"

#include "simd/transpose_avx512.h"

namespace tfrewprune {

namespace {

// n <= 16 pixels of all `channels`, and zeros up to pixel `end`.
TFREWPRUNE_ONE_COPY void TransposePixels(const float* in, ptrdiff_t stride,
                                         int n, int end, int channels,
                                         float* out, ptrdiff_t plane) {
  const int step = n <= 8 ? 32 : 16;  // few pixels: twice as many channels
  for (int c = 0; c < channels; c += step) {
    if (n <= 8) {
      TransposeBlock<true>(in + c, stride, n, end, channels - c,
                           out + c * plane, plane);
    } else {
      TransposeBlock<false>(in + c, stride, n, end, channels - c,
                            out + c * plane, plane);
    }
  }
  for (int p = 16; p < end; p += 16) {
    const int left = end - p < 16 ? end - p : 16;
    const __mmask16 stored = static_cast<__mmask16>((1u << left) - 1);
    for (int c = 0; c < channels; ++c) {
      _mm512_mask_storeu_ps(out + c * plane + p, stored, _mm512_setzero_ps());
    }
  }
}

}  // namespace

void TransposePlanesAvx512(const TransposeJob& job) {
  constexpr int kChunk = 256;          // channels
  constexpr int kPitch = kChunk + 16;  // floats
  const ptrdiff_t stride = job.in_stride;
  const ptrdiff_t plane = job.plane_stride;
  for (int r = 0; r < job.rows; ++r) {
    int p = 0;
    do {  // once also where there are only zeros
      const float* in = job.in + r * job.in_row_stride + p * stride;
      float* out = job.out + r * job.out_row_stride + p;
      const int left = job.pixels - p;
      const int n = left < 16 ? left : 16;
      const int end = left <= 16 ? left + job.zeros : 16;
      p += 16;
      if (stride % 512 != 0) {
        TransposePixels(in, stride, n, end, job.channels, out, plane);
        continue;
      }
      // Pixels multiples of 2 KiB apart share one or two sets of the
      // first-level cache: bring them together first.
      for (int c = 0; c < job.channels; c += kChunk) {
        alignas(64) float stage[16 * kPitch];
        const int channels =
            job.channels - c < kChunk ? job.channels - c : kChunk;
        for (int i = 0; i < n; ++i) {
          CopyAvx512(in + i * stride + c, channels, stage + i * kPitch);
        }
        TransposePixels(stage, kPitch, n, end, channels, out + c * plane,
                        plane);
      }
    } while (p < job.pixels);
  }
}

// Sixteen columns at a time; a comparison for each tap instead of a look-up.
void PlaneOffsetsAvx512(const OffsetsJob& job) {
  const auto tap_offset = [&](uint32_t tap) {
    return static_cast<int32_t>(job.tap_offset[tap]);
  };
  const __m512i step = _mm512_set1_epi32(static_cast<int32_t>(job.step));
  for (uint32_t i = 0; i < job.count; i += 16) {
    const uint32_t left = job.count - i;
    const __mmask16 lanes =
        static_cast<__mmask16>(left < 16 ? (1u << left) - 1 : 0xffff);
    const __m512i column =
        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, job.column + i));
    __m512i offset = _mm512_add_epi32(_mm512_mullo_epi32(column, step),
                                      _mm512_set1_epi32(tap_offset(job.tap)));
    for (uint32_t tap = job.tap + 1; tap < job.tap_end; ++tap) {
      const __mmask16 reached = _mm512_cmpge_epu32_mask(
          column, _mm512_set1_epi32(static_cast<int32_t>(tap * job.channels)));
      offset = _mm512_mask_add_epi32(
          offset, reached, offset,
          _mm512_set1_epi32(tap_offset(tap) - tap_offset(tap - 1)));
    }
    _mm512_mask_storeu_epi32(job.offset + i, lanes, offset);
  }
}

}  // namespace tfrewprune
