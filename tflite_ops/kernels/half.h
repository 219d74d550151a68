// SPDX-License-Identifier: Apache-2.0
//
// Kernels in float16 arithmetic: the formulas of kernels/direct.h and
// kernels/gemv.h for weights and inputs that are halves. Sums are halves, too,
// and infinite beyond 65504, for kHalfColumns columns, and for kHalfChunks of
// such sums; sums of those, bias, activation and output are float32.
#ifndef TFREWPRUNE_KERNELS_HALF_H_
#define TFREWPRUNE_KERNELS_HALF_H_

#include <cstdint>

#include "format/half.h"

namespace tfrewprune {

// More of them save little and cost accuracy: HACKING.md, "float16 arithmetic".
inline constexpr uint32_t kHalfColumns = 32, kHalfChunks = 4;

// to[i] = from[i] for i < count, to the nearest half.
using NarrowKernel = void (*)(const float* from, uint64_t count, Half* to);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_HALF_H_
