// SPDX-License-Identifier: Apache-2.0
//
// The loop nests of kernels/irregular.h, once for every instruction set.
#ifndef TFREWPRUNE_KERNELS_IRREGULAR_GENERIC_H_
#define TFREWPRUNE_KERNELS_IRREGULAR_GENERIC_H_

#include <cstring>

#include "kernels/irregular.h"
#include "simd/square.h"

namespace tfrewprune {

// The offsets of the four weights after the one at work are read a group ahead:
// where an FMA's address comes late, the FMAs behind it fill the scheduler and
// a third of the throughput is lost (Zen 5).
template <class S, int kChains, int kHeight, int kWidth>
void IrregularBlockKernel(const IrregularRun& run) {
  using V = typename S::Vec;
  using Reg = typename V::Reg;
  constexpr int kVectors = kHeight * kWidth;
  Reg acc[kChains][kHeight][kWidth];
  const auto each = [](auto&& function) TFREWPRUNE_INLINE {
    Unroll<kHeight>([&](auto y) TFREWPRUNE_INLINE {
      Unroll<kWidth>([&](auto x) TFREWPRUNE_INLINE { function(y, x); });
    });
  };
  const float* lifted = run.lifted;
  const ptrdiff_t row_step = run.row_step;
  const auto at = [&](uint64_t offset)
                      TFREWPRUNE_INLINE { return lifted + offset * V::kLanes; };
  const auto add = [&](auto i, const float* from, Reg w) TFREWPRUNE_INLINE {
    Unroll<kHeight>([&](auto y) TFREWPRUNE_INLINE {
      const float* vector = from + y * row_step;
      Unroll<kWidth>([&](auto x) TFREWPRUNE_INLINE {
        Reg& sum = acc[i % kChains][y][x];
        sum = V::Fma(w, V::Load(vector + x * V::kLanes), sum);
      });
    });
  };
  const auto read_four = [](const uint16_t* from) TFREWPRUNE_INLINE {
    uint64_t four;
    std::memcpy(&four, from, sizeof(four));
    return four;
  };
  using I0 = std::integral_constant<int, 0>;
  using I1 = std::integral_constant<int, 1>;
  using I2 = std::integral_constant<int, 2>;
  using I3 = std::integral_constant<int, 3>;

  const uint16_t* offset = run.offset;
  const float* value = run.value;
  uint64_t four = read_four(offset);
  const float* from0 = at(four & 0xffff);
  const float* from1 = at((four >> 16) & 0xffff);
  const float* from2 = at((four >> 32) & 0xffff);
  const float* from3 = at(four >> 48);
  for (const IrregularSegment* s = run.segment; s != run.segment_end; ++s) {
    float* out = run.accumulator +
                 size_t{s->row - run.row_begin} * (kVectors * V::kLanes);
    each([&](auto y, auto x) TFREWPRUNE_INLINE { acc[0][y][x] = V::Zero(); });
    Unroll<kChains - 1>([&](auto chain) TFREWPRUNE_INLINE {
      each([&](auto y, auto x)
               TFREWPRUNE_INLINE { acc[chain + 1][y][x] = V::Zero(); });
    });
    const uint32_t count = s->count;
    for (uint32_t left = count / 4; left > 0; --left) {
      // One load for four weights: loads are what this loop runs out of.
      const Reg weights = S::LoadFour(value);
      offset += 4;
      value += 4;
      four = read_four(offset);
      add(I0(), from0, S::template Splat<0>(weights));
      from0 = at(four & 0xffff);
      add(I1(), from1, S::template Splat<1>(weights));
      from1 = at((four >> 16) & 0xffff);
      add(I2(), from2, S::template Splat<2>(weights));
      from2 = at((four >> 32) & 0xffff);
      add(I3(), from3, S::template Splat<3>(weights));
      from3 = at(four >> 48);
    }
    if (const uint32_t rest = count % 4) {
      offset += rest;
      four = read_four(offset);
      add(I0(), from0, V::Set(value[0]));
      if (rest > 1) add(I1(), from1, V::Set(value[1]));
      if (rest > 2) add(I2(), from2, V::Set(value[2]));
      from0 = at(four & 0xffff);
      from1 = at((four >> 16) & 0xffff);
      from2 = at((four >> 32) & 0xffff);
      from3 = at(four >> 48);
      value += rest;
    }
    each([&](auto y, auto x) TFREWPRUNE_INLINE {
      Unroll<kChains - 1>([&](auto chain) TFREWPRUNE_INLINE {
        acc[0][y][x] = V::Add(acc[0][y][x], acc[chain + 1][y][x]);
      });
    });
    // Added at the end, so that no FMA waits for accumulators from the second
    // cache.
    if (!s->first) {
      each([&](auto y, auto x) TFREWPRUNE_INLINE {
        acc[0][y][x] =
            V::Add(acc[0][y][x], V::Load(out + (y * kWidth + x) * V::kLanes));
      });
    }
    each([&](auto y, auto x) TFREWPRUNE_INLINE {
      V::Store(out + (y * kWidth + x) * V::kLanes, acc[0][y][x]);
    });
  }
}

template <class S>
void IrregularLiftTiles(const IrregularLift& lift, const float* image,
                        float* lifted) {
  using V = typename S::Vec;
  using Reg = typename V::Reg;
  static constexpr float kOutside[V::kLanes] = {};
  const ptrdiff_t stride = lift.channel_stride;
  const int32_t* lane_offset = lift.lane_offset;
  for (int p = 0; p < lift.positions; ++p, lane_offset += V::kLanes) {
    float* to = lifted + ptrdiff_t{lift.position[p]} * V::kLanes;
    int c = 0;
    Reg r[V::kLanes];
    for (; c + V::kLanes <= lift.channels; c += V::kLanes) {
      Unroll<V::kLanes>([&](auto l) TFREWPRUNE_INLINE {
        const int32_t at = lane_offset[l];
        r[l] = V::Load(at < 0 ? kOutside : image + at + c);
      });
      S::Transpose(r);
      Unroll<V::kLanes>([&](auto i) TFREWPRUNE_INLINE {
        V::Store(to + (c + i) * stride, r[i]);
      });
    }
    const int rest = lift.channels - c;
    if (rest > 0) {
      Unroll<V::kLanes>([&](auto l) TFREWPRUNE_INLINE {
        const int32_t at = lane_offset[l];
        r[l] = S::LoadFirst(at < 0 ? kOutside : image + at + c, rest);
      });
      S::Transpose(r);
      Unroll<V::kLanes>([&](auto i) TFREWPRUNE_INLINE {
        if (i < rest) V::Store(to + (c + i) * stride, r[i]);
      });
    }
  }
}

template <class S>
void IrregularLowerTiles(const IrregularLower& lower, const float* accumulator,
                         float* output) {
  using V = typename S::Vec;
  using Reg = typename V::Reg;
  const Reg lo = V::Set(lower.minimum);
  const Reg hi = V::Set(lower.maximum);
  const ptrdiff_t row_stride = ptrdiff_t{lower.pixels} * V::kLanes;
  const int32_t* lane_output = lower.lane_output;
  for (int p = 0; p < lower.pixels; ++p, lane_output += V::kLanes) {
    const float* from = accumulator + p * V::kLanes;
    int row = 0;
    Reg r[V::kLanes];
    for (; row + V::kLanes <= lower.rows; row += V::kLanes) {
      Unroll<V::kLanes>([&](auto i) TFREWPRUNE_INLINE {
        r[i] = V::Load(from + (row + i) * row_stride);
      });
      S::Transpose(r);
      const Reg scale = V::Load(lower.scale + row);
      const Reg bias = V::Load(lower.bias + row);
      Unroll<V::kLanes>([&](auto l) TFREWPRUNE_INLINE {
        const int32_t at = lane_output[l];
        if (at >= 0) {
          V::Store(output + at + row,
                   V::Clamp(lo, hi, V::Fma(r[l], scale, bias)));
        }
      });
    }
    const int rest = lower.rows - row;
    if (rest > 0) {
      Unroll<V::kLanes>([&](auto i) TFREWPRUNE_INLINE {
        r[i] = i < rest ? V::Load(from + (row + i) * row_stride) : V::Zero();
      });
      S::Transpose(r);
      const Reg scale = S::LoadFirst(lower.scale + row, rest);
      const Reg bias = S::LoadFirst(lower.bias + row, rest);
      Unroll<V::kLanes>([&](auto l) TFREWPRUNE_INLINE {
        const int32_t at = lane_output[l];
        if (at >= 0) {
          S::StoreFirst(output + at + row,
                        V::Clamp(lo, hi, V::Fma(r[l], scale, bias)), rest);
        }
      });
    }
  }
}

template <class S, int kMostVectors, int kHeight, int kWidth>
constexpr IrregularBlock IrregularBlockOrNull() {
  if constexpr (kHeight * kWidth <= kMostVectors) {
    // Few vectors: several chains of FMAs each, or their latency is the bound.
    constexpr int kChains = kMostVectors / (kHeight * kWidth) >= 4   ? 4
                            : kMostVectors / (kHeight * kWidth) >= 2 ? 2
                                                                     : 1;
    return IrregularBlockKernel<S, kChains, kHeight, kWidth>;
  } else {
    return nullptr;
  }
}

// The table of an instruction set whose registers hold `kMostVectors`
// accumulators, a weight and, where FMAs take none from memory, an input.
template <class S, int kMostVectors, int kFirstCache, int... kIndex>
constexpr IrregularKernels MakeIrregularKernels(
    std::integer_sequence<int, kIndex...>) {
  IrregularKernels kernels = {S::Vec::kLanes,
                              kFirstCache,
                              {},
                              IrregularLiftTiles<S>,
                              IrregularLowerTiles<S>};
  ((kernels.block[kIndex / kIrregularWidth][kIndex % kIrregularWidth] =
        IrregularBlockOrNull<S, kMostVectors, kIndex / kIrregularWidth + 1,
                             kIndex % kIrregularWidth + 1>()),
   ...);
  return kernels;
}

template <class S, int kMostVectors, int kFirstCache>
inline constexpr IrregularKernels kIrregularKernels =
    MakeIrregularKernels<S, kMostVectors, kFirstCache>(
        std::make_integer_sequence<int, kIrregularHeight * kIrregularWidth>());

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_IRREGULAR_GENERIC_H_
