// SPDX-License-Identifier: Apache-2.0
#include "kernels/planar_avx512.h"

#include "kernels/planar_generic.h"
#include "simd/group_avx512.h"

namespace tfrewprune {

extern const PlanarKernelRow kPlanarAvx512[kPlanarAvx512Count] = {
#define TFREWPRUNE_PLANAR(G, length, segments)       \
  {G::kRows, G::kUnit, length, segments,             \
   PlanarTiles<G, length,                            \
               std::make_integer_sequence<int, segments>>::kTable},
#define TFREWPRUNE_KERNELS_PLANAR_AVX512
#include "kernels/kernels.inc"
};

void TransposePlanesAvx512(const TransposeJob& job) {
  const ptrdiff_t stride = job.in_stride;
  const ptrdiff_t plane = job.plane_stride;
  for (int r = 0; r < job.rows;) {
    // Two rows of few pixels fill a block.
    const bool two_rows = job.pixels <= 8 && r + 1 < job.rows;
    for (int p = 0; p < job.pixels; p += 16) {
      const float* in = job.in + r * job.in_row_stride + p * stride;
      float* out = job.out + r * job.out_row_stride + p;
      const int n = job.pixels - p < 16 ? job.pixels - p : 16;
      for (int c = 0; c < job.channels; c += 16) {
        const float* from = in + c;
        float* to = out + c * plane;
        const int channels = job.channels - c;
        if (two_rows) {
          TransposeBlock<false, true>(from, stride, job.in_row_stride, n,
                                      channels, to, plane, job.out_row_stride);
        } else if (n == 16 && channels >= 16) {
          TransposeBlock<true, false>(from, stride, 0, n, channels, to, plane,
                                      0);
        } else {
          TransposeBlock<false, false>(from, stride, 0, n, channels, to, plane,
                                       0);
        }
      }
    }
    r += two_rows ? 2 : 1;
  }
}

}  // namespace tfrewprune
