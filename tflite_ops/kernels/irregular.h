// SPDX-License-Identifier: Apache-2.0
//
// Contract of the irregular kernels (SIMD over output pixels), for weights
// whose rows share no columns.
//
// The output plane is cut into `lanes` equal tiles; lane l of every vector
// belongs to tile l. The input is *lifted* to that layout: vector (y, x) of a
// channel holds, for every tile, the input pixel at (y, x) from the tile's
// corner. Whatever the tap, stride or dilation, the inputs of a vector of
// outputs are then one aligned vector, so that a kept weight costs a broadcast
// and one FMA with a memory operand for every vector of pixels.
//
//   Lift   NHWC -> lifted vectors of a chunk of input channels (fits the first
//          cache together with the accumulators at work)
//   Block  accumulators of an H x W block of output vectors, in registers, +=
//          the chunk's kept weights of a row; rows one after the other
//   Lower  accumulators -> scale, bias, clamp -> NHWC
#ifndef TFREWPRUNE_KERNELS_IRREGULAR_H_
#define TFREWPRUNE_KERNELS_IRREGULAR_H_

#include <cstddef>
#include <cstdint>

#include "isa/isa.h"

namespace tfrewprune {

// The kept weights of one output row in one chunk of channels.
struct IrregularSegment {
  uint32_t row;
  uint32_t first : 1;  // 1: accumulators start from 0
  uint32_t count : 31;
};

// Offsets that a block reads (but does not use) past those of its segments.
inline constexpr int kIrregularAhead = 4;

struct IrregularRun {
  const float* lifted;     // vector under the block's first output
  ptrdiff_t row_step;      // floats between the block's rows
  const uint16_t* offset;  // vectors from `lifted`, one for each weight
  const float* value;      // one for each weight
  const IrregularSegment* segment;
  const IrregularSegment* segment_end;
  float* accumulator;  // of row `row_begin`; H * W vectors a row
  uint32_t row_begin;
};
using IrregularBlock = void (*)(const IrregularRun& run);

struct IrregularLift {
  const int32_t* position;  // which vectors of a channel to fill
  int positions;
  const int32_t* lane_offset;  // positions x lanes: floats from `image`, -1 =
                               // outside of the image (0)
  int channels;
  ptrdiff_t channel_stride;  // floats between lifted channels
};
using IrregularLiftKernel = void (*)(const IrregularLift& lift,
                                     const float* image, float* lifted);

struct IrregularLower {
  const int32_t* lane_output;  // pixels x lanes: floats from `output`, -1 =
                               // outside of the output
  int pixels;                  // vectors
  int rows;
  const float* scale;  // `rows` values
  const float* bias;   // `rows` values
  float minimum, maximum;
};
using IrregularLowerKernel = void (*)(const IrregularLower& lower,
                                      const float* accumulator, float* output);

inline constexpr int kIrregularHeight = 4;
inline constexpr int kIrregularWidth = 8;

struct IrregularKernels {
  int lanes;
  int first_cache;  // bytes a chunk's vectors under one block should not exceed
  // block[h - 1][w - 1]; nullptr where registers are too few. With a block
  // there are all smaller ones.
  IrregularBlock block[kIrregularHeight][kIrregularWidth];
  IrregularLiftKernel lift;
  IrregularLowerKernel lower;
};

// nullptr for Isa::kReference and ISAs this CPU does not have.
const IrregularKernels* SelectIrregularKernels(Isa isa);

// Defined by the instantiation file of that instruction set.
const IrregularKernels* PortableIrregularKernels();
const IrregularKernels* Avx2IrregularKernels();
const IrregularKernels* Avx512IrregularKernels();
const IrregularKernels* NeonIrregularKernels();

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_IRREGULAR_H_
