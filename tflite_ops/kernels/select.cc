// SPDX-License-Identifier: Apache-2.0
#include "kernels/select.h"

#include "kernels/reference.h"

namespace tfrewprune {
namespace {

constexpr Kernels OfReference() {
  Kernels kernels = {};
  kernels.isa = Isa::kReference;
  kernels.lanes = 1;
  kernels.add = ReferenceAdd;
  kernels.widen = ReferenceWiden;
  kernels.widen_integers = ReferenceWidenIntegers;
  return kernels;
}

constexpr Kernels kReferenceKernels = OfReference();

}  // namespace

const Kernels* SelectKernels(Isa isa) {
  if (!IsaSupported(isa)) return nullptr;
  switch (isa) {
    case Isa::kReference:
      return &kReferenceKernels;
#if defined(TFREWPRUNE_PORTABLE)
    case Isa::kPortable:
      return PortableKernels();
#endif
#if defined(__x86_64__)
    case Isa::kAvx2:
      return Avx2Kernels();
    case Isa::kAvx512:
      return Avx512Kernels();
#elif defined(TFREWPRUNE_NEON)
    case Isa::kNeon:
      return NeonKernels();
#endif
    default:
      return nullptr;
  }
}

const Kernels* SelectHalfKernels(Isa isa) {
#if defined(__aarch64__) && defined(TFREWPRUNE_NEON)
  if (isa == Isa::kNeon && HalfArithmetic()) return NeonHalfKernels();
#endif
  (void)isa;
  return nullptr;
}

GemvKernel SelectGemv(const Kernels& kernels, uint32_t band_rows,
                      uint32_t index_bytes, ValueType value_type) {
  for (int i = 0; i < kernels.gemv_count; ++i) {
    const GemvKernelRow& row = kernels.gemv[i];
    if (row.band_rows == static_cast<int>(band_rows) &&
        row.index_bytes == static_cast<int>(index_bytes) &&
        row.value_type == value_type) {
      return row.kernel;
    }
  }
  return nullptr;
}

}  // namespace tfrewprune
