// SPDX-License-Identifier: Apache-2.0
//
// The oracle of kernels/recurrent.h: plain loops in double.
#include <math.h>

#include "kernels/recurrent.h"

namespace tfrewprune {
namespace {

double Apply(CellActivation activation, double v) {
  switch (activation) {
    case CellActivation::kLinear:
      return v;
    case CellActivation::kRelu:
      return v < 0 ? 0 : v;
    case CellActivation::kSigmoid:
      return 0.5 + 0.5 * tanh(0.5 * v);  // exp is younger than glibc 2.17
    case CellActivation::kTanh:
      return tanh(v);
  }
  return v;
}

double Gate(const CellStep& s, int gate, int64_t i) {
  const int64_t at = gate * s.units + i;
  return Apply(s.gate_activation, double{s.x[at]} + s.u[at]);
}

void Lstm(const CellStep& s) {
  for (int64_t i = 0; i < s.units; ++i) {
    const int64_t at = 2 * s.units + i;
    const double candidate = Apply(s.activation, double{s.x[at]} + s.u[at]);
    double c = Gate(s, 1, i) * s.c[i] + Gate(s, 0, i) * candidate;
    if (c > s.clip) c = s.clip;
    if (c < -s.clip) c = -s.clip;
    s.c[i] = static_cast<float>(c);
    s.h[i] = static_cast<float>(Gate(s, 3, i) * Apply(s.activation, c));
  }
}

void Gru(const CellStep& s) {
  for (int64_t i = 0; i < s.units; ++i) {
    const int64_t at = 2 * s.units + i;
    const double z = Gate(s, 0, i);
    const double n = Apply(s.activation, s.x[at] + Gate(s, 1, i) * s.u[at]);
    s.h[i] = static_cast<float>(z * s.h[i] + (1 - z) * n);
  }
}

void GruReset(const CellStep& s) {
  for (int64_t i = 0; i < s.units; ++i) {
    s.c[i] = static_cast<float>(Gate(s, 0, i));
    s.reset[i] = static_cast<float>(Gate(s, 1, i) * s.h[i]);
  }
}

void GruMix(const CellStep& s) {
  for (int64_t i = 0; i < s.units; ++i) {
    const double z = s.c[i];
    const double n = Apply(s.activation, double{s.x[2 * s.units + i]} + s.u[i]);
    s.h[i] = static_cast<float>(z * s.h[i] + (1 - z) * n);
  }
}

void Rnn(const CellStep& s) {
  for (int64_t i = 0; i < s.units; ++i) {
    s.h[i] = static_cast<float>(Apply(s.activation, double{s.x[i]} + s.u[i]));
  }
}

constexpr CellKernels kKernels = {Lstm, Gru, GruReset, GruMix, Rnn};

}  // namespace

const CellKernels* ReferenceCellKernels() { return &kKernels; }

}  // namespace tfrewprune
