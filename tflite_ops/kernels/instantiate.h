// SPDX-License-Identifier: Apache-2.0
//
// Turns kernels.inc into the table of one instruction set. Included by
// direct_<isa>.cc after its vectors, its TFREWPRUNE_KERNELS_<ISA> and
// TFREWPRUNE_ISA_VALUE (Isa), TFREWPRUNE_ISA_VECTOR (its widest vector) and
// TFREWPRUNE_PLANES_TABLE.
#include "kernels/direct_generic.h"
#include "kernels/select.h"

namespace tfrewprune {
namespace {

constexpr DirectKernelRow kDirect[] = {
#define TFREWPRUNE_GEMV(R, V, vectors, chains, half_chains)
#define TFREWPRUNE_DIRECT(R, V, vectors, passes, length, segments) \
  {R, length, segments,                                            \
   DirectTiles<V, vectors, passes, length,                         \
               std::make_integer_sequence<int, segments>>::kTable},
#include "kernels/kernels.inc"
#undef TFREWPRUNE_DIRECT
#undef TFREWPRUNE_GEMV
};

constexpr GemvKernelRow kGemv[] = {
#define TFREWPRUNE_GEMV_OF(R, V, vectors, chains, Index, Value, type) \
  {R, sizeof(Index), type, Gemv<V, vectors, chains, Index, Value>},
#define TFREWPRUNE_DIRECT(R, V, vectors, passes, length, segments)
// Integers with columns of 32 bits are too rare for kernels of their own.
#define TFREWPRUNE_GEMV(R, V, vectors, chains, other_chains)        \
  TFREWPRUNE_GEMV_OF(R, V, vectors, chains, uint16_t, float,        \
                     ValueType::kFloat32)                           \
  TFREWPRUNE_GEMV_OF(R, V, vectors, chains, uint32_t, float,        \
                     ValueType::kFloat32)                           \
  TFREWPRUNE_GEMV_OF(R, V, vectors, other_chains, uint16_t, Half,   \
                     ValueType::kFloat16)                           \
  TFREWPRUNE_GEMV_OF(R, V, vectors, other_chains, uint32_t, Half,   \
                     ValueType::kFloat16)                           \
  TFREWPRUNE_GEMV_OF(R, V, vectors, other_chains, uint16_t, int8_t, \
                     ValueType::kInt8)
#include "kernels/kernels.inc"
#undef TFREWPRUNE_DIRECT
#undef TFREWPRUNE_GEMV_OF
#undef TFREWPRUNE_GEMV
};

constexpr Kernels kKernels = {
    TFREWPRUNE_ISA_VALUE,
    TFREWPRUNE_ISA_VECTOR::kLanes,
    kDirect,
    sizeof(kDirect) / sizeof(kDirect[0]),
    kGemv,
    sizeof(kGemv) / sizeof(kGemv[0]),
    TFREWPRUNE_PLANES_TABLE,
    AddResidual<TFREWPRUNE_ISA_VECTOR>,
    Widen<TFREWPRUNE_ISA_VECTOR>,
    WidenIntegers<TFREWPRUNE_ISA_VECTOR>,
    nullptr,
};

}  // namespace
}  // namespace tfrewprune
