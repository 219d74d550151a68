// SPDX-License-Identifier: Apache-2.0
//
// Layout 1 of PAYLOAD.md: weights whose rows do not agree.
#ifndef TFREWPRUNE_FORMAT_IRREGULAR_H_
#define TFREWPRUNE_FORMAT_IRREGULAR_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "format/values.h"

namespace tfrewprune {

// A row-compressed weight matrix as it lies in the payload. Segment s is what
// output row RowId(s) keeps in one chunk of input channels: the weights
// segment_start[s] .. segment_start[s + 1]. Column(i) = channel * taps + tap.
// All pointers lead into the payload or an IrregularIndex.
struct IrregularView {
  uint32_t rows;            // O, output channels
  uint32_t columns;         // K, inputs of one output
  uint32_t taps;            // kernel height x kernel width
  uint32_t chunk_channels;  // input channels of a chunk (the last may be less)
  uint32_t segment_count;
  uint64_t weight_count;
  uint32_t index_bytes;           // 2 or 4, width of row_id and column entries
  const void* row_id;             // one for each segment
  const uint32_t* segment_start;  // segment_count + 1, ascending
  const void* column;             // one for each weight
  Values value;                   // one for each weight

  uint32_t RowId(uint64_t i) const { return Index(row_id, i); }
  uint32_t Column(uint64_t i) const { return Index(column, i); }
  uint32_t channels() const { return columns / taps; }
  uint32_t chunk_count() const { return (channels() - 1) / chunk_channels + 1; }
  // The chunk of a segment.
  uint32_t Chunk(uint64_t segment) const {
    return Column(segment_start[segment]) / taps / chunk_channels;
  }

 private:
  uint32_t Index(const void* section, uint64_t i) const {
    return index_bytes == 2 ? static_cast<const uint16_t*>(section)[i]
                            : static_cast<const uint32_t*>(section)[i];
  }
};

// Row ids, segment starts and columns of a payload that has a mask instead.
// (Sized by the payload: no more than 12 bytes a weight.)
class IrregularIndex {
 public:
  IrregularIndex() = default;
  IrregularIndex(const IrregularIndex&) = delete;
  IrregularIndex& operator=(const IrregularIndex&) = delete;
  ~IrregularIndex() { free(memory_); }

  // Decodes the mask and points `view`, whose counts are set, to the result.
  // nullptr, or what is wrong.
  const char* Decode(const uint8_t* mask, IrregularView* view);

 private:
  void* memory_ = nullptr;
};

// As ParsePayload, for layout 1. `view` may point into `index`.
const char* ParseIrregular(const void* data, size_t bytes, IrregularView* view,
                           IrregularIndex* index);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_FORMAT_IRREGULAR_H_
