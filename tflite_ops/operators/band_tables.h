// SPDX-License-Identifier: Apache-2.0
//
// What the payload says about rows, in the form the kernels read.
#ifndef TFREWPRUNE_OPERATORS_BAND_TABLES_H_
#define TFREWPRUNE_OPERATORS_BAND_TABLES_H_

#include "format/payload.h"
#include "kernels/convolution.h"
#include "kernels/planar.h"
#include "operators/buffer.h"

namespace tfrewprune {

// Where the columns of each kernel row begin: start[b * (kernel_h + 1) + t] is
// the first column of band b whose kernel row is t or later. A kernel row has
// `row_columns` columns. False when memory is out.
bool StartsOfKernelRows(const BandedView& weights, uint32_t row_columns,
                        int kernel_h, Buffer<uint32_t>* start);

class BandTables {
 public:
  // nullptr, or what went wrong.
  const char* Prepare(const BandedView& weights, Activation activation);

  // Brings the bias (nullptr = zeros) into packed order for one Invoke.
  void PackBias(const float* bias);

  // The same for callers that can do with the bias in its own place, where its
  // order is the packed one.
  const float* PackedBias(const float* bias) {
    if (in_order_ && bias != nullptr) return bias;
    PackBias(bias);
    return bias_.get();
  }

  // output[row] = clamp(bias[row]) of rows that no band carries, for `pixels`
  // pixels that lie `output_stride` floats apart. After PackBias().
  void FillMissingRows(float* output, int64_t pixels,
                       int64_t output_stride) const;

  const float* bias() const { return bias_.get(); }
  // kScales of each band, of int8 weights; else nullptr.
  const float* scale() const { return scale_.get(); }
  const int32_t* row() const { return row_.get(); }
  const uint8_t* full_run() const { return full_run_.get(); }
  float minimum() const { return minimum_; }
  float maximum() const { return maximum_; }

 private:
  uint64_t lanes_ = 0;     // B x R
  uint32_t width_ = 0;     // R
  uint32_t missing_ = 0;   // rows without a lane
  bool in_order_ = false;  // lane i is row i, and there are no other rows
  float minimum_ = 0, maximum_ = 0;
  Buffer<float> bias_, scale_;
  Buffer<int32_t> row_;
  Buffer<uint8_t> full_run_;
  Buffer<uint32_t> missing_row_;
  Buffer<float> missing_value_;
};

// What the kernels over planes are told of a layer; `channel_stride` in floats.
// It points into all of these.
PlanesLayer MakePlanesLayer(const BandedView& weights,
                            const ConvGeometry& geometry,
                            const BandTables& tables, const uint32_t* start,
                            const ptrdiff_t* tap_offset,
                            int64_t channel_stride);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_BAND_TABLES_H_
