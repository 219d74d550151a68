// SPDX-License-Identifier: Apache-2.0
//
// ReferenceConv2D for irregular weights. Also the way out for kernels so vast
// that the fast kernels' 16-bit offsets do not reach across them.
#ifndef TFREWPRUNE_KERNELS_IRREGULAR_REFERENCE_H_
#define TFREWPRUNE_KERNELS_IRREGULAR_REFERENCE_H_

#include "format/irregular.h"
#include "kernels/convolution.h"

namespace tfrewprune {

void ReferenceIrregularConv2D(const IrregularView& weights,
                              const ConvGeometry& geometry,
                              Activation activation, const float* input,
                              const float* bias, float* output);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_IRREGULAR_REFERENCE_H_
