// SPDX-License-Identifier: Apache-2.0
//
// The loop nest of kernels/planar.h, once for every instruction set.
#ifndef TFREWPRUNE_KERNELS_PLANAR_GENERIC_H_
#define TFREWPRUNE_KERNELS_PLANAR_GENERIC_H_

#include "kernels/direct_generic.h"
#include "kernels/planar.h"
#include "simd/vec.h"

namespace tfrewprune {

// function(g, u) for the units u of the segments g in [kFirst, kSegments), then
// for those of the segment that goes down.
template <int kLength, int kDown, int kFirst, int kSegments, class Function>
TFREWPRUNE_VEC void EachUnit(Function&& function) {
  Unroll<kSegments - kFirst>([&](auto i) TFREWPRUNE_INLINE {
    Unroll<kLength>([&](auto u) TFREWPRUNE_INLINE {
      function(std::integral_constant<int, kFirst + i>(), u);
    });
  });
  Unroll<kDown>([&](auto u) TFREWPRUNE_INLINE {
    function(std::integral_constant<int, kSegments>(), u);
  });
}

// G says how R rows x kUnit pixels lie in G::kRegisters registers;
// simd/group_avx512.h has the contract.
template <class G, int kLength, int kPart, int kDown, int kSegments>
void PlanarTile(const PlanarLayer& layer, uint32_t band_begin,
                uint32_t band_end, const PlanarExtent& extent,
                const float* planes, float* output, const Segment* segment) {
  using V = typename G::Vec;
  using Reg = typename V::Reg;
  constexpr int kRows = G::kRows;
  constexpr int kRegisters = G::kRegisters;
  constexpr int kUnit = G::kUnit;
  constexpr int kRuns = kSegments + (kDown > 0);
  // Weights come from memory, and a tile takes long over a few of them: the
  // CPU's own prefetching, which stops at every page, is late.
  constexpr int kPrefetch = 1024;
  const ptrdiff_t channel_stride = layer.channel_stride;
  const uint64_t tap_scale = layer.tap_scale;
  const ptrdiff_t* tap_offset = layer.tap_offset;
  const ptrdiff_t down_stride = layer.down_channel_stride;
  const ptrdiff_t* down_tap_offset = layer.down_tap_offset;
  const char* base[kRuns];
  Unroll<kRuns>([&](auto g) TFREWPRUNE_INLINE {
    base[g] = reinterpret_cast<const char*>(planes + segment[g].input);
  });
  for (uint32_t band = band_begin; band < band_end; ++band) {
    const uint32_t* start = layer.start + size_t{band} * layer.start_stride;
    const uint32_t begin = start[extent.tap_begin];
    Reg acc[kRuns][kLength > kDown ? kLength : kDown][kRegisters];
    {
      Reg bias[kRegisters];
      G::Spread(layer.bias + size_t{band} * kRows, bias);
      EachUnit<kLength, kDown, 0, kSegments>([&](auto g,
                                                 auto u) TFREWPRUNE_INLINE {
        Unroll<kRegisters>([&](auto r)
                               TFREWPRUNE_INLINE { acc[g][u][r] = bias[r]; });
      });
    }
    const float* w = layer.value + size_t{begin - layer.value_begin} * kRows;
    const uint16_t* c = layer.column + begin;
    const auto add_columns = [&](auto first, uint32_t end) TFREWPRUNE_INLINE {
      for (const uint16_t* c_end = layer.column + end; c != c_end;
           ++c, w += kRows) {
        const uint64_t column = *c;
        const uint64_t tap = column * tap_scale >> 32;
        const ptrdiff_t offset =
            static_cast<ptrdiff_t>(column) * channel_stride + tap_offset[tap];
        __builtin_prefetch(w + kPrefetch);
        Reg weight[kRegisters];
        G::Spread(w, weight);
        const char* x[kRuns];
        Unroll<kSegments>([&](auto g)
                              TFREWPRUNE_INLINE { x[g] = base[g] + offset; });
        if constexpr (kDown > 0) {
          x[kSegments] = base[kSegments] + down_tap_offset[tap] +
                         static_cast<ptrdiff_t>(column) * down_stride;
        }
        EachUnit<kLength, kDown, first, kSegments>(
            [&](auto g, auto u) TFREWPRUNE_INLINE {
              const Reg pixels =
                  G::Pixels(reinterpret_cast<const float*>(x[g]) + u * kUnit);
              Unroll<kRegisters>([&](auto r) TFREWPRUNE_INLINE {
                acc[g][u][r] = V::Fma(pixels, weight[r], acc[g][u][r]);
              });
            });
      }
    };
    if constexpr (kPart > 0) {
      using Part = std::integral_constant<int, kPart>;
      add_columns(Part(), start[extent.part_begin]);
      add_columns(std::integral_constant<int, 0>(), start[extent.part_end]);
      add_columns(Part(), start[extent.tap_end]);
    } else {
      add_columns(std::integral_constant<int, 0>(), start[extent.tap_end]);
    }
    const Reg lo = V::Set(layer.minimum);
    const Reg hi = V::Set(layer.maximum);
    const int32_t* row = layer.row + size_t{band} * kRows;
    const bool full_run = layer.full_run[band];
    Unroll<kRuns>([&](auto g) TFREWPRUNE_INLINE {
      constexpr bool kIsDown = g == kSegments;
      constexpr int kUnits = kIsDown ? kDown : kLength;
      const ptrdiff_t stride =
          kIsDown ? layer.down_output_stride : layer.output_stride;
      float* y = output + segment[g].output;
      if (full_run) y += row[0];
      Unroll<kUnits>([&](auto u) TFREWPRUNE_INLINE {
        Unroll<kRegisters>([&](auto r) TFREWPRUNE_INLINE {
          acc[g][u][r] = V::Clamp(lo, hi, acc[g][u][r]);
        });
        const int pixels = u + 1 < kUnits ? kUnit
                           : kIsDown      ? extent.down_last
                                          : extent.last;
        if (full_run) {
          G::Store(acc[g][u], y, stride, pixels);
        } else {
          float lanes[kRows * kUnit];
          G::Store(acc[g][u], lanes, kRows, kUnit);
          StoreRows<V, kRows>(lanes, pixels, row, y, stride);
        }
        y += kUnit * stride;
      });
    });
  }
}

// The table of PlanarTile<..., 1 .. kMaxSegments>.
template <class G, int kLength, int kPart, int kDown, class Sequence>
struct PlanarTiles;
template <class G, int kLength, int kPart, int kDown, int... kIndex>
struct PlanarTiles<G, kLength, kPart, kDown,
                   std::integer_sequence<int, kIndex...>> {
  template <int kSegments>
  static constexpr PlanarKernel Kernel() {
    if constexpr (kSegments + (kDown > 0) > kPart) {
      return PlanarTile<G, kLength, kPart, kDown, kSegments>;
    }
    return nullptr;
  }
  static constexpr PlanarKernel kTable[] = {Kernel<kIndex + 1>()...};
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_PLANAR_GENERIC_H_
