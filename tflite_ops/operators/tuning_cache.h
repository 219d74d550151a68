// SPDX-License-Identifier: Apache-2.0
//
// Choices that were measured, in memory and in a small text file. Only a file
// that this CPU and this version of the library wrote counts, and only whole.
#ifndef TFREWPRUNE_OPERATORS_TUNING_CACHE_H_
#define TFREWPRUNE_OPERATORS_TUNING_CACHE_H_

#include "operators/buffer.h"
#include "operators/driver.h"

namespace tfrewprune {

// 64 bits of some bytes, for keys; not for hostile ones.
uint64_t Hash(const void* data, size_t bytes, uint64_t seed = 0);

// Of what /proc/cpuinfo says this CPU is: models of all its kinds of cores.
uint64_t CpuHash();

class TuningCache {
 public:
  // Entries a file holds at most.
  static constexpr uint32_t kMost = 4096;

  // nullptr where there is none.
  const Choice* Find(uint64_t key) const;
  // Replaces an entry of the same key; forgets it where memory is out.
  void Add(uint64_t key, const Choice& choice);
  int count() const { return static_cast<int>(count_); }

  // Adds what the file holds and this does not; tells how many. A file that is
  // missing, damaged, or of another CPU or version holds nothing.
  int Read(const char* path);
  // Writes all entries and those that the file got meanwhile; a reader finds
  // the old file or the new one. nullptr, or what went wrong.
  const char* Write(const char* path);

 private:
  struct Entry {
    uint64_t key;
    Choice choice;
  };
  Buffer<Entry> entry_;
  uint32_t count_ = 0, capacity_ = 0;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_TUNING_CACHE_H_
