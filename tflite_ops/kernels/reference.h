// SPDX-License-Identifier: Apache-2.0
//
// The oracle: plain loops over the payload, sums in double, selectable at run
// time (Isa::kReference).
#ifndef TFREWPRUNE_KERNELS_REFERENCE_H_
#define TFREWPRUNE_KERNELS_REFERENCE_H_

#include "format/payload.h"
#include "kernels/convolution.h"

namespace tfrewprune {

// output[n, y, x, o] = activation(bias[o] + sum over (i, j, c) of
//   input[n, y*stride - pad + i*dilation, ..., c] * W[o, (i, j, c)])
// `bias` may be nullptr. A fully connected layer is batch x 1 x 1 pixels.
void ReferenceConv2D(const BandedView& weights, const ConvGeometry& geometry,
                     Activation activation, const float* input,
                     const float* bias, float* output);

// The contract of AddKernel (kernels/kernels.h).
void ReferenceAdd(const float* residual, int64_t count, float minimum,
                  float maximum, float* y);

// The contract of WidenKernel (kernels/kernels.h).
void ReferenceWiden(const Half* from, uint64_t count, float* to);

// The contract of WidenIntegersKernel.
void ReferenceWidenIntegers(const int8_t* from, uint64_t count,
                            const float* scale, float* to);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_REFERENCE_H_
