// SPDX-License-Identifier: Apache-2.0
#include "kernels/recurrent.h"

namespace tfrewprune {

const CellKernels* SelectCellKernels(Isa isa) {
  switch (isa) {
#if defined(TFREWPRUNE_PORTABLE)
    case Isa::kPortable:
      return PortableCellKernels();
#endif
#if defined(__x86_64__)
    case Isa::kAvx2:
      return Avx2CellKernels();
    case Isa::kAvx512:
      return Avx512CellKernels();
#elif defined(TFREWPRUNE_NEON)
    case Isa::kNeon:
      return NeonCellKernels();
#endif
    default:
      return ReferenceCellKernels();
  }
}

}  // namespace tfrewprune
