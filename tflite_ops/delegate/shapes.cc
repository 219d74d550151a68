// SPDX-License-Identifier: Apache-2.0
#include "delegate/shapes.h"

#include <cstdio>

namespace tfrewprune {
namespace {

// Output length and leading padding along one axis, as in TFLite's
// ComputePaddingHeightWidth, and the padded length that the taps reach.
// Arguments fit int; products are taken in 64 bits.
struct Axis {
  int64_t length;
  int64_t pad;
  int64_t reach;
};

Axis ConvolveAxis(int64_t in, int64_t kernel, int64_t stride, int64_t dilation,
                  bool same) {
  const int64_t extent = (kernel - 1) * dilation + 1;
  if (!same) return {in < extent ? 0 : (in - extent) / stride + 1, 0, in};
  const int64_t out = (in + stride - 1) / stride;
  const int64_t reach = (out - 1) * stride + extent;
  return {out, reach > in ? (reach - in) / 2 : 0, reach};
}

}  // namespace

bool Shape::Same(const Shape& other) const {
  if (rank != other.rank || rank > kMaxRank) return false;
  for (int i = 0; i < rank; ++i) {
    if (dims[i] != other.dims[i]) return false;
  }
  return true;
}

int64_t Shape::elements() const {
  int64_t product = 1;
  bool zero = false;
  for (int i = 0; i < rank && i < kMaxRank; ++i) {
    if (dims[i] < 0) return -1;
    zero = zero || dims[i] == 0;
    if (dims[i] > 0) product *= dims[i];
    if (product > INT32_MAX) return -1;
  }
  return zero ? 0 : product;
}

const char* Shape::Print(char* text) const {
  size_t used = 0;
  for (int i = 0; i < rank && i < kMaxRank; ++i) {
    used += snprintf(text + used, kShapeText - used, i == 0 ? "[%d" : ", %d",
                     dims[i]);
  }
  snprintf(text + used, kShapeText - used,
           rank == 0         ? "[]"
           : rank > kMaxRank ? ", ...]"
                             : "]");
  return text;
}

Shape ShapeOf(const tflite::Tensor& tensor) {
  Shape shape;
  if (tensor.dims == nullptr) return shape;
  for (int i = 0; i < tensor.dims->size && i < kMaxRank; ++i) {
    shape.dims[i] = tensor.dims->data[i];
  }
  shape.rank = tensor.dims->size > kMaxRank ? kMaxRank + 1 : tensor.dims->size;
  return shape;
}

bool Conv2DShape(const OpOptions& options, uint32_t rows, const Shape& input,
                 ConvGeometry* geometry, Shape* output, char* error,
                 size_t error_size) {
  char text[kShapeText];
  if (input.rank != 4 || input.dims[3] != options.in_channels) {
    snprintf(error, error_size,
             "the activation must be [batch, height, width, %d]. Received: %s.",
             options.in_channels, input.Print(text));
    return false;
  }
  if (input.elements() < 0) {
    snprintf(error, error_size,
             "the activation must have less than 2^31 values. Received: %s.",
             input.Print(text));
    return false;
  }
  const Axis y = ConvolveAxis(input.dims[1], options.kernel_h, options.stride_h,
                              options.dilation_h, options.same_padding);
  const Axis x = ConvolveAxis(input.dims[2], options.kernel_w, options.stride_w,
                              options.dilation_w, options.same_padding);
  if (y.length < 1 || x.length < 1) {
    snprintf(error, error_size,
             "a %dx%d kernel with dilation %dx%d leaves no output pixel. "
             "Received: activation %s.",
             options.kernel_h, options.kernel_w, options.dilation_h,
             options.dilation_w, input.Print(text));
    return false;
  }
  // Products of the reach of the taps must stay far from overflow.
  if (y.reach > INT32_MAX || x.reach > INT32_MAX ||
      y.reach * x.reach > INT32_MAX / input.dims[3]) {
    snprintf(error, error_size,
             "the padded activation of a %dx%d kernel with dilation %dx%d must "
             "have less than 2^31 values. Received: activation %s.",
             options.kernel_h, options.kernel_w, options.dilation_h,
             options.dilation_w, input.Print(text));
    return false;
  }
  output->rank = 4;
  output->dims[0] = input.dims[0];
  output->dims[1] = static_cast<int>(y.length);
  output->dims[2] = static_cast<int>(x.length);
  output->dims[3] = static_cast<int>(rows);
  if (output->elements() < 0) {
    snprintf(error, error_size,
             "the output must have less than 2^31 values. Received: output "
             "%s.",
             output->Print(text));
    return false;
  }
  *geometry = {
      input.dims[0],           input.dims[1],          input.dims[2],
      input.dims[3],           output->dims[1],        output->dims[2],
      options.kernel_h,        options.kernel_w,       options.stride_h,
      options.stride_w,        options.dilation_h,     options.dilation_w,
      static_cast<int>(y.pad), static_cast<int>(x.pad)};
  return true;
}

bool FullyConnectedShape(const OpOptions& options, uint32_t rows,
                         uint32_t columns, const Shape& input, int* batch,
                         Shape* output, char* error, size_t error_size) {
  char text[kShapeText];
  const int64_t elements = input.elements();
  if (input.rank < 1 || input.rank > kMaxRank || elements < 0) {
    snprintf(error, error_size,
             "the activation must have 1 to %d dimensions and less than 2^31 "
             "values. Received: %s.",
             kMaxRank, input.Print(text));
    return false;
  }
  if (options.keep_num_dims
          ? static_cast<uint32_t>(input.dims[input.rank - 1]) != columns
          : elements % columns != 0) {
    snprintf(error, error_size,
             options.keep_num_dims
                 ? "the last dimension of the activation must be %u. "
                   "Received: %s."
                 : "the activation must be [batch, %u] when flattened. "
                   "Received: %s.",
             columns, input.Print(text));
    return false;
  }
  *batch = static_cast<int>(elements / columns);
  if (options.keep_num_dims) {
    *output = input;
  } else {
    output->rank = 2;
    output->dims[0] = *batch;
  }
  output->dims[output->rank - 1] = static_cast<int>(rows);
  if (output->elements() < 0) {
    snprintf(error, error_size,
             "the output must have less than 2^31 values. Received: output "
             "%s.",
             output->Print(text));
    return false;
  }
  return true;
}

}  // namespace tfrewprune
