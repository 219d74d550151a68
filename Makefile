# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set up everything they need in .venv, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BUILD ?= build
NATIVE := $(shell find tflite_ops -type f 2>/dev/null)
NATIVE_TESTS := $(wildcard tests/native/*)
# Quiet TensorFlow's start-up chatter; set it to 0 to see everything.
export TF_CPP_MIN_LOG_LEVEL ?= 2
export CUDA_VISIBLE_DEVICES ?=
PYTEST = $(BIN)/python -m pytest
# Each core has a half of the tests, so that fixtures of a module are built once, and takes
# from the other's when it is done.
ON_TWO_CORES = -n 2 --dist worksteal
BACKEND_TESTS = tests/unit tests/end_to_end/test_training_modes.py

.PHONY: demo test system-packages test-python test-backends test-native test-sanitize test-arm arm-counts android wheel lint format bench bench-peers clean help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else f"tfrewprune needs Python 3.10 to 3.13, found {v[0]}.{v[1]}; call make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip

# Installed again when the metadata or a native source changes.
$(VENV)/installed: $(BIN)/python setup.cfg setup.py pyproject.toml $(NATIVE)
	@command -v $${CXX:-c++} >/dev/null || { echo "no C++ compiler: apt-get install g++" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]' cmake ninja
	@touch $@

demo: $(VENV)/installed  ## train, prune, convert and time a small model
	$(BIN)/tfrewprune demo --output demo-output

test: lint test-native test-sanitize test-python test-backends test-arm  ## everything CI runs

system-packages:
	@.ci/system-packages

HAVE_GTEST = echo '\#include <gtest/gtest.h>' | $${CXX:-c++} -E -x c++ - >/dev/null 2>&1 || { echo "== skipped: GoogleTest is not installed (apt-get install libgtest-dev)"; exit 0; }
CMAKE = PATH="$(abspath $(BIN)):$$PATH" cmake
ARM_TOOLCHAIN = $(abspath tflite_ops/cmake/aarch64-linux-gnu.cmake)
ARMV7_TOOLCHAIN = $(abspath tflite_ops/cmake/arm-linux-gnueabihf.cmake)
CONFIGURE = $(CMAKE) -S tflite_ops -G Ninja -DTFREWPRUNE_TESTS=ON

test-native: $(VENV)/installed system-packages  ## C++ tests
	@$(HAVE_GTEST); set -ex; $(CONFIGURE) -B $(BUILD)/native; $(CMAKE) --build $(BUILD)/native; \
	ctest --test-dir $(BUILD)/native --output-on-failure -j 2; \
	$(CMAKE) --install $(BUILD)/native --prefix $(BUILD)/native/install; \
	TFREWPRUNE_NATIVE_BUILD=$(abspath $(BUILD)/native) PATH="$(abspath $(BIN)):$$PATH" $(PYTEST) tests/cpp_hosts -q

test-sanitize: $(VENV)/installed system-packages  ## C++ tests under ASan, UBSan and TSan
	@$(HAVE_GTEST); set -ex; for kind in address,undefined thread; do \
	  $(CONFIGURE) -B $(BUILD)/$$kind -DTFREWPRUNE_SANITIZE=$$kind; \
	  $(CMAKE) --build $(BUILD)/$$kind; \
	  ctest --test-dir $(BUILD)/$$kind --output-on-failure -j 2; \
	done

ARM_TOOLS = aarch64-linux-gnu-g++ arm-linux-gnueabihf-g++ qemu-aarch64 qemu-arm clang-16

test-arm: $(VENV)/installed system-packages  ## ARM and Android under qemu: C++ tests, and models in LiteRT
	@$(HAVE_GTEST); command -v $(ARM_TOOLS) | wc -l | grep -qx $(words $(ARM_TOOLS)) \
	|| { echo "== skipped: no ARM cross compiler, no clang-16 or no qemu (apt-get install g++-aarch64-linux-gnu g++-arm-linux-gnueabihf clang-16 lld-16 qemu-user)"; exit 0; }; \
	set -ex; $(CONFIGURE) -B $(BUILD)/arm -DTFREWPRUNE_QEMU_CPU=cortex-a53 -DCMAKE_TOOLCHAIN_FILE=$(ARM_TOOLCHAIN); \
	$(CMAKE) --build $(BUILD)/arm; \
	ctest --test-dir $(BUILD)/arm --output-on-failure -j 2; \
	$(CONFIGURE) -B $(BUILD)/armv7 -DCMAKE_TOOLCHAIN_FILE=$(ARMV7_TOOLCHAIN); \
	$(CMAKE) --build $(BUILD)/armv7 --target kernels_test geometry_test tfrewprune_delegate; \
	ctest --test-dir $(BUILD)/armv7 --output-on-failure -j 2 -R '^(kernels|geometry)_test$$'; \
	$(CONFIGURE) -B $(BUILD)/native; $(CMAKE) --build $(BUILD)/native --target tfrewprune_benchmark; \
	$(MAKE) android wheel WHEEL=aarch64; $(MAKE) wheel; \
	tests/arm/arm_root $(BUILD)/arm-root $(BIN)/python; \
	TFREWPRUNE_ARM_BUILD=$(abspath $(BUILD)) $(PYTEST) tests/arm -q

arm-counts: $(VENV)/installed  ## what the ARM cost model is fitted to, after test-arm
	$(BIN)/python tests/arm/count_cases.py $(abspath $(BUILD))
	$(BIN)/python -m tfrewprune.benchmark.cost_fit fit >/dev/null

# With an NDK (ANDROID_NDK) what to ship; without one what the tests run.
ANDROID_ABIS ?= arm64-v8a armeabi-v7a x86_64
android: $(VENV)/installed  ## the library for Android, in build/android
	PATH="$(abspath $(BIN)):$$PATH" tflite_ops/android/build $(BUILD)/android $(ANDROID_ABIS)

# The library needs no symbol younger than glibc 2.17, whatever it was built on.
WHEEL ?= x86_64
wheel: $(VENV)/installed  ## a manylinux wheel, in build/wheels; WHEEL=aarch64 cross compiles
	PATH="$(abspath $(BIN)):$$PATH" $(if $(filter aarch64,$(WHEEL)),CMAKE_TOOLCHAIN_FILE=$(ARM_TOOLCHAIN)) \
	$(BIN)/python setup.py --quiet bdist_wheel --plat-name manylinux_2_28_$(WHEEL) --dist-dir $(BUILD)/wheels

test-python: $(VENV)/installed
	$(PYTEST) $(ON_TWO_CORES)

test-backends: $(VENV)/installed  ## what differs by backend, on JAX and PyTorch, where installed
	@for backend in jax torch; do \
	  if $(BIN)/python -c "import $$backend" 2>/dev/null; then \
	    echo "== KERAS_BACKEND=$$backend"; \
	    KERAS_BACKEND=$$backend $(PYTEST) $(BACKEND_TESTS) -m backend -q $(ON_TWO_CORES) || exit 1; \
	  else echo "== $$backend is not installed: its backend tests are skipped"; fi; \
	done

lint: $(VENV)/installed  ## ruff and clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find tflite_ops tests/native \( -name '*.cc' -o -name '*.h' \) | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/installed  ## let the tools lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find tflite_ops tests/native \( -name '*.cc' -o -name '*.h' \) | xargs $(BIN)/clang-format -i

bench: $(VENV)/installed  ## our kernels beside LiteRT's XNNPACK, three minutes
	$(BIN)/python -m pip install --quiet --editable '.[report]'
	$(BIN)/python -m tfrewprune.benchmark --output bench-output

bench-peers: $(VENV)/installed  ## bench with the other engines that install from PyPI
	$(BIN)/python -m pip install --quiet --editable '.[report]'
	$(BIN)/python -m venv $(VENV)/peers  # their dependencies rarely agree with ours
	$(VENV)/peers/bin/python -m pip install --quiet onnx onnxruntime 'numpy<2'
	$(VENV)/peers/bin/python -m pip install --quiet 'deepsparse==1.8.0' 'numpy<2' || echo 'DeepSparse has no build for this Python: left out'
	$(VENV)/peers/bin/python -m pip install --quiet 'MNN>=3.6' 'numpy<2' || echo 'MNN has no build for this Python: left out'
	$(BIN)/python -m tfrewprune.benchmark --peers $(VENV)/peers/bin/python --output bench-output

clean:
	rm -rf $(BUILD) $(VENV) demo-output bench-output *.egg-info tfrewprune/runtime/*.so
