// SPDX-License-Identifier: Apache-2.0
//
// IEEE half-precision numbers as they lie in a payload.
#ifndef TFREWPRUNE_FORMAT_HALF_H_
#define TFREWPRUNE_FORMAT_HALF_H_

#include <cstdint>
#include <cstring>

namespace tfrewprune {

struct Half {
  uint16_t bits;
};

// Exact. Works with integers and normal numbers alone, so that halves too small
// to be normal stay what they are where denormals are flushed. (Inlined, so
// that files compiled for different instruction sets share no symbol.)
__attribute__((always_inline)) static inline float ToFloat(Half half) {
  const uint32_t magnitude = half.bits & 0x7fffu;
  uint32_t bits = (magnitude << 13) + (112u << 23);
  if (magnitude >= 0x7c00) bits += 112u << 23;  // infinite or not a number
  if (magnitude < 0x400) {
    // 2^-14 * (1 + m / 1024) - 2^-14
    const uint32_t one = 113u << 23, sum = (magnitude << 13) + one;
    float a, b;
    std::memcpy(&a, &sum, sizeof(a));
    std::memcpy(&b, &one, sizeof(b));
    a -= b;
    std::memcpy(&bits, &a, sizeof(bits));
  }
  bits |= (half.bits & 0x8000u) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_FORMAT_HALF_H_
