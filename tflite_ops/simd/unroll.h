// SPDX-License-Identifier: Apache-2.0
//
// Unrolling by index sequence: every index is a constant when the compiler
// first sees it, so that arrays of vectors stay in registers (GCC 12 keeps them
// in memory when they are walked by a loop).
#ifndef TFREWPRUNE_SIMD_UNROLL_H_
#define TFREWPRUNE_SIMD_UNROLL_H_

#include <utility>

#define TFREWPRUNE_INLINE __attribute__((always_inline))

// A function that stands once in the library.
#if defined(__clang__)
#define TFREWPRUNE_ONE_COPY __attribute__((noinline))
#else  // GCC at -O3 makes copies for constant arguments
#define TFREWPRUNE_ONE_COPY __attribute__((noinline, noclone))
#endif

// In the body of a loop over the few elements that fill no vector: keeps the
// compiler from making vectors of it after all, which is much code.
#define TFREWPRUNE_SCALAR_LOOP __asm__ volatile("")

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
