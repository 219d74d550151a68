// SPDX-License-Identifier: Apache-2.0
//
// Unrolling by index sequence: every index is a constant when the compiler
// first sees it, so that arrays of vectors stay in registers (GCC 12 keeps them
// in memory when they are walked by a loop).
#ifndef TFREWPRUNE_SIMD_UNROLL_H_
#define TFREWPRUNE_SIMD_UNROLL_H_

#include <utility>

#define TFREWPRUNE_INLINE __attribute__((always_inline))

namespace tfrewprune {

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

template <class Function, int... kIndex>
TFREWPRUNE_INLINE inline void UnrollSequence(
    Function&& function, std::integer_sequence<int, kIndex...>) {
  (function(std::integral_constant<int, kIndex>()), ...);
}

// function(0_c), function(1_c), ... function(kCount - 1).
template <int kCount, class Function>
TFREWPRUNE_INLINE inline void Unroll(Function&& function) {
  UnrollSequence(static_cast<Function&&>(function),
                 std::make_integer_sequence<int, kCount>());
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_SIMD_UNROLL_H_
