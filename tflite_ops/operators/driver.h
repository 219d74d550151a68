// SPDX-License-Identifier: Apache-2.0
//
// A driver is one way to run a packed layer. They all stand in one table
// (drivers.cc); each predicts its own time from the whole problem, and the one
// that predicts least does the work.
#ifndef TFREWPRUNE_OPERATORS_DRIVER_H_
#define TFREWPRUNE_OPERATORS_DRIVER_H_

#include <stddef.h>

#include <new>

#include "operators/problem.h"

namespace tfrewprune {

// The time of a driver that cannot do a problem.
inline constexpr double kUnsupported = -1;

// The tensors of one Invoke: NHWC in, NHWC out; bias [rows] or nullptr;
// residual as the output, or nullptr.
struct Tensors {
  const float* input;
  const float* bias;
  const float* residual;
  float* output;
  // Bias and output are those of the Invoke before: what depends on the bias
  // alone is ready, and stands in the output.
  bool again = false;
};

struct Driver {
  const char* name;  // lower case, as in TFREWPRUNE_DRIVER
  size_t state_bytes;
  // Cycles of an Invoke, predicted, or kUnsupported. On other CPUs than the
  // model was fitted on they are right among each other at best.
  double (*cycles)(const Problem& problem);
  void (*construct)(void* state);
  void (*destroy)(void* state);
  // Allocates everything that Invoke needs; may be called again. What `problem`
  // points to must outlive the state. nullptr, or what is wrong.
  const char* (*prepare)(void* state, const Problem& problem);
  // Allocates nothing. Applies the activation unless NeedsPostPass().
  void (*invoke)(void* state, const Tensors& tensors);
};

// A way to run a layer.
struct Choice {
  const Driver* driver = nullptr;
  bool alone = false;  // by the calling thread, whatever the pool
};

// The table's entry of a class with Cycles, Prepare and Invoke.
template <class State>
constexpr Driver MakeDriver(const char* name) {
  return {name,
          sizeof(State),
          State::Cycles,
          [](void* state) { new (state) State; },
          [](void* state) { static_cast<State*>(state)->~State(); },
          [](void* state, const Problem& problem) {
            return static_cast<State*>(state)->Prepare(problem);
          },
          [](void* state, const Tensors& tensors) {
            static_cast<State*>(state)->Invoke(tensors);
          }};
}

// The table: [0, count).
const Driver* Drivers(int* count);

// nullptr where no driver has that name.
const Driver* FindDriver(const char* name);

// The driver that does plain loops: for any problem, and slow.
const Driver* ReferenceDriver();

// `wanted` where it is not nullptr and can do the problem, else the one with
// the least predicted time.
const Driver* ChooseDriver(const Problem& problem, const Driver* wanted);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_DRIVER_H_
