// SPDX-License-Identifier: Apache-2.0
//
// Squares of registers: kLanes registers of kLanes lanes each. A square type S
// (one struct per ISA) adds to its vector type S::Vec
//
//   S::Transpose(Reg r[kLanes])   lane j of r[i] <-> lane i of r[j]
//   S::LoadFirst(p, n)            p[0 .. n) and zeros, 0 < n < kLanes; reads no
//                                 float past p[n - 1]
//   S::StoreFirst(p, v, n)        writes lanes 0 .. n - 1
//   S::LoadFour(p)                p[0 .. 4), in whatever register suits
//   S::Splat<i>(four)             all lanes p[i]
//
// simd/square_<isa>.h may only be included by files compiled for that ISA.
#ifndef TFREWPRUNE_SIMD_SQUARE_H_
#define TFREWPRUNE_SIMD_SQUARE_H_

#include <cstring>

#include "simd/vec.h"

namespace tfrewprune {

// Partial loads and stores by way of memory, for ISAs without masks.
template <class V>
struct SquareTail {
  TFREWPRUNE_VEC typename V::Reg LoadFirst(const float* p, int n) {
    float lanes[V::kLanes] = {};
    std::memcpy(lanes, p, n * sizeof(float));
    return V::Load(lanes);
  }
  TFREWPRUNE_VEC void StoreFirst(float* p, typename V::Reg v, int n) {
    float lanes[V::kLanes];
    V::Store(lanes, v);
    std::memcpy(p, lanes, n * sizeof(float));
  }
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_SQUARE_H_
