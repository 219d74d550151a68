// SPDX-License-Identifier: Apache-2.0
#include "operators/band_tables.h"

#include "kernels/gemv.h"

namespace tfrewprune {

bool StartsOfKernelRows(const BandedView& weights, uint32_t row_columns,
                        int kernel_h, Buffer<uint32_t>* start) {
  const uint32_t stride = static_cast<uint32_t>(kernel_h) + 1;
  if (!start->Allocate(uint64_t{weights.band_count} * stride)) return false;
  for (uint32_t b = 0; b < weights.band_count; ++b) {
    uint32_t* band = start->get() + uint64_t{b} * stride;
    uint32_t next = 0;  // kernel row whose first column is looked for
    for (uint64_t i = weights.band_start[b]; i < weights.band_start[b + 1];
         ++i) {
      const uint32_t row = weights.Column(i) / row_columns;
      while (next <= row) band[next++] = static_cast<uint32_t>(i);
    }
    while (next < stride) band[next++] = weights.band_start[b + 1];
  }
  return true;
}

const char* BandTables::Prepare(const BandedView& weights,
                                Activation activation) {
  ActivationRange(activation, &minimum_, &maximum_);
  const uint32_t width = weights.band_rows;
  width_ = width;
  lanes_ = uint64_t{weights.band_count} * width;
  Buffer<uint8_t> present;
  if (!bias_.Allocate(lanes_) || !row_.Allocate(lanes_) ||
      !full_run_.Allocate(weights.band_count) ||
      !present.Allocate(weights.rows) || !missing_row_.Allocate(weights.rows) ||
      !missing_value_.Allocate(weights.rows)) {
    return kOutOfMemory;
  }
  for (uint64_t i = 0; i < lanes_; ++i) {
    const uint32_t row = weights.RowId(i);
    row_[i] = row == weights.rows ? -1 : static_cast<int32_t>(row);
    if (row < weights.rows) present[row] = 1;
  }
  in_order_ = lanes_ == weights.rows;
  for (uint64_t i = 0; i < lanes_; ++i) {
    in_order_ = in_order_ && row_[i] == static_cast<int64_t>(i);
  }
  for (uint32_t b = 0; b < weights.band_count; ++b) {
    const int32_t* row = row_.get() + uint64_t{b} * width;
    bool full = row[0] >= 0;
    for (uint32_t lane = 1; lane < width; ++lane) {
      full = full && row[lane] == row[0] + static_cast<int32_t>(lane);
    }
    full_run_[b] = full;
  }
  if (weights.value.type() == ValueType::kInt8) {
    const uint64_t scales = uint64_t{weights.band_count} * kScales;
    if (!scale_.Allocate(scales)) return kOutOfMemory;
    for (uint64_t i = 0; i < scales; ++i) {
      const uint32_t row = weights.RowId(i / kScales * width + i % width);
      scale_[i] = row == weights.rows ? 1.0f : weights.value.Scale(row);
    }
  }
  missing_ = 0;
  for (uint32_t row = 0; row < weights.rows; ++row) {
    if (!present[row]) missing_row_[missing_++] = row;
  }
  return nullptr;
}

void BandTables::PackBias(const float* bias) {
  if (bias != nullptr) {
    for (uint64_t b = 0, i = 0; i < lanes_; ++b) {
      if (full_run_[b]) {
        memcpy(bias_.get() + i, bias + row_[i], width_ * sizeof(float));
        i += width_;
        continue;
      }
      for (uint32_t lane = 0; lane < width_; ++lane, ++i) {
        bias_[i] = row_[i] < 0 ? 0.0f : bias[row_[i]];
      }
    }
  } else if (lanes_ > 0) {
    memset(bias_.get(), 0, lanes_ * sizeof(float));
  }
  for (uint32_t i = 0; i < missing_; ++i) {
    float value = bias == nullptr ? 0.0f : bias[missing_row_[i]];
    if (value < minimum_) value = minimum_;  // NaN stays NaN
    if (value > maximum_) value = maximum_;
    missing_value_[i] = value;
  }
}

void BandTables::FillMissingRows(float* output, int64_t pixels,
                                 int64_t output_stride) const {
  if (missing_ == 0) return;
  for (int64_t p = 0; p < pixels; ++p, output += output_stride) {
    for (uint32_t i = 0; i < missing_; ++i) {
      output[missing_row_[i]] = missing_value_[i];
    }
  }
}

PlanesLayer MakePlanesLayer(const BandedView& weights,
                            const ConvGeometry& geometry,
                            const BandTables& tables, const uint32_t* start,
                            const ptrdiff_t* tap_offset,
                            int64_t channel_stride) {
  PlanesLayer layer;
  layer.value = weights.value.floats();
  layer.value_begin = 0;
  layer.start = start;
  layer.start_stride = static_cast<uint32_t>(geometry.kernel_h) + 1;
  layer.column = static_cast<const uint16_t*>(weights.column);
  layer.channel_stride =
      static_cast<ptrdiff_t>(channel_stride * int64_t{sizeof(float)});
  layer.tap_scale = TapScale(static_cast<uint32_t>(geometry.in_c));
  layer.tap_offset = tap_offset;
  layer.bias = tables.bias();
  layer.row = tables.row();
  layer.full_run = tables.full_run();
  layer.output_stride = static_cast<ptrdiff_t>(weights.rows);
  layer.minimum = tables.minimum();
  layer.maximum = tables.maximum();
  return layer;
}

}  // namespace tfrewprune
