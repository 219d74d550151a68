// SPDX-License-Identifier: Apache-2.0
//
// The planar kernels of AVX-512, instantiated apart from the direct kernels.
#ifndef TFREWPRUNE_KERNELS_PLANAR_AVX512_H_
#define TFREWPRUNE_KERNELS_PLANAR_AVX512_H_

#include "kernels/planar.h"

namespace tfrewprune {

inline constexpr int kPlanarAvx512Count = 28;
extern const PlanarKernelRow kPlanarAvx512[kPlanarAvx512Count];
void TransposePlanesAvx512(const TransposeJob& job);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_PLANAR_AVX512_H_
