// SPDX-License-Identifier: Apache-2.0
#include "format/payload_header.h"

#include <cmath>
#include <cstring>

#include "format/payload.h"

namespace tfrewprune {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "payload integers are little-endian and read in place");

namespace {

// One section begins behind the last one, whose end is `end`.
const char* CheckPlace(const PayloadHeader& header, const uint8_t* data,
                       const ExpectedSection& e, uint64_t* end) {
  if (e.section.offset < *end || e.section.offset % e.alignment != 0 ||
      e.section.offset > header.payload_bytes ||
      e.section.length > header.payload_bytes - e.section.offset) {
    return e.placed_wrong;
  }
  for (uint64_t i = *end; i < e.section.offset; ++i) {
    if (data[i] != 0) return "a gap between sections holds non-zero bytes";
  }
  *end = e.section.offset + e.section.length;
  return nullptr;
}

}  // namespace

int64_t PayloadLayout(const void* data, size_t bytes) {
  PayloadHeader header;
  if (data == nullptr || bytes < sizeof(header)) return -1;
  memcpy(&header, data, sizeof(header));
  return header.layout;
}

const char* ReadPayloadHeader(const void* data, size_t bytes,
                              PayloadHeader* header) {
  if (data == nullptr) return "payload is missing (null pointer)";
  if (reinterpret_cast<uintptr_t>(data) % kPayloadAlignment != 0) {
    return "payload memory is not aligned to 4 bytes";
  }
  if (bytes < sizeof(PayloadHeader)) {
    return "payload is shorter than its header of 128 bytes";
  }
  memcpy(header, data, sizeof(*header));
  const PayloadHeader& h = *header;
  if (memcmp(h.magic, "TFRP", 4) != 0) {
    return "payload does not start with the magic bytes TFRP";
  }
  if (h.version != 1) return "payload version is not 1, the only one known";
  if (h.header_bytes != sizeof(PayloadHeader)) {
    return "header_bytes is not 128";
  }
  if (h.layout != kBandedLayout && h.layout != kIrregularLayout) {
    return "layout is not 0 (banded) or 1 (irregular), the only ones known";
  }
  if (h.value_type >= kValueTypes) {
    return "value_type is not 0 (float32), 1 (float16) or 2 (int8), the only "
           "ones known";
  }
  if (h.rows == 0) return "rows is 0, expected at least 1";
  if (h.columns == 0) return "columns is 0, expected at least 1";
  const bool masked = h.layout == kIrregularLayout && h.index_bytes == 0;
  if (!masked && h.index_bytes != IndexBytes(h.rows, h.columns)) {
    return "index_bytes does not fit the shape: expected 2 when rows <= 65535 "
           "and columns <= 65536, else 4; or 0 (a mask) in layout 1";
  }
  if (h.value_type != static_cast<uint32_t>(ValueType::kInt8)) {
    if (h.scale_count != 0 || h.scale_offset != 0) {
      return "scale_offset or scale_count is not 0, but values are not int8";
    }
  } else if (h.scale_count != 1 && h.scale_count != h.rows) {
    return "scale_count of int8 values is neither 1 nor rows";
  }
  if (h.payload_bytes != bytes) {
    return "payload_bytes differs from the size of the buffer: the payload is "
           "truncated or has trailing bytes";
  }
  return nullptr;
}

Values PayloadValues(const PayloadHeader& header, const uint8_t* data) {
  const void* values = data + header.value.offset;
  switch (static_cast<ValueType>(header.value_type)) {
    case ValueType::kFloat32:
      return static_cast<const float*>(values);
    case ValueType::kFloat16:
      return static_cast<const Half*>(values);
    case ValueType::kInt8:
      break;
  }
  return Values(static_cast<const int8_t*>(values),
                reinterpret_cast<const float*>(data + header.scale_offset),
                header.scale_count);
}

const char* CheckPayloadSections(const PayloadHeader& header,
                                 const uint8_t* data,
                                 const ExpectedSection (&expected)[4]) {
  const PayloadSection scale = {header.scale_offset,
                                uint64_t{header.scale_count} * sizeof(float)};
  const ExpectedSection scales = {
      scale, scale.length, 4,
      "scale section is misaligned, overlaps or lies outside the payload",
      nullptr};
  uint64_t end = sizeof(PayloadHeader);
  for (const ExpectedSection& e : expected) {
    if (e.section.length != e.length) return e.length_wrong;
    const bool values = &e == &expected[3];
    if (values && header.scale_count != 0) {
      if (const char* error = CheckPlace(header, data, scales, &end)) {
        return error;
      }
    }
    if (const char* error = CheckPlace(header, data, e, &end)) return error;
  }
  if (end != header.payload_bytes) return "bytes follow the value section";
  const float* number =
      reinterpret_cast<const float*>(data + header.scale_offset);
  for (uint32_t i = 0; i < header.scale_count; ++i) {
    // Not so for NaN either.
    if (!(number[i] > 0 && number[i] < INFINITY)) {
      return "a scale is not a finite number above 0";
    }
  }
  return nullptr;
}

}  // namespace tfrewprune
