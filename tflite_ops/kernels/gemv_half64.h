// SPDX-License-Identifier: Apache-2.0
//
// Gemv of 16 lanes in float16 arithmetic on AArch64, in assembly: two columns
// are 4 FMAs, a load of all weights, their indices and inputs.
//
//   v0 - v3, v4 - v7   weights of two columns   v16 - v23  four chains of sums
//   v8, v9, v10, v11   their inputs             v24 - v27  their sums, float32
#ifndef TFREWPRUNE_KERNELS_GEMV_HALF64_H_
#define TFREWPRUNE_KERNELS_GEMV_HALF64_H_

#include <cmath>

#include "kernels/gemv.h"
#include "kernels/half.h"
#include "simd/unroll.h"

namespace tfrewprune {
namespace {  // compiled for CPUs with float16 arithmetic: no symbol is shared

// clang-format off
// The index of column c of a round, whose columns the pointer is already past.
#define TFREWPRUNE_INDEX(c, index)                             \
  ".if %c[index_bytes] == 2\n"                                 \
  "ldurh w" #index ", [%[column], #2 * " #c " - 16]\n"         \
  ".else\n"                                                    \
  "ldur w" #index ", [%[column], #4 * " #c " - 32]\n"          \
  ".endif\n"
// The next index, and the pointer goes past so many columns.
#define TFREWPRUNE_NEXT_INDEX(index, count)                    \
  ".if %c[index_bytes] == 2\n"                                 \
  "ldrh w" #index ", [%[column]], #2 * " #count "\n"           \
  ".else\n"                                                    \
  "ldr w" #index ", [%[column]], #4 * " #count "\n"            \
  ".endif\n"
#define TFREWPRUNE_INPUTS(a, b)                                \
  "ldr h" #a ", [%[x], x16, lsl #1]\n"                         \
  "ldr h" #b ", [%[x], x17, lsl #1]\n"
#define TFREWPRUNE_WEIGHTS(a, d)  \
  "ld1 {v" #a ".8h-v" #d ".8h}, [%[w]], #64\n"
#define TFREWPRUNE_FMAS(w, v, x, a, b)                         \
  "fmla v" #a ".8h, v" #w ".8h, v" #x ".h[0]\n"                \
  "fmla v" #b ".8h, v" #v ".8h, v" #x ".h[0]\n"
#define TFREWPRUNE_EVEN_FMAS(a, b, c, d)                       \
  TFREWPRUNE_FMAS(0, 1, 8, a, b) TFREWPRUNE_FMAS(2, 3, 9, c, d)
#define TFREWPRUNE_ODD_FMAS(a, b, c, d)                        \
  TFREWPRUNE_FMAS(4, 5, 10, a, b) TFREWPRUNE_FMAS(6, 7, 11, c, d)
// clang-format on

// The contract of kernels/gemv.h.
template <class Index>
void HalfGemv(const GemvLayer& layer, uint32_t band_begin, uint32_t band_end,
              const void* x, float* y) {
  constexpr int kWidth = 16, kChains = 4;
  const bool clamped = layer.minimum > -INFINITY || layer.maximum < INFINITY;
  const uint32_t* start = layer.band_start + band_begin;
  const uint32_t* const start_end = layer.band_start + band_end;
  const Index* column = static_cast<const Index*>(layer.column) + *start;
  const Half* w =
      static_cast<const Half*>(layer.value) + size_t{*start} * kWidth;
  const float* bias = layer.bias + size_t{band_begin} * kWidth;
  const int32_t* row = layer.row + size_t{band_begin} * kWidth;
  const uint8_t* full_run = layer.full_run + band_begin;
  float lanes[kWidth];
  for (; start != start_end; ++start, row += kWidth) {
    uint32_t columns = start[1] - start[0], now;
    const bool scattered = !*full_run++;
    float* to = scattered ? lanes : y + *row;
    __asm__ volatile(
        "ld1 {v24.4s-v27.4s}, [%[bias]], #64\n"
        // So many columns that a chain has kHalfColumns of them.
        "0:\n"
        "mov w16, #%c[most]\n"
        "cmp %w[columns], w16\n"
        "csel %w[now], %w[columns], w16, lo\n"
        "sub %w[columns], %w[columns], %w[now]\n"
        "movi v16.4s, #0\n movi v17.4s, #0\n movi v18.4s, #0\n"
        "movi v19.4s, #0\n movi v20.4s, #0\n movi v21.4s, #0\n"
        "movi v22.4s, #0\n movi v23.4s, #0\n"
        "subs %w[now], %w[now], #8\n"
        "b.lo 2f\n"
        "1:\n"
        TFREWPRUNE_NEXT_INDEX(16, 8) TFREWPRUNE_INDEX(1, 17)
        TFREWPRUNE_INPUTS(8, 9) TFREWPRUNE_WEIGHTS(0, 3)
        TFREWPRUNE_INDEX(2, 16) TFREWPRUNE_INDEX(3, 17)
        TFREWPRUNE_INPUTS(10, 11) TFREWPRUNE_WEIGHTS(4, 7)
        TFREWPRUNE_INDEX(4, 16) TFREWPRUNE_INDEX(5, 17)
        TFREWPRUNE_EVEN_FMAS(16, 17, 18, 19)
        TFREWPRUNE_INPUTS(8, 9) TFREWPRUNE_WEIGHTS(0, 3)
        TFREWPRUNE_INDEX(6, 16) TFREWPRUNE_INDEX(7, 17)
        TFREWPRUNE_ODD_FMAS(20, 21, 22, 23)
        TFREWPRUNE_INPUTS(10, 11) TFREWPRUNE_WEIGHTS(4, 7)
        "subs %w[now], %w[now], #8\n"
        TFREWPRUNE_EVEN_FMAS(16, 17, 18, 19)
        TFREWPRUNE_ODD_FMAS(20, 21, 22, 23)
        "b.hs 1b\n"
        "2:\n"
        "adds %w[now], %w[now], #8\n"
        "b.eq 4f\n"
        "3:\n"
        TFREWPRUNE_NEXT_INDEX(16, 1)
        "ldr h8, [%[x], x16, lsl #1]\n"
        "ld1 {v0.8h, v1.8h}, [%[w]], #32\n"
        "subs %w[now], %w[now], #1\n"
        TFREWPRUNE_FMAS(0, 1, 8, 16, 17)
        "b.ne 3b\n"
        "4:\n"
        "fadd v16.8h, v16.8h, v18.8h\n fadd v17.8h, v17.8h, v19.8h\n"
        "fadd v20.8h, v20.8h, v22.8h\n fadd v21.8h, v21.8h, v23.8h\n"
        "fadd v16.8h, v16.8h, v20.8h\n fadd v17.8h, v17.8h, v21.8h\n"
        "fcvtl v0.4s, v16.4h\n fcvtl2 v1.4s, v16.8h\n"
        "fcvtl v2.4s, v17.4h\n fcvtl2 v3.4s, v17.8h\n"
        "fadd v24.4s, v24.4s, v0.4s\n fadd v25.4s, v25.4s, v1.4s\n"
        "fadd v26.4s, v26.4s, v2.4s\n fadd v27.4s, v27.4s, v3.4s\n"
        "cbnz %w[columns], 0b\n"
        "cbz %w[clamped], 5f\n"
        "ld2r {v0.4s, v1.4s}, [%[limits]]\n"
        "fmax v24.4s, v24.4s, v0.4s\n fmax v25.4s, v25.4s, v0.4s\n"
        "fmax v26.4s, v26.4s, v0.4s\n fmax v27.4s, v27.4s, v0.4s\n"
        "fmin v24.4s, v24.4s, v1.4s\n fmin v25.4s, v25.4s, v1.4s\n"
        "fmin v26.4s, v26.4s, v1.4s\n fmin v27.4s, v27.4s, v1.4s\n"
        "5:\n"
        "st1 {v24.4s-v27.4s}, [%[to]]\n"
        : [column] "+&r"(column), [w] "+&r"(w), [bias] "+&r"(bias),
          [columns] "+&r"(columns), [now] "=&r"(now)
        : [index_bytes] "i"(sizeof(Index)), [most] "i"(kChains * kHalfColumns),
          [x] "r"(x), [clamped] "r"(clamped), [limits] "r"(&layer.minimum),
          [to] "r"(to)
        : "x16", "x17", "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5",
          "v6", "v7", "v8", "v9", "v10", "v11", "v16", "v17", "v18", "v19",
          "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27");
    if (__builtin_expect(scattered, false)) {
      for (int r = 0; r < kWidth; ++r) {
        TFREWPRUNE_SCALAR_LOOP;
        if (row[r] >= 0) y[row[r]] = lanes[r];
      }
    }
  }
}

#undef TFREWPRUNE_INDEX
#undef TFREWPRUNE_NEXT_INDEX
#undef TFREWPRUNE_INPUTS
#undef TFREWPRUNE_WEIGHTS
#undef TFREWPRUNE_FMAS
#undef TFREWPRUNE_EVEN_FMAS
#undef TFREWPRUNE_ODD_FMAS

}  // namespace
}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_GEMV_HALF64_H_
