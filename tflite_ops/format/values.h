// SPDX-License-Identifier: Apache-2.0
//
// The value section of a payload: weights of any type.
#ifndef TFREWPRUNE_FORMAT_VALUES_H_
#define TFREWPRUNE_FORMAT_VALUES_H_

#include <cstddef>

#include "format/half.h"

namespace tfrewprune {

// value_type of PAYLOAD.md.
enum class ValueType : uint32_t { kFloat32 = 0, kFloat16 = 1 };

class Values {
 public:
  Values() = default;
  Values(const float* values) : type_(ValueType::kFloat32), data_(values) {}
  Values(const Half* values) : type_(ValueType::kFloat16), data_(values) {}
  Values(ValueType type, const void* values) : type_(type), data_(values) {}

  ValueType type() const { return type_; }
  const void* data() const { return data_; }
  // Of one value.
  static size_t Bytes(ValueType type) {
    return type == ValueType::kFloat32 ? sizeof(float) : sizeof(Half);
  }
  size_t bytes() const { return Bytes(type_); }

  // nullptr where they are of another type.
  const float* floats() const {
    return type_ == ValueType::kFloat32 ? static_cast<const float*>(data_)
                                        : nullptr;
  }
  const Half* halves() const {
    return type_ == ValueType::kFloat16 ? static_cast<const Half*>(data_)
                                        : nullptr;
  }
  // One of them, whatever their type: not for inner loops.
  float operator[](uint64_t i) const {
    return type_ == ValueType::kFloat32
               ? static_cast<const float*>(data_)[i]
               : ToFloat(static_cast<const Half*>(data_)[i]);
  }

 private:
  ValueType type_ = ValueType::kFloat32;
  const void* data_ = nullptr;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_FORMAT_VALUES_H_
