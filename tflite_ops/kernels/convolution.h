// SPDX-License-Identifier: Apache-2.0
//
// What a convolution is: its geometry and its fused activation.
#ifndef TFREWPRUNE_KERNELS_CONVOLUTION_H_
#define TFREWPRUNE_KERNELS_CONVOLUTION_H_

#include <cstdint>

namespace tfrewprune {

// NHWC. Output pixel (y, x) reads input pixels
// (y * stride_h - pad_top + i * dilation_h, x * stride_w - pad_left + j *
// dilation_w) for i < kernel_h, j < kernel_w; pixels outside are zero.
struct ConvGeometry {
  int batch, in_h, in_w, in_c;
  int out_h, out_w;
  int kernel_h, kernel_w;
  int stride_h, stride_w;
  int dilation_h, dilation_w;
  int pad_top, pad_left;
};

// The kernel rows [begin, end) that lie inside of the image at output row y.
void KernelRowsInside(const ConvGeometry& geometry, int y, int* begin,
                      int* end);

// nullptr, or why there is no such convolution.
const char* CheckPositive(const ConvGeometry& geometry);

// nullptr, or why an image is too large for offsets of 32 bits; `rows` output
// channels.
const char* CheckImages(const ConvGeometry& geometry, uint32_t rows);

// True when an output pixel reads the input pixel at its place and no other.
bool IsPointwise(const ConvGeometry& geometry);

// Pixels of a pointwise convolution do not know of each other: makes those of
// all images one row. Leaves others as they are. nullptr, or what went wrong.
const char* JoinPixels(ConvGeometry* geometry);

// TFLite's TfLiteFusedActivation.
enum class Activation : int32_t {
  kNone = 0,
  kRelu,
  kReluN1To1,
  kRelu6,
  kTanh,
  kSignBit,
};

// The interval an activation clamps to; the whole line for those that are
// another function.
void ActivationRange(Activation activation, float* minimum, float* maximum);

// True for activations that are not a clamp: apply them with Activate().
bool NeedsPostPass(Activation activation);

// values[i] = activation(values[i]), for every activation.
void Activate(Activation activation, float* values, int64_t count);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_CONVOLUTION_H_
