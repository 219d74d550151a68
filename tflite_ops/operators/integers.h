// SPDX-License-Identifier: Apache-2.0
#ifndef TFREWPRUNE_OPERATORS_INTEGERS_H_
#define TFREWPRUNE_OPERATORS_INTEGERS_H_

#include <cstdint>

namespace tfrewprune {

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_INTEGERS_H_
