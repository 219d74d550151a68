// SPDX-License-Identifier: Apache-2.0
#include "kernels/irregular_generic.h"
#include "simd/square_portable.h"

namespace tfrewprune {

// 16 registers; products and inputs need some.
const IrregularKernels* PortableIrregularKernels() {
  return &kIrregularKernels<SquarePortable, 8, 20 << 10>;
}

}  // namespace tfrewprune
