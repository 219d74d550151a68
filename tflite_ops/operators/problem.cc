// SPDX-License-Identifier: Apache-2.0
#include "operators/problem.h"

#include "operators/integers.h"

namespace tfrewprune {
namespace {

// Bytes, and times those of weights and activations.
constexpr double kAffordable = 16 << 20, kAffordableTimes = 8;

}  // namespace

Residual Problem::MakeResidual() const {
  Residual made;
  made.add = kernels->add;
  ActivationRange(activation, &made.minimum, &made.maximum);
  return made;
}

double Problem::ActivationBytes() const {
  const ConvGeometry& g = geometry;
  return sizeof(float) * g.batch *
         (double(g.in_h) * g.in_w * g.in_c + double(pixels()) * rows());
}

bool Problem::Affords(double bytes) const {
  const double weights = bands != nullptr
                             ? double(bands->column_count) * bands->band_rows
                             : double(segments->weight_count);
  return bytes <= kAffordable + kAffordableTimes * (sizeof(float) * weights +
                                                    ActivationBytes());
}

ConvGeometry RowOfPixels(int batch, uint32_t columns) {
  ConvGeometry g = {};
  g.batch = g.in_h = g.out_h = 1;
  g.in_w = g.out_w = batch;
  g.in_c = static_cast<int>(columns);
  g.kernel_h = g.kernel_w = 1;
  g.stride_h = g.stride_w = 1;
  g.dilation_h = g.dilation_w = 1;
  return g;
}

const char* CheckProblem(const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  if (const char* error = CheckPositive(g)) return error;
  const uint64_t taps = uint64_t(g.kernel_h) * g.kernel_w;
  if (problem.bands != nullptr && taps * g.in_c != problem.columns()) {
    return "payload does not fit the convolution: its columns must be kernel "
           "height x kernel width x input channels";
  }
  if (problem.segments != nullptr &&
      (taps != problem.segments->taps || taps * g.in_c != problem.columns())) {
    return "payload does not fit the convolution: its taps must be kernel "
           "height x kernel width, its columns taps x input channels";
  }
  return CheckImages(g, problem.rows());
}

double KernelRowShare(const ConvGeometry& g) {
  if (g.out_h == 0) return 0;
  double inside = 0;
  for (int tap = 0; tap < g.kernel_h; ++tap) {
    // Output rows y with 0 <= y * stride + offset < in_h.
    const int64_t offset = int64_t{tap} * g.dilation_h - g.pad_top;
    const int64_t begin = DivideUp(Max(-offset, 0), g.stride_h);
    const int64_t end =
        Min(g.out_h, DivideUp(Max(g.in_h - offset, 0), g.stride_h));
    inside += static_cast<double>(Max(end - begin, 0));
  }
  return inside / g.kernel_h / g.out_h;
}

}  // namespace tfrewprune
