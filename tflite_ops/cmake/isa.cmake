# SPDX-License-Identifier: Apache-2.0
# The one table: which kernel files exist, and the compiler flags of each ISA.
# A kernel file is compiled for its ISA alone; nothing else is, so that the
# library starts on every CPU and chooses at run time (isa/isa.cc).

set(TFREWPRUNE_KERNEL_SOURCES
    kernels/convolution.cc
    kernels/irregular_reference.cc
    kernels/irregular_select.cc
    kernels/recurrent_reference.cc
    kernels/recurrent_select.cc
    kernels/reference.cc
    kernels/select.cc)

# GCC 12 warns of its own header: undefined vectors of masked intrinsics.
set(TFREWPRUNE_KERNEL_WARNINGS "")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(TFREWPRUNE_KERNEL_WARNINGS -Wno-maybe-uninitialized -Wno-uninitialized)
endif()

# tfrewprune_kernel(<isa flags> <files>...): files compiled with those flags,
# and optimised in Debug builds too (-O0 leaves weak copies of inline templates
# that the linker could mix between ISAs).
function(tfrewprune_kernel flags)
  set_source_files_properties(${ARGN} PROPERTIES
    COMPILE_OPTIONS
    "-O3;${flags};${TFREWPRUNE_KERNEL_WARNINGS};${TFREWPRUNE_SANITIZE_KERNELS}")
  set(TFREWPRUNE_KERNEL_SOURCES ${TFREWPRUNE_KERNEL_SOURCES} ${ARGN}
      PARENT_SCOPE)
endfunction()

# The compiler knows what it compiles for; CMAKE_SYSTEM_PROCESSOR is the kernel's
# word, which may be 64-bit over a 32-bit userland.
include(CheckCXXSourceCompiles)
check_cxx_source_compiles("
#if !defined(__x86_64__)
#error
#endif
int main() { return 0; }" TFREWPRUNE_X86_64)
check_cxx_source_compiles("
#if !defined(__aarch64__)
#error
#endif
int main() { return 0; }" TFREWPRUNE_AARCH64)
# 32-bit ARM: NEON with fused multiply-add, found at run time.
set(TFREWPRUNE_ARMV7_FLAGS "-march=armv7-a;-mfpu=neon-vfpv4")
list(JOIN TFREWPRUNE_ARMV7_FLAGS " " CMAKE_REQUIRED_FLAGS)
check_cxx_source_compiles("
#if !defined(__arm__)
#error
#endif
#include <arm_neon.h>
int main() { return vgetq_lane_f32(vfmaq_f32(vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)), 0); }"
  TFREWPRUNE_ARMV7)
unset(CMAKE_REQUIRED_FLAGS)

# Any 64-bit ARM has NEON: there portable kernels serve comparisons, which apps do not
# make, and would be a sixth of the library.
set(TFREWPRUNE_PORTABLE ON)
if(TFREWPRUNE_AARCH64 AND (ANDROID OR TFREWPRUNE_ANDROID_ABI))
  set(TFREWPRUNE_PORTABLE OFF)
endif()
if(TFREWPRUNE_PORTABLE)
  tfrewprune_kernel("" kernels/direct_portable.cc kernels/irregular_portable.cc
                    kernels/recurrent_portable.cc)
endif()
tfrewprune_kernel("" operators/dots.cc)  # its loops are the kernel
set(TFREWPRUNE_PLANES_SOURCES "")  # drivers whose kernels AVX-512 alone has
if(TFREWPRUNE_X86_64)
  set(TFREWPRUNE_PLANES_SOURCES
      operators/flat_conv.cc
      operators/flat_runs.cc
      operators/planar_conv.cc
      operators/planes_layout.cc)
  tfrewprune_kernel("-mavx2;-mfma;-mf16c" kernels/direct_avx2.cc kernels/irregular_avx2.cc
                    kernels/recurrent_avx2.cc)
  tfrewprune_kernel("-mavx512f;-mavx512vl;-mavx512dq;-mavx512bw;-mfma;-mf16c;-mprefer-vector-width=512"
                    kernels/direct_avx512.cc kernels/flat_avx512.cc
                    kernels/planes_avx512.cc
                    kernels/irregular_avx512.cc
                    kernels/recurrent_avx512.cc)
elseif(TFREWPRUNE_AARCH64 OR TFREWPRUNE_ARMV7)
  set(flags "")
  if(TFREWPRUNE_ARMV7)
    set(flags ${TFREWPRUNE_ARMV7_FLAGS})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      list(APPEND flags -mfp16-format=ieee)  # Clang knows no other
    endif()
  elseif(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Before registers are given out GCC 12 moves loads so far ahead that tiles of
    # 24 accumulators spill: 146 stack references in the inner loops of the direct
    # kernels and 159 in those of the irregular ones, 37 and 8 without it.
    list(APPEND flags -fno-schedule-insns)
  endif()
  tfrewprune_kernel("${flags}" kernels/direct_neon.cc kernels/irregular_neon.cc
                  kernels/recurrent_neon.cc)
  if(TFREWPRUNE_AARCH64)
    tfrewprune_kernel("-march=armv8.2-a+fp16" kernels/half_neon64.cc)
  endif()
  set(TFREWPRUNE_NEON ON)
endif()
