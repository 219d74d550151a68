// SPDX-License-Identifier: Apache-2.0
#include "kernels/planar_avx512.h"

#include "kernels/planar_generic.h"
#include "simd/group_avx512.h"

namespace tfrewprune {

extern const PlanarKernelRow kPlanarAvx512[kPlanarAvx512Count] = {
#define TFREWPRUNE_PLANAR(G, length, segments) \
  {G::kRows, G::kUnit, length, segments,       \
   PlanarTiles<G, length, std::make_integer_sequence<int, segments>>::kTable},
#define TFREWPRUNE_KERNELS_PLANAR_AVX512
#include "kernels/kernels.inc"
};

namespace {

// n <= 16 pixels of all `channels`.
void TransposePixels(const float* in, ptrdiff_t stride, int n, int channels,
                     float* out, ptrdiff_t plane) {
  const int step = n <= 8 ? 32 : 16;  // few pixels: twice as many channels
  for (int c = 0; c < channels; c += step) {
    if (n <= 8) {
      TransposeBlock<true>(in + c, stride, n, channels - c, out + c * plane,
                           plane);
    } else {
      TransposeBlock<false>(in + c, stride, n, channels - c, out + c * plane,
                            plane);
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
    for (int p = 0; p < job.pixels; p += 16) {
      const float* in = job.in + r * job.in_row_stride + p * stride;
      float* out = job.out + r * job.out_row_stride + p;
      const int n = job.pixels - p < 16 ? job.pixels - p : 16;
      if (stride % 512 != 0) {
        TransposePixels(in, stride, n, job.channels, out, plane);
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
        TransposePixels(stage, kPitch, n, channels, out + c * plane, plane);
      }
    }
  }
}

}  // namespace tfrewprune
