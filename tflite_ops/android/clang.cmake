# SPDX-License-Identifier: Apache-2.0
# Android without an NDK, for tests: Debian's clang-16 and lld-16 with the headers of the
# cross compilers' Linux, linked against the stubs that android/build makes.
set(CMAKE_SYSTEM_NAME Linux)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TFREWPRUNE_ANDROID_ABI
     TFREWPRUNE_ANDROID_STUBS)
if(TFREWPRUNE_ANDROID_ABI STREQUAL "arm64-v8a")
  set(CMAKE_SYSTEM_PROCESSOR aarch64)
  set(_target aarch64-linux-android21)
  set(_headers aarch64-linux-gnu)
elseif(TFREWPRUNE_ANDROID_ABI STREQUAL "armeabi-v7a")
  set(CMAKE_SYSTEM_PROCESSOR armv7-a)
  set(_target armv7a-linux-androideabi21)
  set(_headers arm-linux-gnueabihf)
else()
  set(CMAKE_SYSTEM_PROCESSOR x86_64)
  set(_target x86_64-linux-android21)
  set(_headers x86_64-linux-gnu)
endif()
set(CMAKE_CXX_COMPILER clang++-16)
set(CMAKE_CXX_COMPILER_TARGET ${_target})
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)

if(_headers STREQUAL "x86_64-linux-gnu")
  file(GLOB _cxx /usr/include/c++/*)
  set(_includes ${_cxx} /usr/include/${_headers}/c++ /usr/include/${_headers} /usr/include)
  file(GLOB _machine /usr/include/${_headers}/c++/*)
else()
  file(GLOB _cxx /usr/${_headers}/include/c++/*)
  file(GLOB _machine ${_cxx}/${_headers})
  set(_includes ${_cxx} /usr/${_headers}/include)
endif()
set(_flags "-nostdlibinc")
if(TFREWPRUNE_ANDROID_ABI STREQUAL "arm64-v8a")
  string(APPEND _flags " -mno-outline-atomics")  # helpers of compiler-rt
endif()
foreach(_folder ${_cxx} ${_machine} ${_includes} ${TFREWPRUNE_ANDROID_STUBS}/include)
  string(APPEND _flags " -isystem ${_folder}")
endforeach()
set(CMAKE_CXX_FLAGS_INIT "${_flags}")
set(CMAKE_SHARED_LINKER_FLAGS_INIT
    "-nostdlib -fuse-ld=lld -Wl,--strip-all -L${TFREWPRUNE_ANDROID_STUBS} -lc")
set(CMAKE_EXE_LINKER_FLAGS_INIT
    "${CMAKE_SHARED_LINKER_FLAGS_INIT} -pie -Wl,-e,main -Wl,--no-undefined")
if(TFREWPRUNE_ANDROID_ABI STREQUAL "armeabi-v7a")
  # Division and 64-bit numbers are functions of the compiler's own library there, whose
  # arguments go in integer registers whatever the ABI: GCC's stands in for the NDK's.
  execute_process(COMMAND arm-linux-gnueabihf-gcc -print-libgcc-file-name
                  OUTPUT_VARIABLE _libgcc OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(APPEND CMAKE_SHARED_LINKER_FLAGS_INIT " -Wl,--exclude-libs,ALL")
  set(CMAKE_CXX_STANDARD_LIBRARIES_INIT ${_libgcc})
endif()
set(TFREWPRUNE_HAS_NOSTDLIBXX TRUE CACHE INTERNAL "clang has it; nothing links to try it")
# Bionic's threads are part of its libc.
set(CMAKE_HAVE_LIBC_PTHREAD TRUE CACHE INTERNAL "")
set(TFREWPRUNE_GLIBC FALSE CACHE INTERNAL "the headers alone")
