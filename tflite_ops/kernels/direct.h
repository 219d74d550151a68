// SPDX-License-Identifier: Apache-2.0
//
// Contract of the direct kernels (SIMD over output rows).
//
// A tile is `segments` runs of `length` output pixels each. For every band b in
// [band_begin, band_end), lane r < R, segment g and pixel p < length
//
//   y[g][p][row(b, r)] = clamp(bias[b * R + r] +
//       sum over n in [start(b, tap_begin), start(b, tap_end)) of
//       x[g][p * pixel_stride + offset[n]] * value[(n - value_begin) * R + r])
//
// with x[g] = input + segment[g].input and y[g] = output + segment[g].output;
// start(b, t) is the first column of band b whose kernel row is t or later.
// Column ids became `offset`s before: the same offsets serve every pixel, so
// this is a dense micro-kernel plus one index load a column (no im2col).
#ifndef TFREWPRUNE_KERNELS_DIRECT_H_
#define TFREWPRUNE_KERNELS_DIRECT_H_

#include <cstddef>
#include <cstdint>

namespace tfrewprune {

// One layer as the kernels see it.
struct DirectLayer {
  const void* value;        // of the kernel's type, R for each column from
                            // value_begin on
  uint32_t value_begin;     // 0 where they lie in the payload
  const uint32_t* start;    // B x start_stride
  uint32_t start_stride;    // kernel height + 1
  const int32_t* offset;    // N, bytes from a pixel's first tap; and two more
                            // entries, of any value, that can be read
  const float* bias;        // B x R, in packed order, 0 in unused lanes
  const int32_t* row;       // B x R output rows, -1 in unused lanes
  const uint8_t* full_run;  // B: 1 when the band's R lanes are R rows that
                            // follow each other in the output
  ptrdiff_t pixel_stride;   // bytes between input pixels
  ptrdiff_t output_stride;  // floats between output pixels
  float minimum, maximum;   // clamp of the fused activation
};

// A run of neighbouring output pixels.
struct Segment {
  int64_t input;   // values from the input base to the first pixel's first tap
  int64_t output;  // floats from the output base to the first pixel
};

// `input` is of the type of the weights.
using DirectKernel = void (*)(const DirectLayer& layer, uint32_t band_begin,
                              uint32_t band_end, uint32_t tap_begin,
                              uint32_t tap_end, const void* input,
                              float* output, const Segment* segment);

// All kernels of one segment length: kernel[g - 1] takes g segments.
struct DirectKernelRow {
  int band_rows;
  int length;
  int max_segments;
  const DirectKernel* kernel;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_DIRECT_H_
