// SPDX-License-Identifier: Apache-2.0
#include "kernels/recurrent_generic.h"
#include "simd/vec_portable.h"

namespace tfrewprune {

const CellKernels* PortableCellKernels() {
  return &kCellKernels<F32x4Portable>;
}

}  // namespace tfrewprune
