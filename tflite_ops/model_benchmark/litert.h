// SPDX-License-Identifier: Apache-2.0
//
// The part of LiteRT's C API that the program needs, found in libLiteRt.so when
// it runs: the library of LiteRT's Android package and of its Python wheels.
// Types as of version 2.1.6; tfrewprune/runtime/litert_library.py has the same.
#ifndef TFREWPRUNE_MODEL_BENCHMARK_LITERT_H_
#define TFREWPRUNE_MODEL_BENCHMARK_LITERT_H_

#include <cstddef>
#include <cstdint>

namespace tfrewprune {

using LiteRtStatus = int;  // 0 is good
using LiteRtHandle = void*;

struct LiteRtLayout {
  static constexpr int kMostDimensions = 8;
  int rank() const { return static_cast<int>(bits & 0x7F); }

  uint32_t bits;
  int32_t dimensions[kMostDimensions];
  uint32_t strides[kMostDimensions];
};

struct LiteRtTensorType {
  int element_type;
  LiteRtLayout layout;
};

struct LiteRtEnvironmentOption {
  int tag;
  struct {
    int type;
    int64_t value;
  } integer;
};

// X(name, arguments): every function of `LiteRt`, `LiteRt<name>` in the
// library.
#define TFREWPRUNE_LITERT_FUNCTIONS(X)                                       \
  X(CreateEnvironment, (int, const LiteRtEnvironmentOption*, LiteRtHandle*)) \
  X(CreateModelFromFile, (LiteRtHandle, const char*, LiteRtHandle*))         \
  X(GetModelSignature, (LiteRtHandle, size_t, LiteRtHandle*))                \
  X(GetNumSignatureInputs, (LiteRtHandle, size_t*))                          \
  X(GetNumSignatureOutputs, (LiteRtHandle, size_t*))                         \
  X(GetSignatureInputTensorByIndex, (LiteRtHandle, size_t, LiteRtHandle*))   \
  X(GetSignatureOutputTensorByIndex, (LiteRtHandle, size_t, LiteRtHandle*))  \
  X(GetRankedTensorType, (LiteRtHandle, LiteRtTensorType*))                  \
  X(CreateOptions, (LiteRtHandle*))                                          \
  X(SetOptionsHardwareAccelerators, (LiteRtHandle, int))                     \
  X(CreateOpaqueOptions,                                                     \
    (const char*, const char*, void (*)(void*), LiteRtHandle*))              \
  X(AddOpaqueOptions, (LiteRtHandle, LiteRtHandle))                          \
  X(CreateCompiledModel,                                                     \
    (LiteRtHandle, LiteRtHandle, LiteRtHandle, LiteRtHandle*))               \
  X(GetCompiledModelInputTensorLayout,                                       \
    (LiteRtHandle, size_t, size_t, LiteRtLayout*))                           \
  X(GetCompiledModelOutputTensorLayouts,                                     \
    (LiteRtHandle, size_t, size_t, LiteRtLayout*, bool))                     \
  X(CompiledModelResizeInputTensorNonStrict,                                 \
    (LiteRtHandle, size_t, size_t, const int*, size_t))                      \
  X(GetCompiledModelInputBufferRequirements,                                 \
    (LiteRtHandle, size_t, size_t, LiteRtHandle*))                           \
  X(GetCompiledModelOutputBufferRequirements,                                \
    (LiteRtHandle, size_t, size_t, LiteRtHandle*))                           \
  X(CreateManagedTensorBufferFromRequirements,                               \
    (LiteRtHandle, const LiteRtTensorType*, LiteRtHandle, LiteRtHandle*))    \
  X(LockTensorBuffer, (LiteRtHandle, void**, int))                           \
  X(UnlockTensorBuffer, (LiteRtHandle))                                      \
  X(RunCompiledModel,                                                        \
    (LiteRtHandle, size_t, size_t, LiteRtHandle*, size_t, LiteRtHandle*))    \
  X(DestroyEnvironment, (LiteRtHandle))                                      \
  X(DestroyModel, (LiteRtHandle))                                            \
  X(DestroyOptions, (LiteRtHandle))                                          \
  X(DestroyCompiledModel, (LiteRtHandle))                                    \
  X(DestroyTensorBuffer, (LiteRtHandle))

struct LiteRt {
#define X(name, arguments) LiteRtStatus(*name) arguments;
  TFREWPRUNE_LITERT_FUNCTIONS(X)
#undef X
};

// Loads the library: `path`, or libLiteRt.so beside the program or where the
// system looks for libraries. Returns nullptr after a message on stderr.
const LiteRt* LoadLiteRt(const char* path);

// A function of the loaded library by its whole name; nullptr if it has none.
void* FindLiteRtSymbol(const char* name);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_MODEL_BENCHMARK_LITERT_H_
