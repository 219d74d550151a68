// SPDX-License-Identifier: Apache-2.0
#ifndef TFREWPRUNE_OPERATORS_INTEGERS_H_
#define TFREWPRUNE_OPERATORS_INTEGERS_H_

#include <cstdint>

namespace tfrewprune {

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The largest number of [1, most] with fits(number), given that it is so for
// all smaller ones; 1 where there is none.
template <class Predicate>
int64_t Largest(int64_t most, Predicate fits) {
  int64_t low = 1;
  while (low < most) {
    const int64_t middle = low + (most - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      most = middle - 1;
    }
  }
  return low;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_INTEGERS_H_
