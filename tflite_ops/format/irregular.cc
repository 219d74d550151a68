// SPDX-License-Identifier: Apache-2.0
#include "format/irregular.h"

#include <cstring>

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
  const bool masked = h.index_bytes == 0;
  return CheckPayloadSections(
      h, data,
      {{h.row_id, uint64_t{h.band_count} * h.index_bytes, 4,
        "row_id section is misaligned, overlaps or lies outside the payload",
        "row_id section length is not segment_count * index_bytes"},
       {h.band_start, masked ? 0 : (uint64_t{h.band_count} + 1) * 4, 4,
        "segment_start section is misaligned, overlaps or lies outside the "
        "payload",
        "segment_start section length is not (segment_count + 1) * 4, or 0 "
        "beside a mask"},
       {h.column,
        masked ? (uint64_t{h.rows} * h.columns - 1) / 8 + 1
               : h.column_count * h.index_bytes,
        4, "column section is misaligned, overlaps or lies outside the payload",
        "column section length is not weight_count * index_bytes, or a bit for "
        "each of rows * columns"},
       {h.value,
        h.column_count * Values::Bytes(static_cast<ValueType>(h.value_type)),
        64, "value section is misaligned, overlaps or lies outside the payload",
        "value section length is not weight_count * 4 (float32), 2 (float16) "
        "or 1 (int8)"}});
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

const char* IrregularIndex::Decode(const uint8_t* mask, IrregularView* view) {
  const char* const wrong =
      "the mask does not have weight_count bits in segment_count segments";
  const uint64_t weights = view->weight_count;
  const uint64_t segments = view->segment_count;
  // Segment starts are 32-bit.
  if (segments > weights || weights > UINT32_MAX) return wrong;
  const uint32_t width = IndexBytes(view->rows, view->columns);
  const uint64_t bytes = (segments + 1) * 4 + (segments + weights) * width;
  free(memory_);
  memory_ = bytes == static_cast<size_t>(bytes)
                ? malloc(static_cast<size_t>(bytes))
                : nullptr;
  if (memory_ == nullptr) return "out of memory while decoding the mask";
  uint32_t* start = static_cast<uint32_t*>(memory_);
  uint8_t* row_id = reinterpret_cast<uint8_t*>(start + segments + 1);
  uint8_t* column = row_id + segments * width;
  view->index_bytes = width;
  view->segment_start = start;
  view->row_id = row_id;
  view->column = column;
  const auto put = [width](uint8_t* section, uint64_t i, uint32_t number) {
    memcpy(section + i * width, &number, width);  // little-endian
  };
  const uint64_t chunk_columns = uint64_t{view->taps} * view->chunk_channels;
  uint64_t n = 0, s = 0, bit = 0;
  for (uint64_t first = 0; first < view->columns; first += chunk_columns) {
    const uint64_t end = first + chunk_columns < view->columns
                             ? first + chunk_columns
                             : view->columns;
    for (uint32_t row = 0; row < view->rows; ++row) {
      const uint64_t begin = n;
      for (uint64_t k = first; k < end; ++k, ++bit) {
        if (bit % 8 == 0 && k + 8 <= end && mask[bit / 8] == 0) {
          k += 7;
          bit += 7;
          continue;
        }
        if ((mask[bit / 8] >> bit % 8 & 1) == 0) continue;
        if (n == weights) return wrong;
        put(column, n++, static_cast<uint32_t>(k));
      }
      if (n == begin) continue;
      if (s == segments) return wrong;
      start[s] = static_cast<uint32_t>(begin);
      put(row_id, s++, row);
    }
  }
  start[s] = static_cast<uint32_t>(n);
  if (n != weights || s != segments) return wrong;
  for (; bit % 8 != 0; ++bit) {
    if (mask[bit / 8] >> bit % 8 & 1) {
      return "bits behind the last weight of the mask are not 0";
    }
  }
  return nullptr;
}

const char* ParseIrregular(const void* data, size_t bytes, IrregularView* view,
                           IrregularIndex* index) {
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
  if (header.index_bytes == 0) {
    return index->Decode(base + header.column.offset, view);
  }
  return CheckSegments(*view);
}

}  // namespace tfrewprune
