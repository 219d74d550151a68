// SPDX-License-Identifier: Apache-2.0
//
// The vector vocabulary. A vector type V (one struct per ISA and width, named
// for both so that every instance of a template is a symbol of its own) has
//
//   V::kLanes                   floats in a register
//   V::Reg                      the register
//   V::Zero()                   all lanes 0
//   V::Set(s)                   all lanes s
//   V::Load(p)                  p[0 .. kLanes), any alignment
//   V::Load(h)                  h[0 .. kLanes) halves, or integers of 8 bits
//   V::Store(p, v)              the same, written
//   V::Fma(a, b, c)             a * b + c, rounded once where the ISA can
//   V::Clamp(lo, hi, v)         min(hi, max(lo, v)); NaN stays NaN
//   V::Add(a, b)                a + b
//   V::Mul(a, b), V::Div(a, b)  a * b, a / b; the widest one alone has them
//
// simd/vec_<isa>.h may only be included by files compiled for that ISA.
#ifndef TFREWPRUNE_SIMD_VEC_H_
#define TFREWPRUNE_SIMD_VEC_H_

#include "format/half.h"
#include "simd/unroll.h"

#define TFREWPRUNE_VEC TFREWPRUNE_INLINE static inline

namespace tfrewprune {

// Addresses of pixels that a kernel of V keeps in general registers beside all
// others; 0 where there are too few of those.
template <class V>
inline constexpr int kAddressRegisters = 0;

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_VEC_H_
