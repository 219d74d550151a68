// SPDX-License-Identifier: Apache-2.0
#include "format/payload.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tfrewprune {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "payload integers are little-endian and read in place");

struct Section {
  uint64_t offset;
  uint64_t length;
};

// The 128 bytes of PAYLOAD.md, field for field.
struct Header {
  char magic[4];
  uint16_t version;
  uint16_t header_bytes;
  uint32_t layout;
  uint32_t value_type;
  uint32_t rows;
  uint32_t columns;
  uint32_t band_rows;
  uint32_t band_count;
  uint64_t column_count;
  uint32_t index_bytes;
  uint32_t flags;
  Section row_id;
  Section band_start;
  Section column;
  Section value;
  uint64_t payload_bytes;
  uint64_t reserved;
};
static_assert(sizeof(Header) == 128, "PAYLOAD.md fixes the header");

const char* CheckHeader(const Header& h, size_t bytes) {
  if (memcmp(h.magic, "TFRP", 4) != 0) {
    return "payload does not start with the magic bytes TFRP";
  }
  if (h.version != 1) return "payload version is not 1, the only one known";
  if (h.header_bytes != sizeof(Header)) return "header_bytes is not 128";
  if (h.layout != 0) return "layout is not 0 (banded), the only one known";
  if (h.value_type != 0) {
    return "value_type is not 0 (float32), the only one known";
  }
  if (h.rows == 0) return "rows is 0, expected at least 1";
  if (h.columns == 0) return "columns is 0, expected at least 1";
  if (h.band_rows != 4 && h.band_rows != 8 && h.band_rows != 16 &&
      h.band_rows != 32) {
    return "band_rows is not 4, 8, 16 or 32";
  }
  const bool narrow = h.rows <= 65535 && h.columns <= 65536;
  if (h.index_bytes != (narrow ? 2u : 4u)) {
    return "index_bytes does not fit the shape: expected 2 when rows <= 65535 "
           "and columns <= 65536, else 4";
  }
  if (h.flags != 0) return "flags is not 0";
  if (h.reserved != 0) return "the reserved header field is not 0";
  if (h.payload_bytes != bytes) {
    return "payload_bytes differs from the size of the buffer: the payload is "
           "truncated or has trailing bytes";
  }
  return nullptr;
}

// Sections lie in order, aligned, without overlap and inside the payload, with
// the lengths that follow from the counts, and only zeros between them.
const char* CheckSections(const Header& h, const uint8_t* data) {
  // Bounded first, so that the products below cannot overflow.
  if (h.column_count > h.payload_bytes || h.band_count > h.payload_bytes) {
    return "band_count or column_count is larger than the payload can hold";
  }
  const uint64_t lanes = uint64_t{h.band_count} * h.band_rows;
  struct Expected {
    const Section& section;
    uint64_t length;
    uint64_t alignment;
    const char* placed_wrong;
    const char* length_wrong;
  };
  const Expected expected[] = {
      {h.row_id, lanes * h.index_bytes, 4,
       "row_id section is misaligned, overlaps or lies outside the payload",
       "row_id section length is not band_count * band_rows * index_bytes"},
      {h.band_start, (uint64_t{h.band_count} + 1) * 4, 4,
       "band_start section is misaligned, overlaps or lies outside the payload",
       "band_start section length is not (band_count + 1) * 4"},
      {h.column, h.column_count * h.index_bytes, 4,
       "column section is misaligned, overlaps or lies outside the payload",
       "column section length is not column_count * index_bytes"},
      {h.value, h.column_count * h.band_rows * sizeof(float), 64,
       "value section is misaligned, overlaps or lies outside the payload",
       "value section length is not column_count * band_rows * 4"},
  };
  uint64_t end = sizeof(Header);
  for (const Expected& e : expected) {
    if (e.section.length != e.length) return e.length_wrong;
    if (e.section.offset < end || e.section.offset % e.alignment != 0 ||
        e.section.offset > h.payload_bytes ||
        e.section.length > h.payload_bytes - e.section.offset) {
      return e.placed_wrong;
    }
    for (uint64_t i = end; i < e.section.offset; ++i) {
      if (data[i] != 0) return "a gap between sections holds non-zero bytes";
    }
    end = e.section.offset + e.section.length;
  }
  if (end != h.payload_bytes) return "bytes follow the value section";
  return nullptr;
}

int CompareUint32(const void* a, const void* b) {
  const uint32_t x = *static_cast<const uint32_t*>(a);
  const uint32_t y = *static_cast<const uint32_t*>(b);
  return (x > y) - (x < y);
}

// Row ids are at most `rows`, and no row has two lanes.
const char* CheckRows(const BandedView& view) {
  const uint64_t lanes = uint64_t{view.band_count} * view.band_rows;
  if (lanes == 0) return nullptr;
  // Sorting a copy keeps the memory in proportion to the payload; a bitmap
  // would let a hostile `rows` ask for half a gigabyte.
  uint32_t* used = static_cast<uint32_t*>(malloc(lanes * sizeof(uint32_t)));
  if (used == nullptr) return "out of memory while checking the row ids";
  uint64_t count = 0;
  const char* error = nullptr;
  for (uint64_t i = 0; i < lanes; ++i) {
    const uint32_t row = view.RowId(i);
    if (row > view.rows) error = "a row id is larger than rows";
    if (row < view.rows) used[count++] = row;
  }
  if (error == nullptr && count > 1) {
    qsort(used, count, sizeof(uint32_t), CompareUint32);
    for (uint64_t i = 1; i < count; ++i) {
      if (used[i] == used[i - 1]) error = "an output row appears twice";
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
  if (data == nullptr) return "payload is missing (null pointer)";
  if (reinterpret_cast<uintptr_t>(data) % kPayloadAlignment != 0) {
    return "payload memory is not aligned to 16 bytes";
  }
  if (bytes < sizeof(Header)) {
    return "payload is shorter than its header of 128 bytes";
  }
  Header header;
  memcpy(&header, data, sizeof(header));
  const uint8_t* base = static_cast<const uint8_t*>(data);
  if (const char* error = CheckHeader(header, bytes)) return error;
  if (const char* error = CheckSections(header, base)) return error;
  view->rows = header.rows;
  view->columns = header.columns;
  view->band_rows = header.band_rows;
  view->band_count = header.band_count;
  view->column_count = header.column_count;
  view->index_bytes = header.index_bytes;
  view->row_id = base + header.row_id.offset;
  view->band_start =
      reinterpret_cast<const uint32_t*>(base + header.band_start.offset);
  view->column = base + header.column.offset;
  view->value = reinterpret_cast<const float*>(base + header.value.offset);
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
