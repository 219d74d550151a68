// SPDX-License-Identifier: Apache-2.0
#include "kernels/flat_avx512.h"

#include "simd/transpose_avx512.h"

namespace tfrewprune {
namespace {

using Vec = F32x16Avx512;
using Reg = Vec::Reg;

constexpr int kLanes = 16;  // rows stored together: bands are narrower

// Sums of one band, row by row, to `to`: R x 16 * kUnits floats. One row of
// pixels and all weights of a column stay in registers.
template <int kRows, int kUnits>
TFREWPRUNE_VEC void SumBand(const PlanesLayer& layer, uint32_t band,
                            const FlatRun& run, const float* x, float* to) {
  // Weights come from memory, and a tile takes long over a few of them: the
  // CPU's own prefetching, which stops at every page, is late.
  constexpr int kPrefetch = 1024;
  const ptrdiff_t channel_stride = layer.channel_stride;
  const uint64_t tap_scale = layer.tap_scale;
  const ptrdiff_t* tap_offset = layer.tap_offset;
  const uint32_t* start = layer.start + size_t{band} * layer.start_stride;
  const uint32_t begin = start[run.tap_begin];
  const uint32_t end = start[run.tap_end];
  Reg acc[kUnits][kRows];
  Unroll<kRows>([&](auto r) TFREWPRUNE_INLINE {
    const Reg bias = Vec::Set(layer.bias[size_t{band} * kRows + r]);
    Unroll<kUnits>([&](auto u) TFREWPRUNE_INLINE { acc[u][r] = bias; });
  });
  const float* w = layer.value + size_t{begin - layer.value_begin} * kRows;
  for (const uint16_t *c = layer.column + begin, *c_end = layer.column + end;
       c != c_end; ++c, w += kRows) {
    const uint64_t column = *c;
    const ptrdiff_t offset = static_cast<ptrdiff_t>(column) * channel_stride +
                             tap_offset[column * tap_scale >> 32];
    const float* p = reinterpret_cast<const float*>(
        reinterpret_cast<const char*>(x) + offset);
    __builtin_prefetch(w + kPrefetch);
    if constexpr (kRows < kUnits) {
      Reg weight[kRows];
      Unroll<kRows>([&](auto r)
                        TFREWPRUNE_INLINE { weight[r] = Vec::Set(w[r]); });
      Unroll<kUnits>([&](auto u) TFREWPRUNE_INLINE {
        const Reg pixels = Vec::Load(p + u * kFlatUnit);
        Unroll<kRows>([&](auto r) TFREWPRUNE_INLINE {
          acc[u][r] = Vec::Fma(pixels, weight[r], acc[u][r]);
        });
      });
    } else {
      Reg pixels[kUnits];
      Unroll<kUnits>([&](auto u) TFREWPRUNE_INLINE {
        pixels[u] = Vec::Load(p + u * kFlatUnit);
      });
      Unroll<kRows>([&](auto r) TFREWPRUNE_INLINE {
        const Reg weight = Vec::Set(w[r]);
        Unroll<kUnits>([&](auto u) TFREWPRUNE_INLINE {
          acc[u][r] = Vec::Fma(pixels[u], weight, acc[u][r]);
        });
      });
    }
  }
  Unroll<kRows>([&](auto r) TFREWPRUNE_INLINE {
    Unroll<kUnits>([&](auto u) TFREWPRUNE_INLINE {
      Vec::Store(to + (r * kUnits + u) * kFlatUnit, acc[u][r]);
    });
  });
}

// Where the pixels of a unit go: no branches where a gap may be anywhere.
struct Places {
  alignas(64) int32_t floats[kFlatUnit];  // from the first pixel of the run
  alignas(32) uint16_t lanes[kFlatUnit];  // all or none
};

TFREWPRUNE_ONE_COPY void FindPlaces(const PlanesLayer& layer,
                                    const FlatRun& run, Places* places) {
  const __m512i rank =
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int before = 0;
  for (int u = 0; u < run.units; ++u) {
    const uint16_t stored = run.stored[u];
    // Pixels that are not stored have the place of the first: no harm.
    const __m512i n = _mm512_maskz_expand_epi32(
        stored, _mm512_add_epi32(rank, _mm512_set1_epi32(before)));
    _mm512_store_si512(
        places[u].floats,
        _mm512_mullo_epi32(n, _mm512_set1_epi32(layer.output_stride)));
    _mm256_store_si256(reinterpret_cast<__m256i*>(places[u].lanes),
                       _mm256_maskz_set1_epi16(stored, -1));
    before += __builtin_popcount(stored);
  }
}

// Up to 16 rows that follow each other in the output.
template <int kUnits>
TFREWPRUNE_ONE_COPY void StoreRun(const PlanesLayer& layer,
                                  const Places* places, int lanes,
                                  const float* stage, float* y) {
  const Reg lo = Vec::Set(layer.minimum);
  const Reg hi = Vec::Set(layer.maximum);
  const uint32_t mask = (1u << lanes) - 1;
  for (int u = 0; u < kUnits; ++u, ++places, stage += kFlatUnit) {
    Transpose16x16(
        [&](auto i) TFREWPRUNE_INLINE {
          Reg v = Vec::Load(stage + i * kUnits * kFlatUnit);
          asm("" : "+v"(v));  // no memory operands: each would be loaded twice
          return v;
        },
        [&](int i, Reg v) TFREWPRUNE_INLINE {
          _mm512_mask_storeu_ps(y + places->floats[i],
                                static_cast<__mmask16>(places->lanes[i] & mask),
                                Vec::Clamp(lo, hi, v));
        });
  }
}

// The slow way out, to any rows.
TFREWPRUNE_ONE_COPY void StoreScattered(const PlanesLayer& layer,
                                        const FlatRun& run,
                                        const Places* places, int lanes,
                                        const int32_t* row, const float* stage,
                                        float* y) {
  for (int r = 0; r < lanes; ++r, stage += ptrdiff_t{run.units} * kFlatUnit) {
    if (row[r] < 0) continue;
    for (int p = 0; p < run.units * kFlatUnit; ++p) {
      if ((run.stored[p / kFlatUnit] >> p % kFlatUnit & 1) == 0) continue;
      const float low = stage[p] < layer.minimum ? layer.minimum : stage[p];
      y[places[p / kFlatUnit].floats[p % kFlatUnit] + row[r]] =
          low > layer.maximum ? layer.maximum : low;
    }
  }
}

// Bands whose rows follow each other are collected until they fill a cache
// line of every output pixel.
template <int kRows, int kUnits>
void RunTile(const PlanesLayer& layer, uint32_t band_begin, uint32_t band_end,
             const FlatRun& run, const float* planes, float* output,
             float* stage) {
  const float* x = planes + run.input;
  float* y = output + run.output;
  Places places[kUnits];
  FindPlaces(layer, run, places);
  for (uint32_t band = band_begin; band < band_end;) {
    const int32_t* row = layer.row + size_t{band} * kRows;
    int lanes = 0;
    bool grows;
    do {
      SumBand<kRows, kUnits>(layer, band, run, x,
                             stage + lanes * kUnits * kFlatUnit);
      grows = layer.full_run[band] && lanes + kRows < kLanes;
      ++band;
      lanes += kRows;
    } while (grows && band < band_end && layer.full_run[band] &&
             row[lanes] == row[0] + lanes);
    if (layer.full_run[band - 1]) {
      StoreRun<kUnits>(layer, places, lanes, stage, y + row[0]);
    } else {
      StoreScattered(layer, run, places, lanes, row, stage, y);
    }
  }
}

// The table of RunTile<kRows, 1 .. kMaxUnits>.
template <int kRows, class Sequence>
struct RunTiles;
template <int kRows, int... kIndex>
struct RunTiles<kRows, std::integer_sequence<int, kIndex...>> {
  static constexpr FlatKernel kTable[] = {RunTile<kRows, kIndex + 1>...};
};

}  // namespace

extern const FlatKernelRow kFlatAvx512[kFlatAvx512Count] = {
#define TFREWPRUNE_FLAT(R, units) \
  {R, units, RunTiles<R, std::make_integer_sequence<int, units>>::kTable},
#define TFREWPRUNE_KERNELS_FLAT_AVX512
#include "kernels/kernels.inc"
};

}  // namespace tfrewprune
