// SPDX-License-Identifier: Apache-2.0
//
// Numbers below 2^-126 count as zero while a layer runs, as in XNNPACK: a CPU
// takes a hundred times as long for an FMA that meets one, and layers meet them
// in fading signals and decayed weights.
#ifndef TFREWPRUNE_ISA_DENORMALS_H_
#define TFREWPRUNE_ISA_DENORMALS_H_

#include <cstdint>

namespace tfrewprune {

// This thread's floating-point mode: MXCSR, FPCR or FPSCR; 0 where none is
// known.
inline uint64_t FloatingPointMode() {
#if defined(__x86_64__) || defined(__SSE__)
  return __builtin_ia32_stmxcsr();
#elif defined(__aarch64__)
  uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
#elif defined(__arm__) && defined(__ARM_FP)
  uint32_t mode;
  asm volatile("vmrs %0, fpscr" : "=r"(mode));
  return mode;
#else
  return 0;
#endif
}

// "memory": arithmetic on what is in memory stays on its side of the change.
inline void SetFloatingPointMode(uint64_t mode) {
#if defined(__x86_64__) || defined(__SSE__)
  const uint32_t bits = static_cast<uint32_t>(mode);
  asm volatile("ldmxcsr %0" : : "m"(bits) : "memory");
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" : : "r"(mode) : "memory");
#elif defined(__arm__) && defined(__ARM_FP)
  asm volatile("vmsr fpscr, %0"
               :
               : "r"(static_cast<uint32_t>(mode))
               : "memory");
#else
  (void)mode;
#endif
}

// The bits that flush: FTZ and DAZ, or FZ.
inline constexpr uint64_t kFlushBits =
#if defined(__x86_64__) || defined(__SSE__)
    1u << 15 | 1u << 6;
#elif defined(__aarch64__) || defined(__arm__)
    1u << 24;
#else
    0;
#endif

// Flushes in this thread; at its end the mode is what it was.
class FlushDenormals {
 public:
  FlushDenormals() : mode_(FloatingPointMode()) {
    flushes_ = (mode_ & kFlushBits) == kFlushBits;
    if (!flushes_) SetFloatingPointMode(mode_ | kFlushBits);
  }
  ~FlushDenormals() {
    if (!flushes_) SetFloatingPointMode(mode_);
  }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  const uint64_t mode_;
  bool flushes_;  // the caller's mode does already
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_ISA_DENORMALS_H_
