// SPDX-License-Identifier: Apache-2.0
#include "format/payload.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "format/payload_header.h"

namespace tfrewprune {
namespace {

using Header = PayloadHeader;

// In flags.
constexpr uint32_t kNeighbours = 1;

const char* CheckHeader(const Header& h) {
  if (h.layout != kBandedLayout) return "layout is not 0 (banded)";
  if (h.band_rows != 4 && h.band_rows != 8 && h.band_rows != 16 &&
      h.band_rows != 32) {
    return "band_rows is not 4, 8, 16 or 32";
  }
  return (h.flags & ~kNeighbours) == 0 ? nullptr : "flags is not 0 or 1";
}

const char* CheckSections(const Header& h, const uint8_t* data) {
  // Bounded first, so that the products below cannot overflow.
  if (h.column_count > h.payload_bytes || h.band_count > h.payload_bytes) {
    return "band_count or column_count is larger than the payload can hold";
  }
  const uint64_t ids =
      uint64_t{h.band_count} * (h.flags & kNeighbours ? 1 : h.band_rows);
  return CheckPayloadSections(
      h, data,
      {{h.row_id, ids * h.index_bytes, 4,
        "row_id section is misaligned, overlaps or lies outside the payload",
        "row_id section length is not band_count * band_rows * index_bytes, or "
        "band_count * index_bytes where flags is 1"},
       {h.band_start, (uint64_t{h.band_count} + 1) * 4, 4,
        "band_start section is misaligned, overlaps or lies outside the "
        "payload",
        "band_start section length is not (band_count + 1) * 4"},
       {h.column, h.column_count * h.index_bytes, 4,
        "column section is misaligned, overlaps or lies outside the payload",
        "column section length is not column_count * index_bytes"},
       {h.value,
        h.column_count * h.band_rows *
            Values::Bytes(static_cast<ValueType>(h.value_type)),
        64, "value section is misaligned, overlaps or lies outside the payload",
        "value section length is not column_count * band_rows * 4 (float32), 2 "
        "(float16) or 1 (int8)"}});
}

int CompareUint32(const void* a, const void* b) {
  const uint32_t x = *static_cast<const uint32_t*>(a);
  const uint32_t y = *static_cast<const uint32_t*>(b);
  return (x > y) - (x < y);
}

// Row ids are at most `rows`, and no row has two lanes.
const char* CheckRows(const BandedView& view) {
  // What one id stands for.
  const uint32_t lanes = view.neighbours ? view.band_rows : 1;
  const uint64_t ids = uint64_t{view.band_count} * view.band_rows / lanes;
  if (ids == 0) return nullptr;
  // Sorting a copy keeps the memory in proportion to the payload; a bitmap
  // would let a hostile `rows` ask for half a gigabyte.
  uint32_t* used = static_cast<uint32_t*>(malloc(ids * sizeof(uint32_t)));
  if (used == nullptr) return "out of memory while checking the row ids";
  uint64_t count = 0;
  const char* error = nullptr;
  for (uint64_t i = 0; i < ids; ++i) {
    const uint32_t row = view.RowId(i * lanes);
    if (row > view.rows) error = "a row id is larger than rows";
    if (view.neighbours && row == view.rows) {
      error = "the first row of a band is not smaller than rows";
    }
    if (row < view.rows) used[count++] = row;
  }
  if (error == nullptr && count > 1) {
    qsort(used, count, sizeof(uint32_t), CompareUint32);
    for (uint64_t i = 1; i < count; ++i) {
      if (used[i] - used[i - 1] < lanes) error = "an output row appears twice";
    }
  }
  free(used);
  return error;
}

const char* CheckBand(const BandedView& view, uint32_t band) {
  const uint64_t lane0 = uint64_t{band} * view.band_rows;
  const uint32_t begin = view.band_start[band];
  const uint32_t end = view.band_start[band + 1];
  for (uint32_t n = begin; n < end; ++n) {
    if (view.Column(n) >= view.columns) {
      return "a column index is not smaller than columns";
    }
    if (n > begin && view.Column(n) <= view.Column(n - 1)) {
      return "column indices of a band are not strictly ascending";
    }
  }
  bool any_used = false;
  for (uint32_t lane = 0; lane < view.band_rows; ++lane) {
    if (view.RowId(lane0 + lane) < view.rows) {
      any_used = true;
      continue;
    }
    for (uint32_t n = begin; n < end; ++n) {
      if (view.value[uint64_t{n} * view.band_rows + lane] != 0.0f) {
        return "a lane that carries no row holds a value other than 0";
      }
    }
  }
  if (!any_used && begin == end) {
    return "a band has neither a row nor a column";
  }
  return nullptr;
}

const char* CheckBands(const BandedView& view) {
  if (view.band_start[0] != 0) return "band_start does not begin with 0";
  for (uint32_t band = 0; band < view.band_count; ++band) {
    if (view.band_start[band + 1] < view.band_start[band]) {
      return "band_start is not ascending";
    }
  }
  if (view.band_start[view.band_count] != view.column_count) {
    return "band_start does not end with column_count";
  }
  for (uint32_t band = 0; band < view.band_count; ++band) {
    if (const char* error = CheckBand(view, band)) return error;
  }
  return nullptr;
}

}  // namespace

const char* ParsePayload(const void* data, size_t bytes, BandedView* view) {
  Header header;
  if (const char* error = ReadPayloadHeader(data, bytes, &header)) return error;
  const uint8_t* base = static_cast<const uint8_t*>(data);
  if (const char* error = CheckHeader(header)) return error;
  if (const char* error = CheckSections(header, base)) return error;
  view->rows = header.rows;
  view->columns = header.columns;
  view->band_rows = header.band_rows;
  view->band_count = header.band_count;
  view->column_count = header.column_count;
  view->index_bytes = header.index_bytes;
  view->neighbours = (header.flags & kNeighbours) != 0;
  view->row_id = base + header.row_id.offset;
  view->band_start =
      reinterpret_cast<const uint32_t*>(base + header.band_start.offset);
  view->column = base + header.column.offset;
  view->value = PayloadValues(header, base);
  if (const char* error = CheckRows(*view)) return error;
  return CheckBands(*view);
}

void DescribePayload(const void* data, size_t bytes, char* text,
                     size_t text_size) {
  Header h;
  if (data == nullptr || bytes < sizeof(h)) {
    snprintf(text, text_size, "%zu bytes", data == nullptr ? 0 : bytes);
    return;
  }
  memcpy(&h, data, sizeof(h));
  snprintf(text, text_size,
           "%zu bytes, version %u, layout %" PRIu32 ", value_type %" PRIu32
           ", rows %" PRIu32 ", columns %" PRIu32 ", band_rows %" PRIu32
           ", band_count %" PRIu32 ", column_count %" PRIu64
           ", payload_bytes %" PRIu64,
           bytes, unsigned{h.version}, h.layout, h.value_type, h.rows,
           h.columns, h.band_rows, h.band_count, h.column_count,
           h.payload_bytes);
}

}  // namespace tfrewprune
