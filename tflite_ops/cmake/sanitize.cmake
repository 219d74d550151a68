# SPDX-License-Identifier: Apache-2.0
# -DTFREWPRUNE_SANITIZE=address,undefined | thread: everything is compiled and
# linked with these sanitizers, and any finding ends the program.
set(TFREWPRUNE_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize=")
if(TFREWPRUNE_SANITIZE)
  add_compile_options(-fsanitize=${TFREWPRUNE_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -g1 -O1)
  add_link_options(-fsanitize=${TFREWPRUNE_SANITIZE})
  # Kernels are hundreds of unrolled loads: checks written out beside each one
  # take a compiler minutes and gigabytes. Checks by call take seconds, and
  # every load and store is still checked by AddressSanitizer.
  set(TFREWPRUNE_SANITIZE_KERNELS
      -O1 -fno-sanitize=null,alignment,pointer-overflow,object-size)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND TFREWPRUNE_SANITIZE_KERNELS
         --param=asan-instrumentation-with-call-threshold=0)
  else()
    list(APPEND TFREWPRUNE_SANITIZE_KERNELS
         "SHELL:-mllvm -asan-instrumentation-with-call-threshold=0")
  endif()
endif()
