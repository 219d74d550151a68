// SPDX-License-Identifier: Apache-2.0
//
// What one instruction set offers for banded weights.
#ifndef TFREWPRUNE_KERNELS_KERNELS_H_
#define TFREWPRUNE_KERNELS_KERNELS_H_

#include "isa/isa.h"
#include "kernels/direct.h"
#include "kernels/flat.h"
#include "kernels/gemv.h"
#include "kernels/half.h"
#include "kernels/planes.h"

namespace tfrewprune {

// y[i] = clamp(y[i] + residual[i]) for i < count.
using AddKernel = void (*)(const float* residual, int64_t count, float minimum,
                           float maximum, float* y);

// to[i] = from[i] for i < count, exactly.
using WidenKernel = void (*)(const Half* from, uint64_t count, float* to);

// to[i] = from[i] * scale[i % kScales] for i < count.
using WidenIntegersKernel = void (*)(const int8_t* from, uint64_t count,
                                     const float* scale, float* to);

// Everything one instruction set offers; `isa` kReference has no kernels.
struct Kernels {
  Isa isa;
  int lanes;  // of the widest vector, for the cost estimate of tiles
  const DirectKernelRow* direct;
  int direct_count;
  const GemvKernelRow* gemv;
  int gemv_count;
  TransposeKernel transpose;  // kernels/planes.h; nullptr: there are none
  OffsetsKernel plane_offsets;
  const FlatKernelRow* flat;
  int flat_count;
  AddKernel add;
  WidenKernel widen;
  WidenIntegersKernel widen_integers;
  NarrowKernel narrow;  // of kernels in float16 arithmetic; else nullptr
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_KERNELS_H_
