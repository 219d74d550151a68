# SPDX-License-Identifier: Apache-2.0
# The one table: which kernel files exist, and the compiler flags of each ISA.
# A kernel file is compiled for its ISA alone; nothing else is, so that the
# library starts on every CPU and chooses at run time (isa/isa.cc).

set(TFREWPRUNE_KERNEL_SOURCES
    kernels/convolution.cc
    kernels/irregular_reference.cc
    kernels/irregular_select.cc
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

tfrewprune_kernel("" kernels/direct_portable.cc kernels/irregular_portable.cc)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  tfrewprune_kernel("-mavx2;-mfma" kernels/direct_avx2.cc kernels/irregular_avx2.cc)
  tfrewprune_kernel("-mavx512f;-mavx512vl;-mavx512dq;-mavx512bw;-mfma;-mprefer-vector-width=512"
                    kernels/direct_avx512.cc kernels/flat_avx512.cc
                    kernels/planar_avx512.cc
                    kernels/irregular_avx512.cc)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  tfrewprune_kernel("" kernels/direct_neon.cc kernels/irregular_neon.cc)
endif()
