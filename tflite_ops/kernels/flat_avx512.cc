// SPDX-License-Identifier: Apache-2.0
#include "kernels/flat_avx512.h"

#include "simd/group_avx512.h"

namespace tfrewprune {
namespace {

using Vec = F32x16Avx512;
using Reg = Vec::Reg;

constexpr int kLanes = 16;  // rows stored together: bands are narrower

// Sums of one band, row by row, to `to`: R x 16 * kUnits floats. One row of
// pixels and all weights of a column stay in registers.
template <int kRows, int kUnits>
TFREWPRUNE_VEC void SumBand(const FlatLayer& layer, uint32_t band,
                            const float* x, float* to) {
  // Weights come from memory, and a tile takes long over a few of them: the
  // CPU's own prefetching, which stops at every page, is late.
  constexpr int kPrefetch = 1024;
  const ptrdiff_t channel_stride = layer.channel_stride;
  const uint64_t tap_scale = layer.tap_scale;
  const ptrdiff_t* tap_offset = layer.tap_offset;
  const uint32_t begin = layer.band_start[band];
  const uint32_t end = layer.band_start[band + 1];
  Reg acc[kUnits][kRows];
  Unroll<kRows>([&](auto r) TFREWPRUNE_INLINE {
    const Reg bias = Vec::Set(layer.bias[size_t{band} * kRows + r]);
    Unroll<kUnits>([&](auto u) TFREWPRUNE_INLINE { acc[u][r] = bias; });
  });
  const float* w = layer.value + size_t{begin} * kRows;
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

// Walks over the pixels of a run that are stored.
struct Cursor {
  int32_t column, left;
  float* y;
};

TFREWPRUNE_VEC void Step(const FlatRows& rows, ptrdiff_t stride, bool stored,
                         Cursor* cursor) {
  if (stored) {
    cursor->y += stride;
    --cursor->left;
  }
  ++cursor->column;
  if (cursor->column == rows.width) cursor->y += rows.row_skip;
  if (cursor->column == rows.width + rows.gap) cursor->column = 0;
}

// Up to 16 rows that follow each other in the output: pixel by pixel.
__attribute__((noinline)) void StoreRun(const FlatLayer& layer,
                                        const FlatRows& rows,
                                        const FlatRun& run, int lanes,
                                        const float* stage, float* y) {
  const Reg lo = Vec::Set(layer.minimum);
  const Reg hi = Vec::Set(layer.maximum);
  const __mmask16 mask = static_cast<__mmask16>((1u << lanes) - 1);
  const ptrdiff_t stride = layer.output_stride;
  const ptrdiff_t pitch = ptrdiff_t{run.units} * kFlatUnit;
  Cursor cursor = {run.column, run.pixels, y};
  for (int u = 0; u < run.units; ++u, stage += kFlatUnit) {
    const auto load = [&](auto i) TFREWPRUNE_INLINE {
      Reg v = Vec::Load(stage + i * pitch);
      asm("" : "+v"(v));  // no memory operands: each would be loaded twice
      return v;
    };
    if (cursor.column + kFlatUnit < rows.width && cursor.left >= kFlatUnit) {
      Transpose16x16(load, [&](int i, Reg v) TFREWPRUNE_INLINE {
        _mm512_mask_storeu_ps(cursor.y + i * stride, mask,
                              Vec::Clamp(lo, hi, v));
      });
      cursor.column += kFlatUnit;
      cursor.left -= kFlatUnit;
      cursor.y += kFlatUnit * stride;
      continue;
    }
    alignas(64) float block[kFlatUnit * kLanes];
    Transpose16x16(load, [&](int i, Reg v) TFREWPRUNE_INLINE {
      Vec::Store(block + i * kLanes, Vec::Clamp(lo, hi, v));
    });
    for (int i = 0; i < kFlatUnit && cursor.left > 0; ++i) {
      const bool stored = cursor.column < rows.width;
      if (stored) {
        _mm512_mask_storeu_ps(cursor.y, mask, Vec::Load(block + i * kLanes));
      }
      Step(rows, stride, stored, &cursor);
    }
  }
}

// The slow way out, to any rows.
__attribute__((noinline)) void StoreScattered(const FlatLayer& layer,
                                              const FlatRows& rows,
                                              const FlatRun& run, int lanes,
                                              const int32_t* row,
                                              const float* stage, float* y) {
  for (int r = 0; r < lanes; ++r, stage += ptrdiff_t{run.units} * kFlatUnit) {
    if (row[r] < 0) continue;
    Cursor cursor = {run.column, run.pixels, y + row[r]};
    for (const float* sum = stage; cursor.left > 0; ++sum) {
      const bool stored = cursor.column < rows.width;
      if (stored) {
        const float low = *sum < layer.minimum ? layer.minimum : *sum;
        *cursor.y = low > layer.maximum ? layer.maximum : low;
      }
      Step(rows, layer.output_stride, stored, &cursor);
    }
  }
}

// Bands whose rows follow each other are collected until they fill a cache
// line of every output pixel.
template <int kRows, int kUnits>
void RunTile(const FlatLayer& layer, uint32_t band_begin, uint32_t band_end,
             const FlatRows& rows, const FlatRun& run, const float* planes,
             float* output, float* stage) {
  const float* x = planes + run.input;
  float* y = output + run.output;
  for (uint32_t band = band_begin; band < band_end;) {
    const int32_t* row = layer.row + size_t{band} * kRows;
    int lanes = 0;
    bool grows;
    do {
      SumBand<kRows, kUnits>(layer, band, x,
                             stage + lanes * kUnits * kFlatUnit);
      grows = layer.full_run[band] && lanes + kRows < kLanes;
      ++band;
      lanes += kRows;
    } while (grows && band < band_end && layer.full_run[band] &&
             row[lanes] == row[0] + lanes);
    if (layer.full_run[band - 1]) {
      StoreRun(layer, rows, run, lanes, stage, y + row[0]);
    } else {
      StoreScattered(layer, rows, run, lanes, row, stage, y);
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
  {R, units,                      \
   RunTiles<R, std::make_integer_sequence<int, units>>::kTable},
#define TFREWPRUNE_KERNELS_FLAT_AVX512
#include "kernels/kernels.inc"
};

}  // namespace tfrewprune
