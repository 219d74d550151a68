// SPDX-License-Identifier: Apache-2.0
//
// Planes: an image as one channel after the other, so that the pixels that a
// tap meets lie next to each other. How they are made, and a layer over them.
//
// Columns are those of the payload, tap x channels + channel: a table of
// offsets would cost as much again as the indices, in memory and in caches.
// They are made on the way, beside FMAs that leave the integer units idle:
//
//   offset(c) = c * channel_stride + tap_offset[c * tap_scale >> 32]
#ifndef TFREWPRUNE_KERNELS_PLANES_H_
#define TFREWPRUNE_KERNELS_PLANES_H_

#include <cstddef>
#include <cstdint>

namespace tfrewprune {

// An image of `channels` interleaved channels to planes:
//   out[c * plane_stride + r * out_row_stride + p] =
//       in[r * in_row_stride + p * in_stride + c]
// for r < rows, p < pixels, c < channels; and 0 for the `zeros` pixels that
// follow: cheap here, where their cache lines are written anyway.
struct TransposeJob {
  const float* in;
  ptrdiff_t in_stride, in_row_stride;
  int rows, pixels, zeros, channels;
  float* out;
  ptrdiff_t plane_stride, out_row_stride;
};
using TransposeKernel = void (*)(const TransposeJob& job);

// Where the columns of one kernel row lie in planes:
//   offset[i] = column[i] * step + tap_offset[column[i] / channels]
// for i < count, all bytes modulo 2^32. Their taps are [tap, tap_end).
struct OffsetsJob {
  const uint16_t* column;
  uint32_t count;
  uint32_t step, channels;
  const ptrdiff_t* tap_offset;
  uint32_t tap, tap_end;
  int32_t* offset;
};
using OffsetsKernel = void (*)(const OffsetsJob& job);

// Exact for all 16-bit columns.
inline uint64_t TapScale(uint32_t channels) {
  return ((uint64_t{1} << 32) + channels - 1) / channels;
}

// A layer over planes, as the flat kernels see it.
struct PlanesLayer {
  const float* value;           // R for each column from value_begin on
  uint32_t value_begin;         // 0 where they lie in the payload
  const uint32_t* start;        // B x start_stride
  uint32_t start_stride;        // kernel height + 1
  const uint16_t* column;       // N, in the payload
  ptrdiff_t channel_stride;     // bytes
  uint64_t tap_scale;           // TapScale(channels)
  const ptrdiff_t* tap_offset;  // bytes; c * channel_stride taken off
  const float* bias;            // B x R, in packed order, 0 in unused lanes
  const int32_t* row;           // B x R output rows, -1 in unused lanes
  const uint8_t* full_run;      // B: 1 when the band's R lanes are R rows that
                                // follow each other in the output
  ptrdiff_t output_stride;      // floats between output pixels
  float minimum, maximum;       // clamp of the fused activation
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_PLANES_H_
