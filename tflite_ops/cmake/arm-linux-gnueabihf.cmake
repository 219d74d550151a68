# SPDX-License-Identifier: Apache-2.0
# Cross compiling for 32-bit ARM Linux with Debian's g++-arm-linux-gnueabihf;
# tests then run under qemu-user:
#   cmake -S tflite_ops -B build/armv7 -G Ninja -DTFREWPRUNE_TESTS=ON \
#     -DCMAKE_TOOLCHAIN_FILE=tflite_ops/cmake/arm-linux-gnueabihf.cmake
#   cmake --build build/armv7 && ctest --test-dir build/armv7
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR armv7)
set(CMAKE_C_COMPILER arm-linux-gnueabihf-gcc)
set(CMAKE_CXX_COMPILER arm-linux-gnueabihf-g++)
set(CMAKE_FIND_ROOT_PATH /usr/arm-linux-gnueabihf)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_CROSSCOMPILING_EMULATOR
    qemu-arm;-cpu;max;-L;/usr/arm-linux-gnueabihf)
