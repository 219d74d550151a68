// SPDX-License-Identifier: Apache-2.0
#include "kernels/planar_avx512.h"

#include "kernels/planar_generic.h"
#include "simd/group_avx512.h"

namespace tfrewprune {

extern const PlanarKernelRow kPlanarAvx512[kPlanarAvx512Count] = {
#define TFREWPRUNE_PLANAR_MIXED(G, length, segments, part, down) \
  {G::kRows,                                                     \
   G::kUnit,                                                     \
   length,                                                       \
   segments,                                                     \
   part,                                                         \
   down,                                                         \
   PlanarTiles<G, length, part, down,                            \
               std::make_integer_sequence<int, segments>>::kTable},
#define TFREWPRUNE_PLANAR(G, length, segments) \
  TFREWPRUNE_PLANAR_MIXED(G, length, segments, 0, 0)
#define TFREWPRUNE_KERNELS_PLANAR_AVX512
#include "kernels/kernels.inc"
};

namespace {

// n <= 16 pixels of all `channels`, and zeros up to pixel `end`.
void TransposePixels(const float* in, ptrdiff_t stride, int n, int end,
                     int channels, float* out, ptrdiff_t plane) {
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

}  // namespace tfrewprune
