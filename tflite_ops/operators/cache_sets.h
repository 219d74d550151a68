// SPDX-License-Identifier: Apache-2.0
#ifndef TFREWPRUNE_OPERATORS_CACHE_SETS_H_
#define TFREWPRUNE_OPERATORS_CACHE_SETS_H_

#include <cstdint>

namespace tfrewprune {

// Sets of the first-level cache that lines `stride` floats apart fall onto.
inline int64_t CacheSets(int64_t stride) {
  int64_t sets = 1;
  while (sets < 64 && sets * stride % (64 * 16) != 0) sets *= 2;
  return sets;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_CACHE_SETS_H_
