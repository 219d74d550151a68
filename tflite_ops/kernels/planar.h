// SPDX-License-Identifier: Apache-2.0
//
// Contract of the planar kernels (registers hold several pixels of several
// output rows).
//
// The input was transposed to planes: one channel after the other, the pixels
// of an output row next to each other for every tap. A tile is `segments` runs
// of `length` units of `unit` pixels each. For every band b in
// [band_begin, band_end), lane r < R, segment g and pixel p < length * unit
//
//   y[g][p][row(b, r)] = clamp(bias[b * R + r] +
//       sum over n in [start(b, tap_begin), start(b, tap_end)) of
//       x[g][offset(column[n]) + p] * value[(n - value_begin) * R + r])
//
// for those p only that `last` counts in: the last unit of every segment stores
// its first `last` pixels (1 <= last <= unit; it may read past them).
// x[g] = planes + segment[g].input and y[g] = output + segment[g].output;
// start(b, t) is the first column of band b whose kernel row is t or later.
// Tiles at the upper and lower border leave out the kernel rows that lie
// outside of the image: no padding there, and less work. The first `part`
// segments of a tile may leave out more than the others: their kernel rows are
// [part_begin, part_end), within [tap_begin, tap_end) of the others.
// With `down` > 0 one more segment of so many units follows, which goes down an
// output column. The pixels of a column are next to each other in planes of
// their own: all is as above, with down_ for the layer's strides and offsets.
//
// Columns are those of the payload, tap x channels + channel: a table of
// offsets would cost as much again as the indices, in memory and in caches.
// They are made on the way, beside FMAs that leave the integer units idle:
//
//   offset(c) = c * channel_stride + tap_offset[c * tap_scale >> 32]
#ifndef TFREWPRUNE_KERNELS_PLANAR_H_
#define TFREWPRUNE_KERNELS_PLANAR_H_

#include <cstddef>
#include <cstdint>

#include "kernels/direct.h"

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

// Exact for all 16-bit columns.
inline uint64_t TapScale(uint32_t channels) {
  return ((uint64_t{1} << 32) + channels - 1) / channels;
}

// A layer over planes, as the kernels see it.
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

struct PlanarLayer : PlanesLayer {
  ptrdiff_t down_channel_stride;
  const ptrdiff_t* down_tap_offset;
  ptrdiff_t down_output_stride;
};

// What a tile reads of the kernel, and stores of the last unit of its runs.
struct PlanarExtent {
  uint32_t tap_begin, tap_end;
  uint32_t part_begin, part_end;
  int last, down_last;
};

using PlanarKernel = void (*)(const PlanarLayer& layer, uint32_t band_begin,
                              uint32_t band_end, const PlanarExtent& extent,
                              const float* planes, float* output,
                              const Segment* segment);

// All kernels of one segment length: kernel[g - 1] takes g segments; nullptr
// where all runs were part-time.
struct PlanarKernelRow {
  int band_rows;
  int unit;    // pixels
  int length;  // units of a segment
  int max_segments;
  int part;
  int down;  // units
  const PlanarKernel* kernel;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_PLANAR_H_
