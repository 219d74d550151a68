// SPDX-License-Identifier: Apache-2.0
//
// Contract of the cell kernels: what a recurrent layer does in a step beside
// its matrix products.
//
// With x and u what the products with the input and with the state gave, gate
// by gate, a the activation, s that of the gates, and all else element by
// element:
//
//   LSTM: c' = s(x1 + u1) c + s(x0 + u0) a(x2 + u2), within [-clip, clip];
//         h' = s(x3 + u3) a(c')
//   GRU:  z = s(x0 + u0);  n = a(x2 + s(x1 + u1) u2);  h' = z h + (1 - z) n
//   GRU that resets first: `reset` gives z and s(x1 + u1) h, of which the next
//         product makes u2, `mix` n = a(x2 + u2) and h' from z
//   RNN:  h' = a(x0 + u0)
//
// tanh is a quotient of polynomials, sigmoid(v) = 1/2 + tanh(v / 2) / 2; both
// are within 1e-6 of the exact value, never outside of their range, and NaN
// stays NaN.
#ifndef TFREWPRUNE_KERNELS_RECURRENT_H_
#define TFREWPRUNE_KERNELS_RECURRENT_H_

#include <cstdint>

#include "isa/isa.h"

namespace tfrewprune {

// As in custom_options (PAYLOAD.md).
enum class CellActivation : int32_t {
  kLinear = 0,
  kRelu = 1,
  kSigmoid = 2,
  kTanh = 3,
};

// One step of one sequence. What is written may be what is read.
struct CellStep {
  int64_t units;
  CellActivation activation, gate_activation;
  const float* x;                 // gates x units
  const float* u;                 // likewise; `mix`: u2 alone
  float* h;                       // units
  float* c;                       // LSTM; `reset` writes z here, `mix` reads it
  float* reset;                   // `reset` alone: s(x1 + u1) h
  float clip = __builtin_inff();  // LSTM
};
using CellKernel = void (*)(const CellStep& step);

struct CellKernels {
  CellKernel lstm, gru, gru_reset, gru_mix, rnn;
};

// Never nullptr: kReference has plain loops.
const CellKernels* SelectCellKernels(Isa isa);

// Defined by the instantiation file of that instruction set.
const CellKernels* ReferenceCellKernels();
const CellKernels* PortableCellKernels();
const CellKernels* Avx2CellKernels();
const CellKernels* Avx512CellKernels();
const CellKernels* NeonCellKernels();

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_RECURRENT_H_
