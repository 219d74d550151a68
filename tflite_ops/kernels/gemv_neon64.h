// SPDX-License-Identifier: Apache-2.0
//
// Gemv of 16 lanes on AArch64, in assembly, so that one instruction loads all
// weights of a column (tile_neon64.h): a column is 4 FMAs, that load, its index
// and its input.
//
//   v0 - v7  weights of two columns   v16 - v31  four chains of 4 accumulators
//   v8, v9   their inputs             w16, w17   their indices
#ifndef TFREWPRUNE_KERNELS_GEMV_NEON64_H_
#define TFREWPRUNE_KERNELS_GEMV_NEON64_H_

#include <cmath>

#include "kernels/direct_generic.h"
#include "simd/vec_neon.h"

namespace tfrewprune {

// clang-format off
#define TFREWPRUNE_INDEX(c, index)                             \
  ".if %c[index_bytes] == 2\n"                                 \
  "ldrh w" #index ", [%[column], #2 * " #c "]\n"               \
  ".else\n"                                                    \
  "ldr w" #index ", [%[column], #4 * " #c "]\n"                \
  ".endif\n"
#define TFREWPRUNE_INPUT(s, index)  \
  "ldr s" #s ", [%[x], x" #index ", lsl #2]\n"
#define TFREWPRUNE_WEIGHTS(a, b, c, d)                         \
  ".if %c[value_bytes] == 4\n"                                 \
  "ld1 {v" #a ".4s-v" #d ".4s}, [%[w]], #64\n"                 \
  ".else\n"                                                    \
  "ld1 {v" #a ".4h-v" #d ".4h}, [%[w]], #32\n"                 \
  "fcvtl v" #a ".4s, v" #a ".4h\n"                             \
  "fcvtl v" #b ".4s, v" #b ".4h\n"                             \
  "fcvtl v" #c ".4s, v" #c ".4h\n"                             \
  "fcvtl v" #d ".4s, v" #d ".4h\n"                             \
  ".endif\n"
#define TFREWPRUNE_EVEN_FMAS(a, b, c, d)                       \
  "fmla v" #a ".4s, v0.4s, v8.s[0]\n"                          \
  "fmla v" #b ".4s, v1.4s, v8.s[0]\n"                          \
  "fmla v" #c ".4s, v2.4s, v8.s[0]\n"                          \
  "fmla v" #d ".4s, v3.4s, v8.s[0]\n"
#define TFREWPRUNE_ODD_FMAS(a, b, c, d)                        \
  "fmla v" #a ".4s, v4.4s, v9.s[0]\n"                          \
  "fmla v" #b ".4s, v5.4s, v9.s[0]\n"                          \
  "fmla v" #c ".4s, v6.4s, v9.s[0]\n"                          \
  "fmla v" #d ".4s, v7.4s, v9.s[0]\n"
// What a column needs is loaded before the one in front of it is multiplied,
// its index yet another one earlier.
#define TFREWPRUNE_LOAD_EVEN(next)                             \
  TFREWPRUNE_INPUT(8, 16) TFREWPRUNE_INDEX(next, 16)           \
  TFREWPRUNE_WEIGHTS(0, 1, 2, 3)
#define TFREWPRUNE_LOAD_ODD(next)                              \
  TFREWPRUNE_INPUT(9, 17) TFREWPRUNE_INDEX(next, 17)           \
  TFREWPRUNE_WEIGHTS(4, 5, 6, 7)
#define TFREWPRUNE_ALL_LANES(op, a, b, c, d)                   \
  op " v16.4s, v16.4s, v" #a ".4s\n"                           \
  op " v17.4s, v17.4s, v" #b ".4s\n"                           \
  op " v18.4s, v18.4s, v" #c ".4s\n"                           \
  op " v19.4s, v19.4s, v" #d ".4s\n"
// clang-format on

// The contract of kernels/gemv.h.
template <class Index, class Value>
void Gemv16(const GemvLayer& layer, uint32_t band_begin, uint32_t band_end,
            const void* x, float* y) {
  constexpr int kWidth = 16;
  const bool clamped = layer.minimum > -INFINITY || layer.maximum < INFINITY;
  const uint32_t* start = layer.band_start + band_begin;
  const uint32_t* const start_end = layer.band_start + band_end;
  const Index* column = static_cast<const Index*>(layer.column) + *start;
  const Value* w =
      static_cast<const Value*>(layer.value) + size_t{*start} * kWidth;
  const float* bias = layer.bias + size_t{band_begin} * kWidth;
  const int32_t* row = layer.row + size_t{band_begin} * kWidth;
  const uint8_t* full_run = layer.full_run + band_begin;
  float lanes[kWidth];
  for (; start != start_end; ++start, row += kWidth) {
    uint32_t columns = start[1] - start[0];
    const bool scattered = !*full_run++;
    float* to = scattered ? lanes : y + *row;
    __asm__ volatile(
        "ld1 {v16.4s-v19.4s}, [%[bias]], #64\n"
        "movi v20.4s, #0\n movi v21.4s, #0\n movi v22.4s, #0\n"
        "movi v23.4s, #0\n movi v24.4s, #0\n movi v25.4s, #0\n"
        "movi v26.4s, #0\n movi v27.4s, #0\n movi v28.4s, #0\n"
        "movi v29.4s, #0\n movi v30.4s, #0\n movi v31.4s, #0\n"
        "subs %w[columns], %w[columns], #8\n"
        "b.lo 2f\n"
        "1:\n"
        TFREWPRUNE_INDEX(0, 16) TFREWPRUNE_INDEX(1, 17)
        TFREWPRUNE_LOAD_EVEN(2)
        TFREWPRUNE_LOAD_ODD(3) TFREWPRUNE_EVEN_FMAS(16, 17, 18, 19)
        TFREWPRUNE_LOAD_EVEN(4) TFREWPRUNE_ODD_FMAS(20, 21, 22, 23)
        TFREWPRUNE_LOAD_ODD(5) TFREWPRUNE_EVEN_FMAS(24, 25, 26, 27)
        TFREWPRUNE_LOAD_EVEN(6) TFREWPRUNE_ODD_FMAS(28, 29, 30, 31)
        TFREWPRUNE_LOAD_ODD(7) TFREWPRUNE_EVEN_FMAS(16, 17, 18, 19)
        TFREWPRUNE_INPUT(8, 16) TFREWPRUNE_WEIGHTS(0, 1, 2, 3)
        TFREWPRUNE_ODD_FMAS(20, 21, 22, 23)
        TFREWPRUNE_INPUT(9, 17) TFREWPRUNE_WEIGHTS(4, 5, 6, 7)
        TFREWPRUNE_EVEN_FMAS(24, 25, 26, 27)
        "add %[column], %[column], #8 * %c[index_bytes]\n"
        "subs %w[columns], %w[columns], #8\n"
        TFREWPRUNE_ODD_FMAS(28, 29, 30, 31)
        "b.hs 1b\n"
        "2:\n"
        "adds %w[columns], %w[columns], #8\n"
        "b.eq 4f\n"
        "3:\n"
        TFREWPRUNE_INDEX(0, 16)
        "add %[column], %[column], #%c[index_bytes]\n"
        TFREWPRUNE_INPUT(8, 16) TFREWPRUNE_WEIGHTS(0, 1, 2, 3)
        "subs %w[columns], %w[columns], #1\n"
        TFREWPRUNE_EVEN_FMAS(16, 17, 18, 19)
        "b.ne 3b\n"
        "4:\n"
        TFREWPRUNE_ALL_LANES("fadd", 20, 21, 22, 23)
        TFREWPRUNE_ALL_LANES("fadd", 24, 25, 26, 27)
        TFREWPRUNE_ALL_LANES("fadd", 28, 29, 30, 31)
        "cbz %w[clamped], 5f\n"
        "ld2r {v0.4s, v1.4s}, [%[limits]]\n"
        TFREWPRUNE_ALL_LANES("fmax", 0, 0, 0, 0)
        TFREWPRUNE_ALL_LANES("fmin", 1, 1, 1, 1)
        "5:\n"
        "st1 {v16.4s-v19.4s}, [%[to]]\n"
        : [column] "+&r"(column), [w] "+&r"(w), [bias] "+&r"(bias),
          [columns] "+&r"(columns)
        : [index_bytes] "i"(sizeof(Index)), [value_bytes] "i"(sizeof(Value)),
          [x] "r"(x), [clamped] "r"(clamped), [limits] "r"(&layer.minimum),
          [to] "r"(to)
        : "x16", "x17", "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5",
          "v6", "v7", "v8", "v9", "v16", "v17", "v18", "v19", "v20", "v21",
          "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
    if (__builtin_expect(scattered, false)) {
      StoreRows<F32x4Neon>(lanes, 1, kWidth, row, y, 0);
    }
  }
}

#undef TFREWPRUNE_INDEX
#undef TFREWPRUNE_INPUT
#undef TFREWPRUNE_WEIGHTS
#undef TFREWPRUNE_EVEN_FMAS
#undef TFREWPRUNE_ODD_FMAS
#undef TFREWPRUNE_LOAD_EVEN
#undef TFREWPRUNE_LOAD_ODD
#undef TFREWPRUNE_ALL_LANES

#define TFREWPRUNE_GEMV16(Index, Value)                               \
  template <>                                                         \
  inline void Gemv<F32x4Neon, 4, 4, Index, Value>(                    \
      const GemvLayer& layer, uint32_t band_begin, uint32_t band_end, \
      const void* x, float* y) {                                      \
    Gemv16<Index, Value>(layer, band_begin, band_end, x, y);          \
  }
TFREWPRUNE_GEMV16(uint16_t, float)
TFREWPRUNE_GEMV16(uint32_t, float)
TFREWPRUNE_GEMV16(uint16_t, Half)
TFREWPRUNE_GEMV16(uint32_t, Half)
#undef TFREWPRUNE_GEMV16

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_GEMV_NEON64_H_
