// SPDX-License-Identifier: Apache-2.0
#include "kernels/irregular.h"

namespace tfrewprune {

const IrregularKernels* SelectIrregularKernels(Isa isa) {
  if (!IsaSupported(isa)) return nullptr;
  switch (isa) {
#if defined(TFREWPRUNE_PORTABLE)
    case Isa::kPortable:
      return PortableIrregularKernels();
#endif
#if defined(__x86_64__)
    case Isa::kAvx2:
      return Avx2IrregularKernels();
    case Isa::kAvx512:
      return Avx512IrregularKernels();
#elif defined(TFREWPRUNE_NEON)
    case Isa::kNeon:
      return NeonIrregularKernels();
#endif
    default:
      return nullptr;
  }
}

}  // namespace tfrewprune
