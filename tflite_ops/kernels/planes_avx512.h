// SPDX-License-Identifier: Apache-2.0
//
// Planes by AVX-512.
#ifndef TFREWPRUNE_KERNELS_PLANES_AVX512_H_
#define TFREWPRUNE_KERNELS_PLANES_AVX512_H_

#include "kernels/planes.h"

namespace tfrewprune {

void TransposePlanesAvx512(const TransposeJob& job);
void PlaneOffsetsAvx512(const OffsetsJob& job);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_PLANES_AVX512_H_
