// SPDX-License-Identifier: Apache-2.0
//
// Seeded mutations of the golden payloads through the fuzz target. Runs for
// TFREWPRUNE_FUZZ_SECONDS (default 3); meant for the sanitizer builds. A crash
// is repeated with TFREWPRUNE_FUZZ_SEED set to the seed printed last.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "fuzz_target.h"
#include "golden.h"

namespace tfrewprune {
namespace {

std::string Options(const int32_t (&values)[16]) {
  return std::string(reinterpret_cast<const char*>(values), 64);
}

// Well-formed inputs: every golden payload as both operators.
std::vector<std::string> Corpus() {
  std::vector<std::string> corpus;
  std::vector<std::pair<std::string, uint32_t>> payloads;
  for (const GoldenPayload& golden : GoldenPayloads()) {
    payloads.push_back({golden.name, golden.columns});
  }
  for (const GoldenIrregular& golden : GoldenIrregulars()) {
    payloads.push_back({golden.name, golden.columns});
  }
  for (const auto& golden : payloads) {
    const std::string payload = ReadGolden(golden.first + ".payload");
    const int32_t columns = static_cast<int32_t>(golden.second);
    std::vector<std::pair<int, int>> kernels = {{1, 1}};
    if (columns % 9 == 0) kernels.push_back({3, 3});
    if (columns % 4 == 0) kernels.push_back({2, 2});
    for (auto [h, w] : kernels) {
      for (int same : {0, 1}) {
        corpus.push_back(std::string("\x00\x02\x08\x07\x02\x00\x01\x01", 8) +
                         Options({0x4F504654, 1, 0, 1, h, w, columns / (h * w),
                                  1, 2, 2, 1, 1 - same, 0, 0, 0, 0}) +
                         payload);
        // A large image; vast strides and dilations.
        corpus.push_back(std::string("\x00\x01\x40\x21\x01\x00\x01\x01", 8) +
                         Options({0x4F504654, 1, 0, 0, h, w, columns / (h * w),
                                  1, 1, 1, 1, 1 - same, 0, 0, 0, 0}) +
                         payload);
        corpus.push_back(
            std::string("\x00\x01\x40\x21\x01\x00\x01\x01", 8) +
            Options({0x4F504654, 1, 0, 0, h, w, columns / (h * w), 1 << 20,
                     1 << 20, 1, 1, 1 - same, 0, 0, 0, 0}) +
            payload);
        corpus.push_back(std::string("\x00\x01\x40\x21\x01\x00\x01\x01", 8) +
                         Options({0x4F504654, 1, 0, 0, h, w, columns / (h * w),
                                  3, 1, 300, 20000, 1 - same, 0, 0, 0, 0}) +
                         payload);
      }
    }
    for (int keep : {0, 1}) {
      corpus.push_back(std::string("\x01\x03\x01\x01\x01\x00\x01\x01", 8) +
                       Options({0x4F504654, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0, keep,
                                0, 0, 0, 0}) +
                       payload);
    }
  }
  for (const char* list : {"refused.txt", "irregular_refused.txt"}) {
    for (const std::string& name : GoldenNames(list)) {
      corpus.push_back(std::string("\x01\x01\x01\x01\x01\x00\x00\x00", 8) +
                       Options({0x4F504654, 1, 1}) +
                       ReadGolden(name + ".refused"));
    }
  }
  return corpus;
}

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  std::string Mutate(const std::vector<std::string>& corpus) {
    std::string input = corpus[Below(corpus.size())];
    const int changes = static_cast<int>(Below(4));
    for (int i = 0; i < changes; ++i) Change(&input);
    // Half of the time only control bytes differ: the arithmetic is the target.
    if (changes == 0 || Below(2) == 0) input[Below(8)] = Byte();
    return input;
  }

 private:
  size_t Below(size_t n) { return n == 0 ? 0 : random_() % n; }
  char Byte() { return static_cast<char>(random_()); }

  void Change(std::string* input) {
    // The head (options and header) decides most; aim there more often.
    const size_t reach =
        Below(3) == 0 ? input->size() : std::min<size_t>(input->size(), 280);
    const size_t at = Below(reach);
    switch (Below(6)) {
      case 0:
        (*input)[at] = static_cast<char>((*input)[at] ^ (1 << Below(8)));
        break;
      case 1:
        (*input)[at] = Byte();
        break;
      case 2: {  // an interesting 32-bit value at an aligned place
        const uint32_t values[] = {
            0,  1,     2,       3,          4,          16,        32,
            64, 65535, 1 << 20, 0x7fffffff, 0x80000000, 0xffffffff};
        const uint32_t value = values[Below(13)];
        const size_t place = at / 4 * 4;
        if (place + 4 <= input->size()) memcpy(&(*input)[place], &value, 4);
        break;
      }
      case 3:  // a small step of a 16-bit number
        (*input)[at] = static_cast<char>((*input)[at] + (Below(2) ? 1 : -1));
        break;
      case 4:
        if (Below(4) == 0) input->resize(8 + Below(input->size() - 7));
        break;
      default: {  // a piece of the input over another
        const size_t length = std::min(input->size() - at, 1 + Below(16));
        const std::string piece = input->substr(Below(input->size()), length);
        input->replace(at, piece.size(), piece);
        if (Below(8) != 0) break;
        input->append(piece);
      }
    }
  }

  std::mt19937 random_;
};

TEST(Fuzz, TheCorpusReachesInvoke) {
  const int64_t before = FuzzInvocations();
  for (const std::string& input : Corpus()) {
    AlignedBytes bytes(input);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  EXPECT_GE(FuzzInvocations() - before, 60);
}

TEST(Fuzz, SeededMutationsNeverCrash) {
  const char* seconds = getenv("TFREWPRUNE_FUZZ_SECONDS");
  const char* start = getenv("TFREWPRUNE_FUZZ_SEED");
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::milliseconds(static_cast<int64_t>(
                       1000 * (seconds == nullptr ? 3.0 : atof(seconds))));
  const std::vector<std::string> corpus = Corpus();
  uint32_t seed = start == nullptr ? 1 : static_cast<uint32_t>(atol(start));
  const int64_t before = FuzzInvocations();
  int64_t inputs = 0;
  for (; std::chrono::steady_clock::now() < end; ++seed) {
    // A batch is repeatable from its seed alone.
    Mutator mutator(seed);
    if (start != nullptr) printf("seed %u\n", seed), fflush(stdout);
    for (int i = 0; i < 100; ++i, ++inputs) {
      AlignedBytes bytes(mutator.Mutate(corpus));
      LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
    if (start != nullptr) break;
  }
  printf("%lld inputs to seed %u, %lld of them invoked\n",
         static_cast<long long>(inputs), seed,
         static_cast<long long>(FuzzInvocations() - before));
  EXPECT_GT(inputs, 0);
}

}  // namespace
}  // namespace tfrewprune
