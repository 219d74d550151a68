// SPDX-License-Identifier: Apache-2.0
//
// Direct tiles of 16 lanes on AArch64, in assembly: up to 6 pixels in 24
// accumulators. Compilers do not keep four registers in a row for the
// instructions that load and store four at once, and those make the difference:
// a column is 24 FMAs, 6 pixels, a load of all weights and 1 for the offsets
// and the loop; the bias and the stores of a pixel are one each.
//
//   v0 - v3   weights of a column    v8 - v31  accumulators, 4 for each pixel
//   v4 - v7   pixels in turn         w16, w17  offsets of two columns
#ifndef TFREWPRUNE_KERNELS_TILE_NEON64_H_
#define TFREWPRUNE_KERNELS_TILE_NEON64_H_

#include <cmath>

#include "kernels/direct_generic.h"
#include "simd/vec_neon.h"

namespace tfrewprune {

// clang-format off
// Text for pixels that a tile has; the assembler leaves out that of others.
#define TFREWPRUNE_IF_PIXEL(p, text)  \
  ".if %c[pixels] > " #p "\n" text ".endif\n"
#define TFREWPRUNE_BIAS_PIXEL(p, a, d, then)  \
  TFREWPRUNE_IF_PIXEL(p, "ld1 {v" #a ".4s-v" #d ".4s}, [%[bias]]" then "\n")
#define TFREWPRUNE_LOAD_PIXEL(p, s, offset)  \
  TFREWPRUNE_IF_PIXEL(p, "ldr s" #s ", [%[x" #p "], " offset ", sxtw]\n")
#define TFREWPRUNE_FMA_PIXEL(p, s, a, b, c, d)                 \
  TFREWPRUNE_IF_PIXEL(p,                                       \
      "fmla v" #a ".4s, v0.4s, v" #s ".s[0]\n"                 \
      "fmla v" #b ".4s, v1.4s, v" #s ".s[0]\n"                 \
      "fmla v" #c ".4s, v2.4s, v" #s ".s[0]\n"                 \
      "fmla v" #d ".4s, v3.4s, v" #s ".s[0]\n")
// Each pixel is loaded before the one before is multiplied, for CPUs that begin
// instructions in order.
#define TFREWPRUNE_COLUMN(offset, next_offsets)                \
  TFREWPRUNE_LOAD_PIXEL(0, 4, offset)                          \
  ".if %c[passes] == 1\n"                                      \
  "ld1 {v0.4s-v3.4s}, [%[w]], #64\n"                           \
  ".else\n"                                                    \
  "ld1 {v0.4s-v3.4s}, [%[w]], %[w_step]\n"                     \
  ".endif\n"                                                   \
  TFREWPRUNE_LOAD_PIXEL(1, 5, offset)                          \
  TFREWPRUNE_FMA_PIXEL(0, 4, 8, 9, 10, 11)                     \
  TFREWPRUNE_LOAD_PIXEL(2, 6, offset)                          \
  TFREWPRUNE_FMA_PIXEL(1, 5, 12, 13, 14, 15)                   \
  TFREWPRUNE_LOAD_PIXEL(3, 7, offset)                          \
  TFREWPRUNE_FMA_PIXEL(2, 6, 16, 17, 18, 19)                   \
  TFREWPRUNE_LOAD_PIXEL(4, 4, offset)                          \
  TFREWPRUNE_FMA_PIXEL(3, 7, 20, 21, 22, 23)                   \
  TFREWPRUNE_LOAD_PIXEL(5, 5, offset)                          \
  next_offsets                                                 \
  TFREWPRUNE_FMA_PIXEL(4, 4, 24, 25, 26, 27)                   \
  TFREWPRUNE_FMA_PIXEL(5, 5, 28, 29, 30, 31)
#define TFREWPRUNE_TWO_COLUMNS  \
  TFREWPRUNE_COLUMN("w16", "")  \
  TFREWPRUNE_COLUMN("w17", "ldp w16, w17, [%[o]], #8\n")
#define TFREWPRUNE_LIMIT_PIXEL(p, limit, v, a, b, c, d)        \
  TFREWPRUNE_IF_PIXEL(p,                                       \
      limit " v" #a ".4s, v" #a ".4s, " v "\n"                 \
      limit " v" #b ".4s, v" #b ".4s, " v "\n"                 \
      limit " v" #c ".4s, v" #c ".4s, " v "\n"                 \
      limit " v" #d ".4s, v" #d ".4s, " v "\n")
#define TFREWPRUNE_LIMIT(limit, v)                             \
  TFREWPRUNE_LIMIT_PIXEL(0, limit, v, 8, 9, 10, 11)            \
  TFREWPRUNE_LIMIT_PIXEL(1, limit, v, 12, 13, 14, 15)          \
  TFREWPRUNE_LIMIT_PIXEL(2, limit, v, 16, 17, 18, 19)          \
  TFREWPRUNE_LIMIT_PIXEL(3, limit, v, 20, 21, 22, 23)          \
  TFREWPRUNE_LIMIT_PIXEL(4, limit, v, 24, 25, 26, 27)          \
  TFREWPRUNE_LIMIT_PIXEL(5, limit, v, 28, 29, 30, 31)
#define TFREWPRUNE_STORE_PIXEL(p, a, d)  \
  TFREWPRUNE_IF_PIXEL(p, "st1 {v" #a ".4s-v" #d ".4s}, [x16], %[step]\n")
#define TFREWPRUNE_STORE_ALONE(p, a, d)                        \
  TFREWPRUNE_IF_PIXEL(p,                                       \
      "ldr x16, [%[place], #8 * " #p "]\n"                     \
      "add x16, x16, %w[row], sxtw #2\n"                       \
      "st1 {v" #a ".4s-v" #d ".4s}, [x16]\n")
// clang-format on

// The clamp of a layer, and which sides of it do anything.
struct Clamps16 {
  explicit Clamps16(const DirectLayer& layer)
      : minimum(layer.minimum),
        maximum(layer.maximum),
        below(minimum > -INFINITY),
        above(maximum < INFINITY) {}
  bool any() const { return below || above; }
  float minimum, maximum;
  int below, above;
};

// What kernels/direct.h says of some bands, for pixels anywhere: x[p] are their
// inputs, y[p] their outputs; or they lie `step` bytes apart from y[0] on, if
// that is not 0.
template <int kPasses, int kPixels>
void RunBands16(const DirectLayer& layer, uint32_t band, uint32_t band_end,
                uint32_t tap_begin, uint32_t tap_end, const char* const (&x)[6],
                float* const* y, ptrdiff_t step);

// A band whose rows are no neighbours: into a buffer as if they were, then each
// row to all pixels. (In the loop over bands Clang would make copies of it
// all.)
template <int kPasses, int kPixels>
TFREWPRUNE_ONE_COPY void ScatterBand16(const DirectLayer& layer, uint32_t band,
                                       uint32_t tap_begin, uint32_t tap_end,
                                       const char* const (&x)[6],
                                       float* const* y, ptrdiff_t step) {
  constexpr int kRows = 16 * kPasses;
  static constexpr int32_t kRow[] = {0, 0, 0, 0, 0, 0, 0, 0, 0,
                                     0, 0, 0, 0, 0, 0, 0, 16};
  static constexpr uint8_t kFullRun[] = {1};
  DirectLayer alone = layer;
  alone.start += size_t{band} * layer.start_stride;
  alone.bias += size_t{band} * kRows;
  alone.row = kRow;
  alone.full_run = kFullRun;
  float lanes[kPixels * kRows];
  float* const lane = lanes;
  RunBands16<kPasses, kPixels>(alone, 0, 1, tap_begin, tap_end, x, &lane,
                               kRows * sizeof(float));
  float* to[kPixels];
  Unroll<kPixels>([&](auto p) TFREWPRUNE_INLINE {
    to[p] = step == 0 ? y[p] : y[0] + p * (step / int64_t{sizeof(float)});
  });
  const int32_t* row = layer.row + size_t{band} * kRows;
  for (int r = 0; r < kRows; ++r) {
    const ptrdiff_t place = row[r];
    if (place < 0) continue;
    Unroll<kPixels>(
        [&](auto p) TFREWPRUNE_INLINE { to[p][place] = lanes[p * kRows + r]; });
  }
}

template <int kPasses, int kPixels>
TFREWPRUNE_ONE_COPY void RunBands16(const DirectLayer& layer, uint32_t band,
                                    uint32_t band_end, uint32_t tap_begin,
                                    uint32_t tap_end, const char* const (&x)[6],
                                    float* const* y, ptrdiff_t step) {
  constexpr int kWidth = 16, kRows = kWidth * kPasses;
  const Clamps16 clamps(layer);
  const Clamps16* const limits = clamps.any() ? &clamps : nullptr;
  const size_t start_stride = layer.start_stride;
  const uint32_t* start = layer.start + size_t{band} * start_stride + tap_begin;
  const size_t taps = tap_end - tap_begin;
  const float* bias = layer.bias + size_t{band} * kRows;
  const int32_t* row = layer.row + size_t{band} * kRows;
  const uint8_t* full_run = layer.full_run + band;
  const uint8_t* const full_run_end = layer.full_run + band_end;
  const int32_t* const offset = layer.offset;
  // Where column 0 would be.
  const uintptr_t value = reinterpret_cast<uintptr_t>(layer.value) -
                          size_t{layer.value_begin} * kRows * sizeof(float);
  // Locals, which the compiler need not read again after the assembly.
  const char *const x0 = x[0], *const x1 = x[1], *const x2 = x[2],
                    *const x3 = x[3], *const x4 = x[4], *const x5 = x[5];
  const void* const place = step == 0 ? static_cast<const void*>(y) : y[0];
  while (full_run != full_run_end) {
    const uint32_t begin = start[0];
    const uint32_t count = start[taps] - begin;
    start += start_stride;
    if (__builtin_expect(!*full_run++, false)) {
      // Opaque, or Clang counts bands in a register of their own.
      const ptrdiff_t band_after = Opaque(full_run) - layer.full_run;
      ScatterBand16<kPasses, kPixels>(layer,
                                      static_cast<uint32_t>(band_after - 1),
                                      tap_begin, tap_end, x, y, step);
      bias += kRows;
      row += kRows;
      continue;
    }
    uintptr_t w = value + size_t{begin} * (kRows * sizeof(float));
    for (int pass = Opaque(kPasses);;) {
      const int32_t* o = offset + begin;
      uint32_t columns = count;
      uintptr_t next = w;
      __asm__ volatile(
          TFREWPRUNE_BIAS_PIXEL(5, 28, 31, "") TFREWPRUNE_BIAS_PIXEL(4, 24, 27, "")
          TFREWPRUNE_BIAS_PIXEL(3, 20, 23, "") TFREWPRUNE_BIAS_PIXEL(2, 16, 19, "")
          TFREWPRUNE_BIAS_PIXEL(1, 12, 15, "") TFREWPRUNE_BIAS_PIXEL(0, 8, 11, ", #64")
          "ldp w16, w17, [%[o]], #8\n"
          "subs %w[columns], %w[columns], #4\n"
          "b.lo 2f\n"
          "1:\n"
          TFREWPRUNE_TWO_COLUMNS
          TFREWPRUNE_TWO_COLUMNS
          "subs %w[columns], %w[columns], #4\n"
          "b.hs 1b\n"
          "2:\n"
          "tbz %w[columns], #1, 3f\n"
          TFREWPRUNE_TWO_COLUMNS
          "3:\n"
          "tbz %w[columns], #0, 4f\n"
          TFREWPRUNE_COLUMN("w16", "")
          "4:\n"
          "cbz %[limits], 6f\n"
          "ldp w16, w17, [%[limits], #8]\n"
          "ld2r {v0.4s, v1.4s}, [%[limits]]\n"
          "cbz w16, 5f\n"
          TFREWPRUNE_LIMIT("fmax", "v0.4s")
          "cbz w17, 6f\n"
          "5:\n"
          TFREWPRUNE_LIMIT("fmin", "v1.4s")
          "6:\n"
          "cbnz %[step], 7f\n"
          TFREWPRUNE_STORE_ALONE(0, 8, 11) TFREWPRUNE_STORE_ALONE(1, 12, 15)
          TFREWPRUNE_STORE_ALONE(2, 16, 19) TFREWPRUNE_STORE_ALONE(3, 20, 23)
          TFREWPRUNE_STORE_ALONE(4, 24, 27) TFREWPRUNE_STORE_ALONE(5, 28, 31)
          "b 8f\n"
          "7:\n"
          "add x16, %[place], %w[row], sxtw #2\n"
          TFREWPRUNE_STORE_PIXEL(0, 8, 11) TFREWPRUNE_STORE_PIXEL(1, 12, 15)
          TFREWPRUNE_STORE_PIXEL(2, 16, 19) TFREWPRUNE_STORE_PIXEL(3, 20, 23)
          TFREWPRUNE_STORE_PIXEL(4, 24, 27) TFREWPRUNE_STORE_PIXEL(5, 28, 31)
          "8:\n"
          : [o] "+&r"(o), [w] "+&r"(next), [columns] "+&r"(columns),
            [bias] "+&r"(bias)
          : [passes] "i"(kPasses), [pixels] "i"(kPixels), [x0] "r"(x0),
            [x1] "r"(x1), [x2] "r"(x2), [x3] "r"(x3), [x4] "r"(x4),
            [x5] "r"(x5), [limits] "r"(limits),
            // A register less where it is not used.
            [w_step] "r"(kPasses == 1 ? step : kRows * int64_t{sizeof(float)}),
            [place] "r"(place), [row] "r"(*row), [step] "r"(step)
          : "x16", "x17", "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5",
            "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15",
            "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24",
            "v25", "v26", "v27", "v28", "v29", "v30", "v31");
      row += kWidth;
      if (kPasses == 1 || --pass == 0) break;
      w += kWidth * sizeof(float);
    }
  }
}

#undef TFREWPRUNE_IF_PIXEL
#undef TFREWPRUNE_LOAD_PIXEL
#undef TFREWPRUNE_FMA_PIXEL
#undef TFREWPRUNE_COLUMN
#undef TFREWPRUNE_TWO_COLUMNS
#undef TFREWPRUNE_LIMIT_PIXEL
#undef TFREWPRUNE_LIMIT
#undef TFREWPRUNE_BIAS_PIXEL
#undef TFREWPRUNE_STORE_PIXEL
#undef TFREWPRUNE_STORE_ALONE

// The contract of DirectTile, kernels/direct.h.
template <int kPasses, int kLength, int kSegments>
void DirectTile16(const DirectLayer& layer, uint32_t band_begin,
                  uint32_t band_end, uint32_t tap_begin, uint32_t tap_end,
                  const void* input, float* output, const Segment* segment) {
  constexpr int kPixels = kLength * kSegments;
  const char* x[6] = {};
  float* y[kPixels];
  Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
    const char* first = reinterpret_cast<const char*>(
        static_cast<const float*>(input) + segment[g].input);
    Unroll<kLength>([&](auto p) TFREWPRUNE_INLINE {
      x[g * kLength + p] = first + p * layer.pixel_stride;
      if (p > 0 && kSegments == 1) return;
      y[g * kLength + p] = output + segment[g].output + p * layer.output_stride;
    });
  });
  RunBands16<kPasses, kPixels>(
      layer, band_begin, band_end, tap_begin, tap_end, x, y,
      kSegments > 1 ? 0 : layer.output_stride * int64_t{sizeof(float)});
}

template <int kPasses, int kLength, int... kIndex>
struct DirectTiles<F32x4Neon, 4, kPasses, kLength,
                   std::integer_sequence<int, kIndex...>> {
  static constexpr DirectKernel kTable[] = {
      DirectTile16<kPasses, kLength, kIndex + 1>...};
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_TILE_NEON64_H_
