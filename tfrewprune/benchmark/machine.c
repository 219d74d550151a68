// SPDX-License-Identifier: Apache-2.0
// The two limits of a machine that kernels are judged by: multiply-adds that never
// leave the registers, and streams through a buffer of a given size. Compiled at run
// time by machine.py (cc -O2 -ffp-contract=fast -shared -fPIC); no part of the delegate.

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

static double Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// Keeps a result alive that nobody reads.
static volatile float sink;

// Twelve independent chains hide the latency of two FMA pipes of up to six cycles, and
// fit the sixteen registers of AVX2 and SSE.
#define STEP(a) a = a * b + c;
#define TWELVE                                                                  \
  STEP(a0) STEP(a1) STEP(a2) STEP(a3) STEP(a4) STEP(a5)                         \
  STEP(a6) STEP(a7) STEP(a8) STEP(a9) STEP(a10) STEP(a11)

#define DEFINE_ISA(NAME, TARGET, BYTES)                                         \
  typedef float NAME##Vector __attribute__((vector_size(BYTES)));               \
  /* FLOP per second of multiply-adds in registers. */                          \
  TARGET static double NAME##Fma(double seconds) {                              \
    NAME##Vector a0 = {0}, b = {0}, c = {0};                                    \
    b = b + (0.5f + sink * 0);                                                  \
    c = c + (0.25f + sink * 0);                                                 \
    NAME##Vector a1 = a0 + 1, a2 = a0 + 2, a3 = a0 + 3, a4 = a0 + 4;            \
    NAME##Vector a5 = a0 + 5, a6 = a0 + 6, a7 = a0 + 7, a8 = a0 + 8;            \
    NAME##Vector a9 = a0 + 9, a10 = a0 + 10, a11 = a0 + 11;                     \
    const int kLoops = 20000;                                                   \
    double best = 0, start = Now(), end;                                        \
    do {                                                                        \
      const double begin = Now();                                               \
      for (int i = 0; i < kLoops; ++i) { TWELVE TWELVE TWELVE TWELVE }          \
      end = Now();                                                              \
      const double rate = 2.0 * 48 * kLoops * (BYTES / 4) / (end - begin);      \
      if (rate > best) best = rate;                                             \
    } while (end - start < seconds);                                            \
    a0 = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;           \
    sink = a0[0];                                                               \
    return best;                                                                \
  }                                                                             \
  /* Bytes per second read from a buffer. */                                    \
  TARGET static double NAME##Read(const char* data, size_t bytes,               \
                                  double seconds) {                             \
    const NAME##Vector* p = (const NAME##Vector*)data;                          \
    const size_t count = bytes / BYTES / 8 * 8;                                 \
    NAME##Vector s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                        \
    NAME##Vector s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0};                        \
    double best = 0, start = Now(), end;                                        \
    const int kLoops = 1 + (int)((1 << 20) / (bytes + 1));                      \
    do {                                                                        \
      const double begin = Now();                                               \
      for (int k = 0; k < kLoops; ++k) {                                        \
        for (size_t i = 0; i < count; i += 8) {                                 \
          s0 += p[i], s1 += p[i + 1], s2 += p[i + 2], s3 += p[i + 3];           \
          s4 += p[i + 4], s5 += p[i + 5], s6 += p[i + 6], s7 += p[i + 7];       \
        }                                                                       \
        __asm__ volatile("" ::: "memory");                                      \
      }                                                                         \
      end = Now();                                                              \
      const double rate = (double)count * BYTES * kLoops / (end - begin);       \
      if (rate > best) best = rate;                                             \
    } while (end - start < seconds);                                            \
    s0 = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7;                                 \
    sink = s0[0];                                                               \
    return best;                                                                \
  }                                                                             \
  /* Bytes per second written to a buffer. */                                   \
  TARGET static double NAME##Write(char* data, size_t bytes, double seconds) {  \
    NAME##Vector* p = (NAME##Vector*)data;                                      \
    const size_t count = bytes / BYTES / 8 * 8;                                 \
    NAME##Vector v = {0};                                                       \
    double best = 0, start = Now(), end;                                        \
    const int kLoops = 1 + (int)((1 << 20) / (bytes + 1));                      \
    do {                                                                        \
      const double begin = Now();                                               \
      for (int k = 0; k < kLoops; ++k) {                                        \
        for (size_t i = 0; i < count; i += 8) {                                 \
          p[i] = v, p[i + 1] = v, p[i + 2] = v, p[i + 3] = v;                   \
          p[i + 4] = v, p[i + 5] = v, p[i + 6] = v, p[i + 7] = v;               \
          __asm__ volatile("" ::: "memory"); /* no memset, no dead stores */    \
        }                                                                       \
      }                                                                         \
      end = Now();                                                              \
      const double rate = (double)count * BYTES * kLoops / (end - begin);       \
      if (rate > best) best = rate;                                             \
    } while (end - start < seconds);                                            \
    return best;                                                                \
  }

#if defined(__x86_64__)
DEFINE_ISA(Avx512, __attribute__((target("avx512f,fma"))), 64)
DEFINE_ISA(Avx2, __attribute__((target("avx2,fma"))), 32)
#endif
DEFINE_ISA(Vector128, , 16)

// Which: "avx512", "avx2", or anything else for 128-bit vectors (NEON, SSE).
// The caller asks only for what the CPU has.
double tfrewprune_fma_peak(const char* isa, double seconds) {
#if defined(__x86_64__)
  if (strcmp(isa, "avx512") == 0) return Avx512Fma(seconds);
  if (strcmp(isa, "avx2") == 0) return Avx2Fma(seconds);
#endif
  (void)isa;
  return Vector128Fma(seconds);
}

double tfrewprune_stream(const char* isa, int write, char* data, size_t bytes,
                         double seconds) {
#if defined(__x86_64__)
  if (strcmp(isa, "avx512") == 0) {
    return write ? Avx512Write(data, bytes, seconds)
                 : Avx512Read(data, bytes, seconds);
  }
  if (strcmp(isa, "avx2") == 0) {
    return write ? Avx2Write(data, bytes, seconds)
                 : Avx2Read(data, bytes, seconds);
  }
#endif
  (void)isa;
  return write ? Vector128Write(data, bytes, seconds)
               : Vector128Read(data, bytes, seconds);
}

// 1 when this CPU can run the loops called by that name.
int tfrewprune_can_run(const char* isa) {
#if defined(__x86_64__)
  if (strcmp(isa, "avx512") == 0) return __builtin_cpu_supports("avx512f") != 0;
  if (strcmp(isa, "avx2") == 0) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
  return strcmp(isa, "portable") == 0 || strcmp(isa, "reference") == 0;
#elif defined(__aarch64__)
  return strcmp(isa, "neon") == 0 || strcmp(isa, "portable") == 0 ||
         strcmp(isa, "reference") == 0;
#else
  return strcmp(isa, "portable") == 0 || strcmp(isa, "reference") == 0;
#endif
}
