# SPDX-License-Identifier: Apache-2.0
# Cross compiling for 64-bit ARM Linux with Debian's g++-aarch64-linux-gnu;
# tests then run under qemu-user:
#   cmake -S tflite_ops -B build/aarch64-linux-gnu -G Ninja -DTFREWPRUNE_TESTS=ON \
#     -DCMAKE_TOOLCHAIN_FILE=tflite_ops/cmake/aarch64-linux-gnu.cmake
#   cmake --build build/aarch64-linux-gnu && ctest --test-dir build/aarch64-linux-gnu
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
# Not `max`: with SME visible LiteRT 2.3 computes wrong int8 results there.
set(TFREWPRUNE_QEMU_CPU cortex-a76 CACHE STRING "CPU that qemu-user plays")
set(CMAKE_CROSSCOMPILING_EMULATOR
    qemu-aarch64;-cpu;${TFREWPRUNE_QEMU_CPU};-L;/usr/aarch64-linux-gnu)
