// SPDX-License-Identifier: Apache-2.0
//
// Direct tiles of 16 lanes in float16 arithmetic on AArch64, in assembly: up to
// 12 pixels in 24 accumulators of 8 halves. A column is 24 FMAs, 12 pixels,
// half a load of weights and 1 for the offsets and the loop. Every kHalfColumns
// columns the sums are added to those that wait in a buffer, and every
// kHalfChunks times to the bias or what is in the output, in float32.
//
//   v0 - v3   weights of two columns   v8 - v31  accumulators, 2 for each pixel
//   v4 - v7   pixels in turn           w16, w17  offsets of two columns
#ifndef TFREWPRUNE_KERNELS_TILE_HALF64_H_
#define TFREWPRUNE_KERNELS_TILE_HALF64_H_

#include <cmath>
#include <cstring>

#include "kernels/direct.h"
#include "kernels/half.h"
#include "simd/unroll.h"

namespace tfrewprune {
namespace {  // compiled for CPUs with float16 arithmetic: no symbol is shared

constexpr int kMostHalfPixels = 12;
static_assert(kHalfColumns % 2 == 0);  // offsets are loaded in pairs

// clang-format off
// Text for pixels that a tile has; the assembler leaves out that of others.
#define TFREWPRUNE_IF_PIXEL(p, text)  \
  ".if %c[pixels] > " #p "\n" text ".endif\n"
#define TFREWPRUNE_ALL_PIXELS(of)                                          \
  of(0, 8, 9) of(1, 10, 11) of(2, 12, 13) of(3, 14, 15) of(4, 16, 17)      \
  of(5, 18, 19) of(6, 20, 21) of(7, 22, 23) of(8, 24, 25) of(9, 26, 27)    \
  of(10, 28, 29) of(11, 30, 31)
#define TFREWPRUNE_LOAD_PIXEL(p, h, offset)  \
  TFREWPRUNE_IF_PIXEL(p, "ldr h" #h ", [%[x" #p "], " offset ", sxtw]\n")
#define TFREWPRUNE_FMA_PIXEL(op, w, v, p, h, a, b)             \
  TFREWPRUNE_IF_PIXEL(p,                                       \
      op " v" #a ".8h, v" #w ".8h, v" #h ".h[0]\n"             \
      op " v" #b ".8h, v" #v ".8h, v" #h ".h[0]\n")
// Each pixel is loaded while the three before are multiplied, for CPUs that
// begin instructions in order. `op` is fmul for the first column.
#define TFREWPRUNE_COLUMN(op, w, v, offset, next_offsets)      \
  TFREWPRUNE_LOAD_PIXEL(0, 4, offset)                          \
  TFREWPRUNE_LOAD_PIXEL(1, 5, offset)                          \
  TFREWPRUNE_LOAD_PIXEL(2, 6, offset)                          \
  TFREWPRUNE_LOAD_PIXEL(3, 7, offset)                          \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 0, 4, 8, 9)                   \
  TFREWPRUNE_LOAD_PIXEL(4, 4, offset)                          \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 1, 5, 10, 11)                 \
  TFREWPRUNE_LOAD_PIXEL(5, 5, offset)                          \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 2, 6, 12, 13)                 \
  TFREWPRUNE_LOAD_PIXEL(6, 6, offset)                          \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 3, 7, 14, 15)                 \
  TFREWPRUNE_LOAD_PIXEL(7, 7, offset)                          \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 4, 4, 16, 17)                 \
  TFREWPRUNE_LOAD_PIXEL(8, 4, offset)                          \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 5, 5, 18, 19)                 \
  TFREWPRUNE_LOAD_PIXEL(9, 5, offset)                          \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 6, 6, 20, 21)                 \
  TFREWPRUNE_LOAD_PIXEL(10, 6, offset)                         \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 7, 7, 22, 23)                 \
  TFREWPRUNE_LOAD_PIXEL(11, 7, offset)                         \
  next_offsets                                                 \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 8, 4, 24, 25)                 \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 9, 5, 26, 27)                 \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 10, 6, 28, 29)                \
  TFREWPRUNE_FMA_PIXEL(op, w, v, 11, 7, 30, 31)
#define TFREWPRUNE_NEXT_OFFSETS "ldp w16, w17, [%[o]], #8\n"
#define TFREWPRUNE_ZERO_PIXEL(p, a, b)                         \
  TFREWPRUNE_IF_PIXEL(p, "movi v" #a ".4s, #0\n movi v" #b ".4s, #0\n")
// Sums of the chunks before, of two pixels at a time.
#define TFREWPRUNE_ADD_HELD(p, a, b, c, d)                     \
  TFREWPRUNE_IF_PIXEL(p,                                       \
      "ld1 {v0.8h-v3.8h}, [x16], #64\n"                        \
      "fadd v" #a ".8h, v" #a ".8h, v0.8h\n"                   \
      "fadd v" #b ".8h, v" #b ".8h, v1.8h\n"                   \
      "fadd v" #c ".8h, v" #c ".8h, v2.8h\n"                   \
      "fadd v" #d ".8h, v" #d ".8h, v3.8h\n")
#define TFREWPRUNE_HOLD(p, a, b, c, d)  \
  TFREWPRUNE_IF_PIXEL(p, "st1 {v" #a ".8h-v" #d ".8h}, [x16], #64\n")
#define TFREWPRUNE_ALL_PAIRS(of)                               \
  of(0, 8, 9, 10, 11) of(2, 12, 13, 14, 15) of(4, 16, 17, 18, 19)  \
  of(6, 20, 21, 22, 23) of(8, 24, 25, 26, 27) of(10, 28, 29, 30, 31)
// Floats of a pixel's halves: those of `a` in `a` and `ta`, of `b` in `b` and `tb`.
#define TFREWPRUNE_WIDEN_PIXEL(p, a, b, ta, tb)                \
  TFREWPRUNE_IF_PIXEL(p,                                       \
      "fcvtl2 v" #ta ".4s, v" #a ".8h\n"                       \
      "fcvtl v" #a ".4s, v" #a ".4h\n"                         \
      "fcvtl2 v" #tb ".4s, v" #b ".8h\n"                       \
      "fcvtl v" #b ".4s, v" #b ".4h\n")
// Adds such a pixel to what is there; the next one, of `c` and `d`, is widened
// before that is stored.
#define TFREWPRUNE_ADD_PIXEL(p, a, b, ta, tb, next, c, d, limit)  \
  TFREWPRUNE_IF_PIXEL(p,                                       \
      "ld1 {v0.4s-v3.4s}, [%[from]], %[from_step]\n"           \
      "fadd v0.4s, v0.4s, v" #a ".4s\n"                        \
      "fadd v1.4s, v1.4s, v" #ta ".4s\n"                       \
      "fadd v2.4s, v2.4s, v" #b ".4s\n"                        \
      "fadd v3.4s, v3.4s, v" #tb ".4s\n"                       \
      TFREWPRUNE_WIDEN_PIXEL(next, c, d, a, b)                 \
      limit                                                    \
      "st1 {v0.4s-v3.4s}, [%[to]], %[step]\n")
#define TFREWPRUNE_ADD_PIXELS(limit)                           \
  TFREWPRUNE_WIDEN_PIXEL(0, 8, 9, 4, 5)                        \
  TFREWPRUNE_ADD_PIXEL(0, 8, 9, 4, 5, 1, 10, 11, limit)        \
  TFREWPRUNE_ADD_PIXEL(1, 10, 11, 8, 9, 2, 12, 13, limit)      \
  TFREWPRUNE_ADD_PIXEL(2, 12, 13, 10, 11, 3, 14, 15, limit)    \
  TFREWPRUNE_ADD_PIXEL(3, 14, 15, 12, 13, 4, 16, 17, limit)    \
  TFREWPRUNE_ADD_PIXEL(4, 16, 17, 14, 15, 5, 18, 19, limit)    \
  TFREWPRUNE_ADD_PIXEL(5, 18, 19, 16, 17, 6, 20, 21, limit)    \
  TFREWPRUNE_ADD_PIXEL(6, 20, 21, 18, 19, 7, 22, 23, limit)    \
  TFREWPRUNE_ADD_PIXEL(7, 22, 23, 20, 21, 8, 24, 25, limit)    \
  TFREWPRUNE_ADD_PIXEL(8, 24, 25, 22, 23, 9, 26, 27, limit)    \
  TFREWPRUNE_ADD_PIXEL(9, 26, 27, 24, 25, 10, 28, 29, limit)   \
  TFREWPRUNE_ADD_PIXEL(10, 28, 29, 26, 27, 11, 30, 31, limit)  \
  TFREWPRUNE_ADD_PIXEL(11, 30, 31, 28, 29, 12, 0, 0, limit)
#define TFREWPRUNE_LIMIT(limit, v)                             \
  limit " v0.4s, v0.4s, " v "\n" limit " v1.4s, v1.4s, " v "\n" \
  limit " v2.4s, v2.4s, " v "\n" limit " v3.4s, v3.4s, " v "\n"
#define TFREWPRUNE_AT_LEAST TFREWPRUNE_LIMIT("fmax", "v6.4s")
#define TFREWPRUNE_AT_MOST TFREWPRUNE_LIMIT("fmin", "v7.4s")
// clang-format on

// The clamp of a layer, and whether its upper side does anything.
struct HalfClamps {
  explicit HalfClamps(const DirectLayer& layer)
      : minimum(layer.minimum),
        maximum(layer.maximum),
        above(maximum < INFINITY) {}
  bool any() const { return minimum > -INFINITY || above; }
  float minimum, maximum;
  int above;
};

// The slow way out: the lanes of some pixels to their rows. `y` and `step` are
// those of RunHalfBands.
TFREWPRUNE_ONE_COPY void PutLanes(const float* lanes, int pixels, bool full_run,
                                  const int32_t* row, float* const* y,
                                  ptrdiff_t step) {
  constexpr int kRows = 16;
  for (int p = 0; p < pixels; ++p, lanes += kRows) {
    float* pixel =
        step == 0 ? y[p] : y[0] + p * (step / int64_t{sizeof(float)});
    if (full_run) {
      memcpy(pixel + row[0], lanes, kRows * sizeof(float));
      continue;
    }
    for (int r = 0; r < kRows; ++r) {
      TFREWPRUNE_SCALAR_LOOP;
      if (row[r] >= 0) pixel[row[r]] = lanes[r];
    }
  }
}

// What kernels/direct.h says of some bands: x[p] are the inputs of the pixels,
// y[p] their outputs, which lie `step` bytes apart, if that is not 0.
template <int kPixels>
TFREWPRUNE_ONE_COPY void RunHalfBands(const DirectLayer& layer, uint32_t band,
                                      uint32_t band_end, uint32_t tap_begin,
                                      uint32_t tap_end,
                                      const char* const (&x)[kMostHalfPixels],
                                      float* const* y, ptrdiff_t step) {
  constexpr int kRows = 16;
  constexpr ptrdiff_t kRowBytes = kRows * sizeof(float);
  const HalfClamps clamps(layer);
  const HalfClamps* limits = clamps.any() ? &clamps : nullptr;
  __asm__("" : "+r"(limits), "+r"(step));  // or GCC makes two of the loop
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
                          size_t{layer.value_begin} * kRows * sizeof(Half);
  float lanes[kPixels * kRows];
  Half held[(kPixels + 1) / 2 * 2 * kRows];
  for (; full_run != full_run_end; ++full_run) {
    const uint32_t begin = start[0];
    uint32_t left = start[taps] - begin, columns;
    start += start_stride;
    const int32_t* o = offset + begin;
    uintptr_t w = value + size_t{begin} * (kRows * sizeof(Half));
    // Tiles and bands that are not in one piece in the output go the way of a
    // buffer.
    const bool in_place = step != 0 && *full_run;
    float* const place = in_place ? y[0] + row[0] : lanes;
    const ptrdiff_t place_step = in_place ? step : kRowBytes;
    const float* from = bias;
    float* to;
    ptrdiff_t from_step;
    __asm__ volatile(
        "mov %[from_step], #0\n"
        "mov %[to], #0\n"
        "0:\n"
        "mov w17, #%c[most]\n"
        "cmp %w[left], w17\n"
        "csel %w[columns], %w[left], w17, lo\n"
        "sub %w[left], %w[left], %w[columns]\n"
        "cbz %w[columns], 8f\n"
        "ldr w16, [%[o]], #4\n"
        "ld1 {v0.8h, v1.8h}, [%[w]], #32\n"
        TFREWPRUNE_COLUMN("fmul", 0, 1, "w16", TFREWPRUNE_NEXT_OFFSETS)
        "subs %w[columns], %w[columns], #3\n"
        "b.lt 2f\n"
        "1:\n"
        "ld1 {v0.8h-v3.8h}, [%[w]], #64\n"
        TFREWPRUNE_COLUMN("fmla", 0, 1, "w16", "")
        TFREWPRUNE_COLUMN("fmla", 2, 3, "w17", TFREWPRUNE_NEXT_OFFSETS)
        "subs %w[columns], %w[columns], #2\n"
        "b.ge 1b\n"
        "2:\n"
        "tbz %w[columns], #0, 3f\n"
        "ld1 {v0.8h, v1.8h}, [%[w]], #32\n"
        TFREWPRUNE_COLUMN("fmla", 0, 1, "w16", "")
        "3:\n"
        "cbz %[to], 10f\n"  // now how many chunks are held
        "mov x16, %[held]\n"
        TFREWPRUNE_ALL_PAIRS(TFREWPRUNE_ADD_HELD)
        "10:\n"
        "add %[to], %[to], #1\n"
        "cbz %w[left], 11f\n"
        "cmp %[to], #%c[chunks]\n"
        "b.eq 11f\n"
        "mov x16, %[held]\n"
        TFREWPRUNE_ALL_PAIRS(TFREWPRUNE_HOLD)
        "b 12f\n"
        "11:\n"
        "mov %[to], %[place]\n"
        "cbnz %w[left], 4f\n"
        "cbnz %[limits], 5f\n"
        "4:\n"
        TFREWPRUNE_ADD_PIXELS("")
        "cbz %w[left], 9f\n"
        "mov %[from], %[place]\n"
        "mov %[from_step], %[step]\n"
        "mov %[to], #0\n"
        "12:\n"
        "sub %[o], %[o], #4\n"  // read, not used: columns were even
        "b 0b\n"
        "5:\n"
        "ld2r {v6.4s, v7.4s}, [%[limits]]\n"
        "ldr w16, [%[limits], #8]\n"
        "cbnz w16, 6f\n"
        TFREWPRUNE_ADD_PIXELS(TFREWPRUNE_AT_LEAST)
        "b 9f\n"
        "6:\n"
        TFREWPRUNE_ADD_PIXELS(TFREWPRUNE_AT_LEAST TFREWPRUNE_AT_MOST)
        "b 9f\n"
        "8:\n"
        TFREWPRUNE_ALL_PIXELS(TFREWPRUNE_ZERO_PIXEL)
        "b 3b\n"
        "9:\n"
        : [o] "+&r"(o), [w] "+&r"(w), [left] "+&r"(left), [from] "+&r"(from),
          [from_step] "=&r"(from_step), [to] "=&r"(to),
          [columns] "=&r"(columns)
        : [pixels] "i"(kPixels), [most] "i"(kHalfColumns),
          [chunks] "i"(kHalfChunks), [held] "r"(held), [x0] "r"(x[0]),
          [x1] "r"(x[1]), [x2] "r"(x[2]), [x3] "r"(x[3]), [x4] "r"(x[4]),
          [x5] "r"(x[5]), [x6] "r"(x[6]), [x7] "r"(x[7]), [x8] "r"(x[8]),
          [x9] "r"(x[9]), [x10] "r"(x[10]), [x11] "r"(x[11]),
          [step] "r"(place_step), [place] "r"(place), [limits] "r"(limits)
        : "x16", "x17", "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5",
          "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15",
          "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25",
          "v26", "v27", "v28", "v29", "v30", "v31");
    if (__builtin_expect(!in_place, false)) {
      PutLanes(lanes, kPixels, *full_run, row, y, step);
    }
    bias += kRows;
    row += kRows;
  }
}

#undef TFREWPRUNE_IF_PIXEL
#undef TFREWPRUNE_ALL_PIXELS
#undef TFREWPRUNE_LOAD_PIXEL
#undef TFREWPRUNE_FMA_PIXEL
#undef TFREWPRUNE_COLUMN
#undef TFREWPRUNE_NEXT_OFFSETS
#undef TFREWPRUNE_ZERO_PIXEL
#undef TFREWPRUNE_ADD_HELD
#undef TFREWPRUNE_HOLD
#undef TFREWPRUNE_ALL_PAIRS
#undef TFREWPRUNE_WIDEN_PIXEL
#undef TFREWPRUNE_ADD_PIXEL
#undef TFREWPRUNE_ADD_PIXELS
#undef TFREWPRUNE_LIMIT
#undef TFREWPRUNE_AT_LEAST
#undef TFREWPRUNE_AT_MOST

// The contract of kernels/direct.h.
template <int kLength, int kSegments>
void HalfTile(const DirectLayer& layer, uint32_t band_begin, uint32_t band_end,
              uint32_t tap_begin, uint32_t tap_end, const void* input,
              float* output, const Segment* segment) {
  constexpr int kPixels = kLength * kSegments;
  const char* x[kMostHalfPixels] = {};
  float* y[kPixels];
  Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
    const char* first = reinterpret_cast<const char*>(
        static_cast<const Half*>(input) + segment[g].input);
    Unroll<kLength>([&](auto p) TFREWPRUNE_INLINE {
      x[g * kLength + p] = first + p * layer.pixel_stride;
      if (p > 0 && kSegments == 1) return;
      y[g * kLength + p] = output + segment[g].output + p * layer.output_stride;
    });
  });
  RunHalfBands<kPixels>(
      layer, band_begin, band_end, tap_begin, tap_end, x, y,
      kSegments > 1 ? 0 : layer.output_stride * int64_t{sizeof(float)});
}

// The table of HalfTile<kLength, 1 .. >.
template <int kLength, class Sequence>
struct HalfTiles;
template <int kLength, int... kIndex>
struct HalfTiles<kLength, std::integer_sequence<int, kIndex...>> {
  static constexpr DirectKernel kTable[] = {HalfTile<kLength, kIndex + 1>...};
};

}  // namespace
}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_TILE_HALF64_H_
