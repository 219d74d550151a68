// SPDX-License-Identifier: Apache-2.0
//
// The payloads of tests/golden, which the Python tests read too.
#ifndef TFREWPRUNE_TESTS_NATIVE_GOLDEN_H_
#define TFREWPRUNE_TESTS_NATIVE_GOLDEN_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace tfrewprune {

// Bytes at an address with the alignment a payload needs, and not one more
// byte than asked for, so that AddressSanitizer sees the end.
class AlignedBytes {
 public:
  AlignedBytes(const void* data, size_t size) : size_(size) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, size == 0 ? 1 : size) != 0) abort();
    data_.reset(static_cast<uint8_t*>(memory));
    if (size > 0) memcpy(data_.get(), data, size);
  }
  explicit AlignedBytes(const std::string& bytes)
      : AlignedBytes(bytes.data(), bytes.size()) {}
  uint8_t* data() { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { free(p); }
  };
  size_t size_;
  std::unique_ptr<uint8_t, Free> data_;
};

inline std::string ReadGolden(const std::string& name) {
  std::ifstream file(std::string(TFREWPRUNE_GOLDEN "/") + name,
                     std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// First word of each line of a list in tests/golden.
inline std::vector<std::string> GoldenNames(const std::string& list) {
  std::vector<std::string> names;
  std::istringstream lines(ReadGolden(list));
  for (std::string line; std::getline(lines, line);) {
    names.push_back(line.substr(0, line.find(' ')));
  }
  return names;
}

struct GoldenPayload {
  std::string name;
  uint32_t rows, columns, band_rows, band_count;
  uint64_t column_count;
};

inline std::vector<GoldenPayload> GoldenPayloads() {
  std::vector<GoldenPayload> payloads;
  std::istringstream lines(ReadGolden("payloads.txt"));
  GoldenPayload p;
  while (lines >> p.name >> p.rows >> p.columns >> p.band_rows >>
         p.band_count >> p.column_count) {
    payloads.push_back(p);
  }
  return payloads;
}

struct GoldenIrregular {
  std::string name;
  uint32_t rows, columns, taps, chunk_channels, segment_count;
  uint64_t weight_count;
};

inline std::vector<GoldenIrregular> GoldenIrregulars() {
  std::vector<GoldenIrregular> payloads;
  std::istringstream lines(ReadGolden("irregular.txt"));
  GoldenIrregular p;
  while (lines >> p.name >> p.rows >> p.columns >> p.taps >> p.chunk_channels >>
         p.segment_count >> p.weight_count) {
    payloads.push_back(p);
  }
  return payloads;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_TESTS_NATIVE_GOLDEN_H_
