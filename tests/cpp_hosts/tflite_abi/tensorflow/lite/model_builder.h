// SPDX-License-Identifier: Apache-2.0
#include "tflite_of_tensorflow.h"  // IWYU pragma: export
