// SPDX-License-Identifier: Apache-2.0
#include "format/payload_header.h"

#include <cstring>

#include "format/payload.h"

namespace tfrewprune {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "payload integers are little-endian and read in place");

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
  if (h.value_type != static_cast<uint32_t>(ValueType::kFloat32) &&
      h.value_type != static_cast<uint32_t>(ValueType::kFloat16)) {
    return "value_type is not 0 (float32) or 1 (float16), the only ones known";
  }
  if (h.rows == 0) return "rows is 0, expected at least 1";
  if (h.columns == 0) return "columns is 0, expected at least 1";
  const bool narrow = h.rows <= 65535 && h.columns <= 65536;
  if (h.index_bytes != (narrow ? 2u : 4u)) {
    return "index_bytes does not fit the shape: expected 2 when rows <= 65535 "
           "and columns <= 65536, else 4";
  }
  if (h.reserved != 0) return "the reserved header field is not 0";
  if (h.payload_bytes != bytes) {
    return "payload_bytes differs from the size of the buffer: the payload is "
           "truncated or has trailing bytes";
  }
  return nullptr;
}

Values PayloadValues(const PayloadHeader& header, const uint8_t* data) {
  return Values(static_cast<ValueType>(header.value_type),
                data + header.value.offset);
}

const char* CheckPayloadSections(const PayloadHeader& header,
                                 const uint8_t* data,
                                 const ExpectedSection (&expected)[4]) {
  uint64_t end = sizeof(PayloadHeader);
  for (const ExpectedSection& e : expected) {
    if (e.section.length != e.length) return e.length_wrong;
    if (e.section.offset < end || e.section.offset % e.alignment != 0 ||
        e.section.offset > header.payload_bytes ||
        e.section.length > header.payload_bytes - e.section.offset) {
      return e.placed_wrong;
    }
    for (uint64_t i = end; i < e.section.offset; ++i) {
      if (data[i] != 0) return "a gap between sections holds non-zero bytes";
    }
    end = e.section.offset + e.section.length;
  }
  if (end != header.payload_bytes) return "bytes follow the value section";
  return nullptr;
}

}  // namespace tfrewprune
