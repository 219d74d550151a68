// SPDX-License-Identifier: Apache-2.0
//
// The flat kernels of AVX-512, instantiated apart from the others.
#ifndef TFREWPRUNE_KERNELS_FLAT_AVX512_H_
#define TFREWPRUNE_KERNELS_FLAT_AVX512_H_

#include "kernels/flat.h"

namespace tfrewprune {

inline constexpr int kFlatAvx512Count = 2;
extern const FlatKernelRow kFlatAvx512[kFlatAvx512Count];

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_FLAT_AVX512_H_
