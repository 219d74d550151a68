// SPDX-License-Identifier: Apache-2.0
#include "format/irregular.h"

#include "format/payload.h"
#include "format/payload_header.h"

namespace tfrewprune {
namespace {

const char* CheckHeader(const PayloadHeader& h) {
  if (h.layout != kIrregularLayout) return "layout is not 1 (irregular)";
  const uint32_t taps = h.band_rows;
  if (taps == 0 || h.columns % taps != 0) {
    return "taps is 0 or does not divide columns";
  }
  if (h.flags == 0 || h.flags > h.columns / taps) {
    return "chunk_channels is not from 1 to columns / taps";
  }
  return nullptr;
}

const char* CheckSections(const PayloadHeader& h, const uint8_t* data) {
  // Bounded first, so that the products below cannot overflow.
  if (h.column_count > h.payload_bytes || h.band_count > h.payload_bytes) {
    return "segment_count or weight_count is larger than the payload can hold";
  }
  return CheckPayloadSections(
      h, data,
      {{h.row_id, uint64_t{h.band_count} * h.index_bytes, 4,
        "row_id section is misaligned, overlaps or lies outside the payload",
        "row_id section length is not segment_count * index_bytes"},
       {h.band_start, (uint64_t{h.band_count} + 1) * 4, 4,
        "segment_start section is misaligned, overlaps or lies outside the "
        "payload",
        "segment_start section length is not (segment_count + 1) * 4"},
       {h.column, h.column_count * h.index_bytes, 4,
        "column section is misaligned, overlaps or lies outside the payload",
        "column section length is not weight_count * index_bytes"},
       {h.value,
        h.column_count * Values::Bytes(static_cast<ValueType>(h.value_type)),
        64, "value section is misaligned, overlaps or lies outside the payload",
        "value section length is not weight_count * 4 (float32) or 2 "
        "(float16)"}});
}

const char* CheckSegments(const IrregularView& view) {
  const uint32_t* start = view.segment_start;
  if (start[0] != 0) return "segment_start does not begin with 0";
  for (uint32_t s = 0; s < view.segment_count; ++s) {
    if (start[s + 1] <= start[s]) {
      return "segment_start is not strictly ascending";
    }
  }
  if (start[view.segment_count] != view.weight_count) {
    return "segment_start does not end with weight_count";
  }
  uint32_t chunk_before = 0, row_before = 0;
  for (uint32_t s = 0; s < view.segment_count; ++s) {
    const uint32_t row = view.RowId(s);
    if (row >= view.rows) return "a row id is not smaller than rows";
    for (uint32_t i = start[s]; i < start[s + 1]; ++i) {
      if (view.Column(i) >= view.columns) {
        return "a column index is not smaller than columns";
      }
      if (i > start[s] && view.Column(i) <= view.Column(i - 1)) {
        return "column indices of a segment are not strictly ascending";
      }
    }
    const uint32_t chunk = view.Chunk(s);
    const uint32_t last = view.Column(start[s + 1] - 1);
    if (last / view.taps / view.chunk_channels != chunk) {
      return "the columns of a segment lie in two chunks";
    }
    if (s > 0 && (chunk < chunk_before ||
                  (chunk == chunk_before && row <= row_before))) {
      return "segments are not ascending by chunk and row";
    }
    chunk_before = chunk;
    row_before = row;
  }
  return nullptr;
}

}  // namespace

const char* ParseIrregular(const void* data, size_t bytes,
                           IrregularView* view) {
  PayloadHeader header;
  if (const char* error = ReadPayloadHeader(data, bytes, &header)) return error;
  const uint8_t* base = static_cast<const uint8_t*>(data);
  if (const char* error = CheckHeader(header)) return error;
  if (const char* error = CheckSections(header, base)) return error;
  view->rows = header.rows;
  view->columns = header.columns;
  view->taps = header.band_rows;
  view->chunk_channels = header.flags;
  view->segment_count = header.band_count;
  view->weight_count = header.column_count;
  view->index_bytes = header.index_bytes;
  view->row_id = base + header.row_id.offset;
  view->segment_start =
      reinterpret_cast<const uint32_t*>(base + header.band_start.offset);
  view->column = base + header.column.offset;
  view->value = PayloadValues(header, base);
  return CheckSegments(*view);
}

}  // namespace tfrewprune
