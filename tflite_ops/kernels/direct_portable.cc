// SPDX-License-Identifier: Apache-2.0
#include "simd/vec_portable.h"
#define TFREWPRUNE_KERNELS_PORTABLE
#define TFREWPRUNE_ISA_VALUE Isa::kPortable
#define TFREWPRUNE_ISA_VECTOR F32x4Portable
#define TFREWPRUNE_PLANES_TABLE nullptr, nullptr, nullptr, 0
#include "kernels/instantiate.h"

namespace tfrewprune {

const Kernels* PortableKernels() { return &kKernels; }

}  // namespace tfrewprune
