// SPDX-License-Identifier: Apache-2.0
//
// 16-byte GNU vectors: native on SSE2 and NEON, plain code elsewhere.
#ifndef TFREWPRUNE_SIMD_VEC_PORTABLE_H_
#define TFREWPRUNE_SIMD_VEC_PORTABLE_H_

#include <cstring>

#include "simd/vec.h"

namespace tfrewprune {

struct F32x4Portable {
  static constexpr int kLanes = 4;
  using Reg = float __attribute__((vector_size(16)));

  TFREWPRUNE_VEC Reg Zero() { return Reg{0, 0, 0, 0}; }
  TFREWPRUNE_VEC Reg Set(float s) { return Reg{s, s, s, s}; }
  TFREWPRUNE_VEC Reg Load(const float* p) {
    Reg v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  // ToFloat (format/half.h), four at a time: the compiler makes 16 times the
  // code of four calls.
  TFREWPRUNE_VEC Reg Load(const Half* p) {
    using Bits = int32_t __attribute__((vector_size(16)));
    using Short = uint16_t __attribute__((vector_size(8)));
    Short halves;
    std::memcpy(&halves, p, sizeof(halves));
    const Bits half = __builtin_convertvector(halves, Bits);
    const Bits magnitude = half & 0x7fff;
    const Bits fraction = magnitude << 13;
    constexpr int32_t kOne = 113 << 23;
    const Bits one = {kOne, kOne, kOne, kOne};
    Bits bits = fraction + (112 << 23);
    bits += (magnitude >= 0x7c00) & (112 << 23);
    const Bits tiny = reinterpret_cast<Bits>(
        reinterpret_cast<Reg>(fraction + one) - reinterpret_cast<Reg>(one));
    bits = (magnitude < 0x400) ? tiny : bits;
    return reinterpret_cast<Reg>(bits | (half & 0x8000) << 16);
  }
  TFREWPRUNE_VEC Reg Load(const int8_t* p) {
    using Byte = int8_t __attribute__((vector_size(4)));
    Byte four;
    std::memcpy(&four, p, sizeof(four));
    return __builtin_convertvector(four, Reg);
  }
  TFREWPRUNE_VEC void Store(float* p, Reg v) { std::memcpy(p, &v, sizeof(v)); }
  TFREWPRUNE_VEC Reg Fma(Reg a, Reg b, Reg c) { return a * b + c; }
  TFREWPRUNE_VEC Reg Add(Reg a, Reg b) { return a + b; }
  TFREWPRUNE_VEC Reg Mul(Reg a, Reg b) { return a * b; }
  TFREWPRUNE_VEC Reg Div(Reg a, Reg b) { return a / b; }
  TFREWPRUNE_VEC Reg Clamp(Reg lo, Reg hi, Reg v) {
    v = v < lo ? lo : v;
    return v > hi ? hi : v;
  }
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_VEC_PORTABLE_H_
