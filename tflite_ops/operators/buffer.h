// SPDX-License-Identifier: Apache-2.0
//
// An owned, 64-byte aligned array without constructors (no C++ run-time).
#ifndef TFREWPRUNE_OPERATORS_BUFFER_H_
#define TFREWPRUNE_OPERATORS_BUFFER_H_

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace tfrewprune {

// Bytes that all buffers of the process hold now.
inline uint64_t held_bytes = 0;

template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { Release(); }

  // Replaces the content by `count` zeroed elements. False when memory is out
  // or count * sizeof(T) does not fit.
  bool Allocate(uint64_t count) {
    Release();
    if (count > (UINT64_MAX >> 8) / sizeof(T)) return false;
    const uint64_t bytes = (count * sizeof(T) + 63) / 64 * 64 + 64;
    if (bytes != static_cast<size_t>(bytes)) return false;
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, static_cast<size_t>(bytes)) != 0) {
      return false;
    }
    memset(memory, 0, static_cast<size_t>(bytes));
    data_ = static_cast<T*>(memory);
    bytes_ = bytes;
    __atomic_fetch_add(&held_bytes, bytes_, __ATOMIC_RELAXED);
    return true;
  }

  void Swap(Buffer* other) {
    T* data = data_;
    data_ = other->data_;
    other->data_ = data;
    const uint64_t bytes = bytes_;
    bytes_ = other->bytes_;
    other->bytes_ = bytes;
  }

  T* get() { return data_; }
  const T* get() const { return data_; }
  T& operator[](uint64_t i) { return data_[i]; }
  const T& operator[](uint64_t i) const { return data_[i]; }

 private:
  void Release() {
    free(data_);
    data_ = nullptr;
    __atomic_fetch_sub(&held_bytes, bytes_, __ATOMIC_RELAXED);
    bytes_ = 0;
  }

  T* data_ = nullptr;
  uint64_t bytes_ = 0;
};

inline constexpr const char* kOutOfMemory =
    "out of memory: could not allocate the operator's tables and scratch";

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_BUFFER_H_
