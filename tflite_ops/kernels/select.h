// SPDX-License-Identifier: Apache-2.0
//
// Instruction set -> kernels.
#ifndef TFREWPRUNE_KERNELS_SELECT_H_
#define TFREWPRUNE_KERNELS_SELECT_H_

#include "kernels/kernels.h"

namespace tfrewprune {

// The kernels of `isa`, or nullptr when IsaSupported(isa) is false.
const Kernels* SelectKernels(Isa isa);

// Those in float16 arithmetic (kernels/half.h): `direct`, `gemv` and `narrow`.
// nullptr where this CPU or `isa` has none.
const Kernels* SelectHalfKernels(Isa isa);

// The batch-1 kernel; nullptr for Isa::kReference, and for int8 weights with
// columns of 32 bits.
GemvKernel SelectGemv(const Kernels& kernels, uint32_t band_rows,
                      uint32_t index_bytes, ValueType value_type);

// Defined by the instantiation file of that instruction set.
const Kernels* PortableKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();
const Kernels* NeonKernels();
const Kernels* NeonHalfKernels();

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_SELECT_H_
