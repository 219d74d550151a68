// SPDX-License-Identifier: Apache-2.0
//
// The reading half of PAYLOAD.md: payload bytes -> a checked, non-owning view.
#ifndef TFREWPRUNE_FORMAT_PAYLOAD_H_
#define TFREWPRUNE_FORMAT_PAYLOAD_H_

#include <cstddef>
#include <cstdint>

#include "format/values.h"

namespace tfrewprune {

// A packed weight matrix W [rows x columns] as it lies in the payload. Band b
// holds `band_rows` packed rows (lanes) that share the columns
// band_start[b] .. band_start[b + 1]; lane l of band b is output row
// RowId(b * band_rows + l), and its weight for the n-th stored column is
// value[n * band_rows + l]. All pointers lead into the payload.
struct BandedView {
  uint32_t rows;          // O, output channels
  uint32_t columns;       // K, inputs of one output
  uint32_t band_rows;     // R: 4, 8, 16 or 32
  uint32_t band_count;    // B, may be 0
  uint64_t column_count;  // N, columns of all bands together
  uint32_t index_bytes;   // 2 or 4, width of row_id and column entries
  bool neighbours;        // whether row_id holds the first row of a band alone
  const void* row_id;     // B * R entries, `rows` marks a lane without a row
  const uint32_t* band_start;  // B + 1 entries, ascending, 0 .. N
  const void* column;          // N entries, ascending inside a band
  Values value;                // N * R entries

  uint32_t RowId(uint64_t i) const {
    if (!neighbours) return Index(row_id, i);
    const uint64_t row = uint64_t{Index(row_id, i / band_rows)} + i % band_rows;
    return row < rows ? static_cast<uint32_t>(row) : rows;
  }
  uint32_t Column(uint64_t i) const { return Index(column, i); }

 private:
  uint32_t Index(const void* section, uint64_t i) const {
    return index_bytes == 2 ? static_cast<const uint16_t*>(section)[i]
                            : static_cast<const uint32_t*>(section)[i];
  }
};

// Payload memory must be aligned to this many bytes. PAYLOAD.md promises 64 in
// a file; 4 is what Android's zipalign leaves of that.
inline constexpr size_t kPayloadAlignment = 4;

// The width of row and column numbers.
inline uint32_t IndexBytes(uint32_t rows, uint32_t columns) {
  return rows <= 65535 && columns <= 65536 ? 2 : 4;
}

inline constexpr uint32_t kBandedLayout = 0;
inline constexpr uint32_t kIrregularLayout = 1;

// The layout a payload claims to have, or -1 when it is too short to say.
int64_t PayloadLayout(const void* data, size_t bytes);

// Checks every rule of PAYLOAD.md for layout 0 and fills `view`. Returns
// nullptr when the payload is valid, else a static message that says what is
// wrong and what was expected; `view` is then unusable. Never reads outside
// [data, data + bytes), and after success no index in the view leads outside of
// it either.
const char* ParsePayload(const void* data, size_t bytes, BandedView* view);

// What the bytes say of themselves, for messages about a refused payload.
void DescribePayload(const void* data, size_t bytes, char* text,
                     size_t text_size);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_FORMAT_PAYLOAD_H_
