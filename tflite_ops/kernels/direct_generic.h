// SPDX-License-Identifier: Apache-2.0
//
// The loop nests of kernels/direct.h, once for every instruction set.
#ifndef TFREWPRUNE_KERNELS_DIRECT_GENERIC_H_
#define TFREWPRUNE_KERNELS_DIRECT_GENERIC_H_

#include <cstring>

#include "kernels/kernels.h"
#include "simd/vec.h"

namespace tfrewprune {

// The slow way out: lanes of `pixels` pixels, kept in `lanes`, to any rows.
// Bands whose rows are neighbours never come here. (V only keeps the symbols of
// two instruction sets apart.)
template <class V>
TFREWPRUNE_ONE_COPY void StoreRows(const float* lanes, int pixels, int width,
                                   const int32_t* row, float* y,
                                   ptrdiff_t output_stride) {
  for (int r = 0; r < width; ++r) {
    if (row[r] < 0) continue;
    for (int p = 0; p < pixels; ++p) {
      y[p * output_stride + row[r]] = lanes[p * width + r];
    }
  }
}

// A value whose origin the compiler does not know.
template <class T>
TFREWPRUNE_INLINE inline T Opaque(T value) {
  __asm__("" : "+r"(value));
  return value;
}

// acc[p] += x[p + offset] * w: a column, each pixel loaded while the one before
// is multiplied, for CPUs that begin instructions in order.
template <class V, int kPixels, int kVecs>
TFREWPRUNE_INLINE inline void AddColumn(
    const char* const (&x)[kPixels], ptrdiff_t offset, const float* w,
    typename V::Reg (&acc)[kPixels][kVecs]) {
  const auto pixel = [&](auto p) TFREWPRUNE_INLINE {
    return *reinterpret_cast<const float*>(x[p] + offset);
  };
  typename V::Reg weight[kVecs];
  Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
    weight[v] = V::Load(w + v * V::kLanes);
  });
  float next = pixel(Constant<0>());
  Unroll<kPixels>([&](auto p) TFREWPRUNE_INLINE {
    const float value = next;
    if constexpr (p + 1 < kPixels) next = pixel(Constant<p + 1>());
    // No load moves past this: all of them early would take all registers.
    __asm__ volatile("" ::: "memory");
    Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
      acc[p][v] = V::Fma(V::Set(value), weight[v], acc[p][v]);
    });
  });
}

// kVecs registers hold the lanes worked on at once; kPasses times that is R.
template <class V, int kVecs, int kPasses, int kLength, int kSegments>
void DirectTile(const DirectLayer& layer, uint32_t band_begin,
                uint32_t band_end, uint32_t tap_begin, uint32_t tap_end,
                const void* input, float* output, const Segment* segment) {
  constexpr int kWidth = kVecs * V::kLanes;
  constexpr int kRows = kWidth * kPasses;
  using Reg = typename V::Reg;
  // Pixels are addressed from every fourth one: two strides in registers serve
  // any segment length. What is opaque keeps the compiler from making one chain
  // of additions of a column's addresses, which is longer than what the FMAs of
  // the columns before cover.
  const ptrdiff_t stride = layer.pixel_stride;
  const ptrdiff_t stride3 = Opaque(3 * stride);
  constexpr int kEights = (kLength + 7) / 8;
  const char* base[kSegments][kEights];
  Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
    const char* first = reinterpret_cast<const char*>(
        static_cast<const float*>(input) + segment[g].input);
    Unroll<kEights>([&](auto e) TFREWPRUNE_INLINE {
      base[g][e] = e == 0 ? first : Opaque(first + 8 * e * stride);
    });
  });
  // Or every pixel has an address in a register of its own, where there are
  // enough of them: then a load adds the column's offset by itself.
  constexpr bool kOwn = kSegments * kLength <= kAddressRegisters<V>;
  const char* own[kSegments * kLength];
  Unroll<kOwn ? kSegments : 0>([&](auto g) TFREWPRUNE_INLINE {
    Unroll<kLength>([&](auto p) TFREWPRUNE_INLINE {
      own[g * kLength + p] =
          Opaque(reinterpret_cast<const char*>(
                     static_cast<const float*>(input) + segment[g].input) +
                 p * stride);
    });
  });
  for (uint32_t band = band_begin; band < band_end; ++band) {
    const uint32_t* start = layer.start + size_t{band} * layer.start_stride;
    const uint32_t begin = start[tap_begin];
    const uint32_t end = start[tap_end];
    for (int pass = 0; pass < kPasses; ++pass) {
      const int lane = pass * kWidth;
      const float* bias = layer.bias + size_t{band} * kRows + lane;
      Reg acc[kSegments * kLength][kVecs];
      Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
        const Reg b = V::Load(bias + v * V::kLanes);
        Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
          Unroll<kLength>(
              [&](auto p) TFREWPRUNE_INLINE { acc[g * kLength + p][v] = b; });
        });
      });
      const float* w = static_cast<const float*>(layer.value) +
                       size_t{begin - layer.value_begin} * kRows + lane;
      const int32_t* o = layer.offset + begin;
      const int32_t* o_end = layer.offset + end;
      if constexpr (kOwn) {
        for (; o != o_end; ++o, w += kRows) AddColumn<V>(own, *o, w, acc);
      } else {
        // The next column's offset is loaded a column ahead: its latency is as
        // long as many a column takes.
        ptrdiff_t next = *o;
        for (; o != o_end; w += kRows) {
          const ptrdiff_t offset = next;
          next = *++o;
          Reg weight[kVecs];
          Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
            weight[v] = V::Load(w + v * V::kLanes);
          });
          Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
            const char* x = base[g][0];
            Unroll<kLength>([&](auto p) TFREWPRUNE_INLINE {
              constexpr int kStep = p % 4;
              if (p % 8 == 0) x = base[g][p / 8] + offset;
              if (p % 8 == 4) x = Opaque(x + 4 * stride);
              const char* xp = x + (kStep == 3 ? stride3 : kStep * stride);
              const Reg s = V::Set(*reinterpret_cast<const float*>(xp));
              Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
                acc[g * kLength + p][v] =
                    V::Fma(s, weight[v], acc[g * kLength + p][v]);
              });
            });
          });
        }
      }
      const Reg lo = V::Set(layer.minimum);
      const Reg hi = V::Set(layer.maximum);
      const int32_t* row = layer.row + size_t{band} * kRows + lane;
      // Rows that are not neighbours go the way of a buffer, so that one copy
      // of the stores, a third of a kernel's code, serves both. (Opaque, or the
      // compiler makes two.)
      const bool scattered = !layer.full_run[band];
      const ptrdiff_t step = Opaque(scattered ? kWidth : layer.output_stride);
      float lanes[kSegments * kLength * kWidth];
      Unroll<kSegments>([&](auto g) TFREWPRUNE_INLINE {
        float* y = Opaque(scattered ? lanes + g * (kLength * kWidth)
                                    : output + segment[g].output + row[0]);
        Unroll<kLength>([&](auto p) TFREWPRUNE_INLINE {
          Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
            V::Store(y + v * V::kLanes,
                     V::Clamp(lo, hi, acc[g * kLength + p][v]));
          });
          y += step;
        });
      });
      if (scattered) {
        for (int g = 0; g < kSegments; ++g) {
          StoreRows<V>(lanes + g * (kLength * kWidth), kLength, kWidth, row,
                       output + segment[g].output, layer.output_stride);
        }
      }
    }
  }
}

// The table of DirectTile<..., 1 .. kMaxSegments>.
template <class V, int kVecs, int kPasses, int kLength, class Sequence>
struct DirectTiles;
template <class V, int kVecs, int kPasses, int kLength, int... kIndex>
struct DirectTiles<V, kVecs, kPasses, kLength,
                   std::integer_sequence<int, kIndex...>> {
  static constexpr DirectKernel kTable[] = {
      DirectTile<V, kVecs, kPasses, kLength, kIndex + 1>...};
};

// The contract of AddKernel.
template <class V>
void AddResidual(const float* residual, int64_t count, float minimum,
                 float maximum, float* y) {
  const auto lo = V::Set(minimum);
  const auto hi = V::Set(maximum);
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) {
    V::Store(y + i,
             V::Clamp(lo, hi, V::Add(V::Load(y + i), V::Load(residual + i))));
  }
  for (; i < count; ++i) {  // NaN stays NaN
    TFREWPRUNE_SCALAR_LOOP;
    const float sum = y[i] + residual[i];
    y[i] = sum < minimum ? minimum : sum > maximum ? maximum : sum;
  }
}

// The contract of WidenKernel.
template <class V>
void Widen(const Half* from, uint64_t count, float* to) {
  uint64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) {
    V::Store(to + i, V::Load(from + i));
  }
  for (; i < count; ++i) {
    TFREWPRUNE_SCALAR_LOOP;
    to[i] = ToFloat(from[i]);
  }
}

// The contract of WidenIntegersKernel.
template <class V>
void WidenIntegers(const int8_t* from, uint64_t count, const float* scale,
                   float* to) {
  using Reg = typename V::Reg;
  constexpr int kVecs = kScales / V::kLanes;
  Reg scales[kVecs];
  Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
    scales[v] = V::Load(scale + v * V::kLanes);
  });
  const Reg zero = V::Zero();
  uint64_t i = 0;
  for (; i + kScales <= count; i += kScales) {
    Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
      const Reg integers = V::Load(from + i + v * V::kLanes);
      V::Store(to + i + v * V::kLanes, V::Fma(integers, scales[v], zero));
    });
  }
  for (; i < count; ++i) {
    TFREWPRUNE_SCALAR_LOOP;
    to[i] = from[i] * scale[i % kScales];
  }
}

// Several columns at a time, so that the chain of dependent FMAs does not
// bound the speed. A band's weights are one stream of addresses, which is what
// hardware foresees best: nothing is asked for ahead.
template <class V, int kVecs, int kChains, class Index, class Value>
void Gemv(const GemvLayer& layer, uint32_t band_begin, uint32_t band_end,
          const void* input, float* y) {
  const float* x = static_cast<const float*>(input);
  constexpr int kRows = kVecs * V::kLanes;
  // Cores that begin instructions in order want longer rounds; the others are
  // through with a round before they know how many columns are left.
  constexpr bool kInOrder = kAddressRegisters<V> > 0;
  constexpr int kColumns = kInOrder ? 2 * kChains : kChains;  // a round
  using Reg = typename V::Reg;
  const Reg lo = V::Set(layer.minimum);
  const Reg hi = V::Set(layer.maximum);
  for (uint32_t band = band_begin; band < band_end; ++band) {
    const Index* column =
        static_cast<const Index*>(layer.column) + layer.band_start[band];
    const size_t columns = layer.band_start[band + 1] - layer.band_start[band];
    const Value* w = static_cast<const Value*>(layer.value) +
                     size_t{layer.band_start[band]} * kRows;
    constexpr bool kScaled = std::is_same_v<Value, int8_t>;
    const auto bias_of = [&](auto v) TFREWPRUNE_INLINE {
      return V::Load(layer.bias + size_t{band} * kRows + v * V::kLanes);
    };
    Reg acc[kChains][kVecs];
    Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
      acc[0][v] = kScaled ? V::Zero() : bias_of(v);
      Unroll<kChains - 1>([&](auto c)
                              TFREWPRUNE_INLINE { acc[c + 1][v] = V::Zero(); });
    });
    const auto advance = [&](auto count) TFREWPRUNE_INLINE {
      Unroll<count>([&](auto c) TFREWPRUNE_INLINE {
        const Reg s = V::Set(x[column[c]]);
        Reg weight[kVecs];  // loaded together: ARM loads pairs
        Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
          weight[v] = V::Load(w + c * kRows + v * V::kLanes);
        });
        constexpr int kChain = c % kChains;
        Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
          acc[kChain][v] = V::Fma(s, weight[v], acc[kChain][v]);
        });
      });
      column += count;
      w += count * kRows;
    };
    for (size_t left = columns / kColumns; left > 0; --left) {
      advance(Constant<kColumns>());
    }
    if constexpr (kInOrder) {
      for (size_t left = columns % kColumns; left > 0; --left) {
        advance(Constant<1>());
      }
    } else {  // halves of a round: few branches, and none in a row that waits
      Unroll<3>([&](auto i) TFREWPRUNE_INLINE {
        constexpr int kPart = kColumns >> (i + 1);
        if constexpr (kPart > 0) {
          if (columns & kPart) advance(Constant<kPart>());
        }
      });
    }
    Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
      // In pairs, so that no sum waits for all others.
      Unroll<3>([&](auto i) TFREWPRUNE_INLINE {
        constexpr int kHalf = kChains >> (i + 1);
        Unroll<kHalf>([&](auto c) TFREWPRUNE_INLINE {
          acc[c][v] = V::Add(acc[c][v], acc[c + kHalf][v]);
        });
      });
      if constexpr (kScaled) {
        const float* scale = layer.scale + size_t{band} * kScales;
        acc[0][v] =
            V::Fma(acc[0][v], V::Load(scale + v * V::kLanes), bias_of(v));
      }
      acc[0][v] = V::Clamp(lo, hi, acc[0][v]);
    });
    const int32_t* row = layer.row + size_t{band} * kRows;
    if (layer.full_run[band]) {
      Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
        V::Store(y + row[0] + v * V::kLanes, acc[0][v]);
      });
    } else {
      float lanes[kRows];
      Unroll<kVecs>([&](auto v) TFREWPRUNE_INLINE {
        V::Store(lanes + v * V::kLanes, acc[0][v]);
      });
      StoreRows<V>(lanes, 1, kRows, row, y, 0);
    }
  }
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_DIRECT_GENERIC_H_
