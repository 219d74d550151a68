// SPDX-License-Identifier: Apache-2.0
//
// Shape rules of our operators, TFLite's own for CONV_2D and FULLY_CONNECTED.
#ifndef TFREWPRUNE_DELEGATE_SHAPES_H_
#define TFREWPRUNE_DELEGATE_SHAPES_H_

#include <cstddef>
#include <cstdint>

#include "delegate/tflite_abi.h"
#include "format/op_options.h"
#include "kernels/convolution.h"

namespace tfrewprune {

inline constexpr int kMaxRank = 8;
inline constexpr size_t kShapeText = 128;

struct Shape {
  int rank = 0;
  int dims[kMaxRank] = {};

  // Product of the dims; -1 when one is negative or the product exceeds
  // INT32_MAX, the most elements an operator takes.
  int64_t elements() const;
  bool Same(const Shape& other) const;
  // "[1, 28, 28, 3]" into `text`, which has kShapeText bytes; returns it.
  const char* Print(char* text) const;
};

// Rank kMaxRank + 1 marks a tensor with more dimensions than that.
Shape ShapeOf(const tflite::Tensor& tensor);

// Geometry and output shape of a Conv2D with `rows` output channels on `input`.
// Returns false with a message when the input does not fit.
bool Conv2DShape(const OpOptions& options, uint32_t rows, const Shape& input,
                 ConvGeometry* geometry, Shape* output, char* error,
                 size_t error_size);

// Batch (pixels) and output shape of a FullyConnected [rows x columns].
bool FullyConnectedShape(const OpOptions& options, uint32_t rows,
                         uint32_t columns, const Shape& input, int* batch,
                         Shape* output, char* error, size_t error_size);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_SHAPES_H_
