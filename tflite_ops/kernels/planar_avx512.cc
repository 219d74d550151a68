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

void TransposePlanesAvx512(const float* in, ptrdiff_t in_stride, int pixels,
                           int channels, float* out, ptrdiff_t out_stride) {
  TransposeAvx512(in, in_stride, pixels, channels, out, out_stride);
}

}  // namespace tfrewprune
