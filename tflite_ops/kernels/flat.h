// SPDX-License-Identifier: Apache-2.0
//
// Contract of the flat kernels (registers hold 16 pixels of one output row).
//
// For narrow bands: a weight is broadcast to a register of neighbouring pixels,
// so that one plain load serves R FMAs. The input was transposed to planes in
// which the rows of the image follow each other, between them some more pixels,
// zeros that two rows share. A run of 16-pixel units therefore crosses the ends
// of rows; `stored` has a bit for every pixel that belongs to the image, and
// what is computed for the gaps is dropped. For every band b in
// [band_begin, band_end), lane r < R and pixel p whose bit is the n-th that is
// set, from 0 on,
//
//   y[row(b, r)] = clamp(bias[b * R + r] +
//       sum over i in [start(b, run.tap_begin), start(b, run.tap_end)) of
//       planes[run.input + offset(column[i]) + p] * value[(i - value_begin) * R
//       + r])
//
// for the output pixel y = output + run.output + n * output_stride,
// with offset(c) as in kernels/planes.h; start(b, t) is the first column of
// band b whose kernel row is t or later. Whole units are read, whatever they
// hold.
#ifndef TFREWPRUNE_KERNELS_FLAT_H_
#define TFREWPRUNE_KERNELS_FLAT_H_

#include <cstddef>
#include <cstdint>

#include "kernels/planes.h"

namespace tfrewprune {

inline constexpr int kFlatUnit = 16;  // pixels
inline constexpr int kMaxFlatUnits = 6;

struct FlatRun {
  int64_t input;   // floats from the planes to the first pixel
  int64_t output;  // floats from the output to the first that is stored
  uint32_t tap_begin, tap_end;
  int32_t units;
  uint16_t stored[kMaxFlatUnits];  // bit i: pixel i of the unit
};

// `stage` has room for 16 x 16 x units floats, aligned to 64 bytes.
using FlatKernel = void (*)(const PlanesLayer& layer, uint32_t band_begin,
                            uint32_t band_end, const FlatRun& run,
                            const float* planes, float* output, float* stage);

// kernel[u - 1] takes runs of u units.
struct FlatKernelRow {
  int band_rows;
  int max_units;
  const FlatKernel* kernel;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_FLAT_H_
