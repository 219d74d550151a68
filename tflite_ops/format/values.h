// SPDX-License-Identifier: Apache-2.0
//
// The value section of a payload: weights of any type.
#ifndef TFREWPRUNE_FORMAT_VALUES_H_
#define TFREWPRUNE_FORMAT_VALUES_H_

#include <cstddef>

#include "format/half.h"

namespace tfrewprune {

// value_type of PAYLOAD.md.
enum class ValueType : uint32_t { kFloat32 = 0, kFloat16 = 1, kInt8 = 2 };
inline constexpr uint32_t kValueTypes = 3;

class Values {
 public:
  Values() = default;
  Values(const float* values) : type_(ValueType::kFloat32), data_(values) {}
  Values(const Half* values) : type_(ValueType::kFloat16), data_(values) {}
  // A weight is `values` times a scale: of its output row, or of all of them
  // (`scales` 1).
  Values(const int8_t* values, const float* scale, uint32_t scales)
      : type_(ValueType::kInt8),
        scales_(scales),
        data_(values),
        scale_(scale) {}

  ValueType type() const { return type_; }
  const void* data() const { return data_; }
  // Of one value.
  static size_t Bytes(ValueType type) {
    return type == ValueType::kFloat32   ? sizeof(float)
           : type == ValueType::kFloat16 ? sizeof(Half)
                                         : sizeof(int8_t);
  }
  size_t bytes() const { return Bytes(type_); }

  // nullptr where they are of another type.
  const float* floats() const { return As<float>(ValueType::kFloat32); }
  const Half* halves() const { return As<Half>(ValueType::kFloat16); }
  const int8_t* integers() const { return As<int8_t>(ValueType::kInt8); }

  // What the values of an output row are to be multiplied with.
  float Scale(uint32_t row) const {
    return scale_ == nullptr ? 1.0f : scale_[scales_ == 1 ? 0 : row];
  }
  // One of them before that, whatever their type: not for inner loops.
  float operator[](uint64_t i) const {
    switch (type_) {
      case ValueType::kFloat32:
        return static_cast<const float*>(data_)[i];
      case ValueType::kFloat16:
        return ToFloat(static_cast<const Half*>(data_)[i]);
      case ValueType::kInt8:
        break;
    }
    return static_cast<const int8_t*>(data_)[i];
  }

 private:
  template <class T>
  const T* As(ValueType type) const {
    return type_ == type ? static_cast<const T*>(data_) : nullptr;
  }

  ValueType type_ = ValueType::kFloat32;
  uint32_t scales_ = 0;
  const void* data_ = nullptr;
  const float* scale_ = nullptr;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_FORMAT_VALUES_H_
