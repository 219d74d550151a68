// SPDX-License-Identifier: Apache-2.0
//
// The loop nest of kernels/planar.h, once for every instruction set.
#ifndef TFREWPRUNE_KERNELS_PLANAR_GENERIC_H_
#define TFREWPRUNE_KERNELS_PLANAR_GENERIC_H_

#include "kernels/band_generic.h"
#include "kernels/planar.h"
#include "simd/vec.h"

namespace tfrewprune {

// G says how R rows x kUnit pixels lie in G::kRegisters registers;
// simd/group_avx512.h has the contract.
template <class G, int kLength, int kSegments>
void PlanarTile(const PlanarLayer& layer, uint32_t band_begin,
                uint32_t band_end, uint32_t tap_begin, uint32_t tap_end,
                int last, const float* planes, float* output,
                const Segment* segment) {
  using V = typename G::Vec;
  using Reg = typename V::Reg;
  constexpr int kRows = G::kRows;
  constexpr int kRegisters = G::kRegisters;
  constexpr int kUnit = G::kUnit;
  // Weights come from memory, and a tile takes long over a few of them: the
  // CPU's own prefetching, which stops at every page, is late.
  constexpr int kPrefetch = 1024;
  const ptrdiff_t channel_stride = layer.channel_stride;
  const uint64_t tap_scale = layer.tap_scale;
  const ptrdiff_t* tap_offset = layer.tap_offset;
  const char* base[kSegments];
  Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
    base[g] = reinterpret_cast<const char*>(planes + segment[g].input);
  });
  for (uint32_t band = band_begin; band < band_end; ++band) {
    const uint32_t* start = layer.start + size_t{band} * layer.start_stride;
    const uint32_t begin = start[tap_begin];
    const uint32_t end = start[tap_end];
    Reg acc[kSegments][kLength][kRegisters];
    {
      Reg bias[kRegisters];
      G::Spread(layer.bias + size_t{band} * kRows, bias);
      Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
        Unroll<kLength>([&](auto u) TFREWPRUNE_INLINE {
          Unroll<kRegisters>([&](auto r)
                                 TFREWPRUNE_INLINE { acc[g][u][r] = bias[r]; });
        });
      });
    }
    const float* w = layer.value + size_t{begin} * kRows;
    for (const uint16_t *c = layer.column + begin, *c_end = layer.column + end;
         c != c_end; ++c, w += kRows) {
      const uint64_t column = *c;
      const ptrdiff_t offset = static_cast<ptrdiff_t>(column) * channel_stride +
                               tap_offset[column * tap_scale >> 32];
      __builtin_prefetch(w + kPrefetch);
      Reg weight[kRegisters];
      G::Spread(w, weight);
      Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
        const float* x = reinterpret_cast<const float*>(base[g] + offset);
        Unroll<kLength>([&](auto u) TFREWPRUNE_INLINE {
          const Reg pixels = G::Pixels(x + u * kUnit);
          Unroll<kRegisters>([&](auto r) TFREWPRUNE_INLINE {
            acc[g][u][r] = V::Fma(pixels, weight[r], acc[g][u][r]);
          });
        });
      });
    }
    const Reg lo = V::Set(layer.minimum);
    const Reg hi = V::Set(layer.maximum);
    const int32_t* row = layer.row + size_t{band} * kRows;
    const bool full_run = layer.full_run[band];
    Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
      float* y = output + segment[g].output;
      if (full_run) y += row[0];
      Unroll<kLength>([&](auto u) TFREWPRUNE_INLINE {
        Unroll<kRegisters>([&](auto r) TFREWPRUNE_INLINE {
          acc[g][u][r] = V::Clamp(lo, hi, acc[g][u][r]);
        });
        const int pixels = u + 1 < kLength ? kUnit : last;
        if (full_run) {
          G::Store(acc[g][u], y, layer.output_stride, pixels);
        } else {
          float lanes[kRows * kUnit];
          G::Store(acc[g][u], lanes, kRows, kUnit);
          StoreRows<V, kRows>(lanes, pixels, row, y, layer.output_stride);
        }
        y += kUnit * layer.output_stride;
      });
    });
  }
}

// The table of PlanarTile<..., 1 .. kMaxSegments>.
template <class G, int kLength, class Sequence>
struct PlanarTiles;
template <class G, int kLength, int... kIndex>
struct PlanarTiles<G, kLength, std::integer_sequence<int, kIndex...>> {
  static constexpr PlanarKernel kTable[] = {
      PlanarTile<G, kLength, kIndex + 1>...};
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_PLANAR_GENERIC_H_
