// SPDX-License-Identifier: Apache-2.0
//
// What the layouts of PAYLOAD.md share: 128 header bytes and four sections.
#ifndef TFREWPRUNE_FORMAT_PAYLOAD_HEADER_H_
#define TFREWPRUNE_FORMAT_PAYLOAD_HEADER_H_

#include <cstddef>
#include <cstdint>

#include "format/values.h"

namespace tfrewprune {

struct PayloadSection {
  uint64_t offset;
  uint64_t length;
};

// Field for field. Names are layout 0's; layout 1 reads `band_rows` as taps,
// `band_count` as segment_count, `column_count` as weight_count, `flags` as
// chunk_channels and `band_start` as segment_start.
struct PayloadHeader {
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
  PayloadSection row_id;
  PayloadSection band_start;
  PayloadSection column;
  PayloadSection value;
  uint64_t payload_bytes;
  uint32_t scale_offset;
  uint32_t scale_count;
};
static_assert(sizeof(PayloadHeader) == 128, "PAYLOAD.md fixes the header");

struct ExpectedSection {
  const PayloadSection& section;
  uint64_t length;
  uint64_t alignment;
  const char* placed_wrong;  // messages
  const char* length_wrong;
};

// The value section of a payload whose header was checked.
Values PayloadValues(const PayloadHeader& header, const uint8_t* data);

// Copies the header of an aligned payload and checks what all layouts share
// (but not where sections lie).
const char* ReadPayloadHeader(const void* data, size_t bytes,
                              PayloadHeader* header);

// Sections, the scale before the values among them, lie in order, aligned,
// without overlap and inside the payload, with the expected lengths, and only
// zeros between them; scales are numbers above 0.
const char* CheckPayloadSections(const PayloadHeader& header,
                                 const uint8_t* data,
                                 const ExpectedSection (&expected)[4]);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_FORMAT_PAYLOAD_HEADER_H_
