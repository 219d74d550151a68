// SPDX-License-Identifier: Apache-2.0
//
// The fuzz target: bytes -> a one-node model -> delegate -> Invoke.
#ifndef TFREWPRUNE_TESTS_NATIVE_FUZZ_TARGET_H_
#define TFREWPRUNE_TESTS_NATIVE_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>

// Layout of an input: 8 bytes of control (operator, input shape, ISA, bias,
// residual),
// 64 bytes of custom_options, then the payload. Anything may be missing.
inline constexpr size_t kFuzzControlBytes = 8;
inline constexpr size_t kFuzzOptionBytes = 64;

// libFuzzer's entry point, also called by fuzz_test.cc. For a long hunt compile
// this file and the library's sources with clang++ -fsanitize=fuzzer,address
// and start it on a folder of inputs.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Inputs that went all the way to Invoke so far: tells a mutator that it does
// not merely collect refusals.
int64_t FuzzInvocations();

#endif  // TFREWPRUNE_TESTS_NATIVE_FUZZ_TARGET_H_
