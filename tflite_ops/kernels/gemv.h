// SPDX-License-Identifier: Apache-2.0
//
// Contract of the gemv kernels (SIMD over output rows, one pixel).
#ifndef TFREWPRUNE_KERNELS_GEMV_H_
#define TFREWPRUNE_KERNELS_GEMV_H_

#include <cstddef>
#include <cstdint>

#include "format/values.h"

namespace tfrewprune {

// Scales of a band's int8 weights: those of its rows, again and again.
inline constexpr int kScales = 32;

// One pixel, one vector of inputs:
//   y[row(b, r)] = clamp(bias[b * R + r] + s * sum_n x[column[n]] * value[n*R +
//   r])
// where s is scale[b * kScales + r] for int8 values, else 1.
// `column` has uint16_t entries for index_bytes 2, else uint32_t.
struct GemvLayer {
  const void* value;  // of the kernel's value type
  const uint32_t* band_start;
  const void* column;
  const float* scale;  // nullptr unless values are int8
  const float* bias;
  const int32_t* row;
  const uint8_t* full_run;
  float minimum, maximum;
};
// `x` is float; of halves in float16 arithmetic, Half.
using GemvKernel = void (*)(const GemvLayer& layer, uint32_t band_begin,
                            uint32_t band_end, const void* x, float* y);

struct GemvKernelRow {
  int band_rows;
  int index_bytes;
  ValueType value_type;
  GemvKernel kernel;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_GEMV_H_
