// SPDX-License-Identifier: Apache-2.0
//
// The loops of kernels/recurrent.h, once for every instruction set.
#ifndef TFREWPRUNE_KERNELS_RECURRENT_GENERIC_H_
#define TFREWPRUNE_KERNELS_RECURRENT_GENERIC_H_

#include <cstring>

#include "kernels/recurrent.h"
#include "simd/vec.h"

namespace tfrewprune {

// n / q, not divided yet: a cell divides as seldom as it can.
template <class V>
struct Quotient {
  typename V::Reg n, q;

  TFREWPRUNE_INLINE inline typename V::Reg Value() const {
    return V::Div(n, q);
  }
};

// tanh(kScale * v) as x P(x^2) / Q(x^2), x within [-7.9, 7.9], fitted for the
// least relative error: 1.3e-7 and, with float arithmetic, 4.2e-7. At 7.9 and
// beyond it is 1 - 1.2e-7. Q is at most 186. The scale, a power of two, is
// part of the constants.
template <class V, int kReciprocal>
TFREWPRUNE_VEC Quotient<V> Tanh(typename V::Reg v) {
  constexpr float k1 = 1.0f / kReciprocal, k2 = k1 * k1, k4 = k2 * k2;
  const typename V::Reg x = V::Clamp(V::Set(-7.9f / k1), V::Set(7.9f / k1), v);
  const typename V::Reg s = V::Mul(x, x);
  typename V::Reg p = V::Set(1.15318808e-5f * k4 * k2 * k1);
  p = V::Fma(p, s, V::Set(2.96047749e-3f * k4 * k1));
  p = V::Fma(p, s, V::Set(0.12934421f * k2 * k1));
  p = V::Fma(p, s, V::Set(0.99999988f * k1));
  typename V::Reg q = V::Set(2.49256033e-7f * k4 * k4);
  q = V::Fma(q, s, V::Set(2.40012625e-4f * k4 * k2));
  q = V::Fma(q, s, V::Set(2.38541011e-2f * k4));
  q = V::Fma(q, s, V::Set(0.462676495f * k2));
  q = V::Fma(q, s, V::Set(1.0f));
  return {V::Mul(x, p), q};
}

// Nearly all layers have these two: no constants to load, nothing to ask.
template <class V>
struct UsualTanh {
  explicit UsualTanh(CellActivation) {}
  TFREWPRUNE_INLINE inline Quotient<V> operator()(typename V::Reg v) const {
    return Tanh<V, 1>(v);
  }
};
template <class V>
struct UsualSigmoid {
  explicit UsualSigmoid(CellActivation) {}
  // 1/2 + tanh(v / 2) / 2
  TFREWPRUNE_INLINE inline Quotient<V> operator()(typename V::Reg v) const {
    const Quotient<V> t = Tanh<V, 2>(v);
    return {V::Add(t.q, t.n), V::Add(t.q, t.q)};
  }
};

// All others, in a function of its own: five of them in a cell are much code.
template <class V>
TFREWPRUNE_ONE_COPY typename V::Reg Activate(typename V::Reg v,
                                             CellActivation kind) {
  switch (kind) {
    case CellActivation::kLinear:
      return v;
    case CellActivation::kRelu:
      return V::Clamp(V::Zero(), V::Set(__builtin_inff()), v);
    case CellActivation::kSigmoid:
      return UsualSigmoid<V>(kind)(v).Value();
    case CellActivation::kTanh:
      return UsualTanh<V>(kind)(v).Value();
  }
  return v;
}
template <class V>
struct AnyActivation {
  explicit AnyActivation(CellActivation given) : kind(given) {}
  TFREWPRUNE_INLINE inline Quotient<V> operator()(typename V::Reg v) const {
    return {Activate<V>(v, kind), V::Set(1.0f)};
  }

  CellActivation kind;
};

// A vector of units: where its numbers are, those of the next gate `stride`
// on. (A reference to a CellStep would be read again after every store.)
struct CellUnits {
  const float *x, *u;
  float *h, *c, *reset;
  int64_t stride;
};

template <class V, class Inner, class Gate>
struct Cell {
  using Reg = typename V::Reg;

  explicit Cell(const CellStep& step)
      : inner(step.activation),
        gate(step.gate_activation),
        low(V::Set(-step.clip)),
        high(V::Set(step.clip)) {}
  // What both products give for a gate.
  TFREWPRUNE_INLINE inline Reg Sum(const CellUnits& at, int64_t g) const {
    return V::Add(V::Load(at.x + g * at.stride), V::Load(at.u + g * at.stride));
  }

  Inner inner;
  Gate gate;
  Reg low, high;
};

// f c + i a as (f.n i.q a.q c + f.q i.n a.n) / (f.q i.q a.q)
template <class... Types>
struct LstmCell : Cell<Types...> {
  static constexpr int kX = 4, kU = 4;  // gates of x and u that are read
  using Cell<Types...>::Cell;

  template <class V>
  TFREWPRUNE_INLINE inline void Run(const CellUnits& at) const {
    const auto in = this->gate(this->Sum(at, 0));
    const auto forget = this->gate(this->Sum(at, 1));
    const auto candidate = this->inner(this->Sum(at, 2));
    const auto out = this->gate(this->Sum(at, 3));
    const auto q = V::Mul(in.q, candidate.q);
    const auto kept = V::Mul(forget.n, V::Load(at.c));
    const auto added = V::Mul(in.n, candidate.n);
    const auto c = V::Clamp(
        this->low, this->high,
        V::Div(V::Fma(kept, q, V::Mul(forget.q, added)), V::Mul(forget.q, q)));
    V::Store(at.c, c);
    const auto cell = this->inner(c);
    V::Store(at.h, V::Div(V::Mul(out.n, cell.n), V::Mul(out.q, cell.q)));
  }
};

// z h + (1 - z) n
template <class V>
TFREWPRUNE_VEC typename V::Reg Mix(Quotient<V> z, typename V::Reg h,
                                   Quotient<V> n) {
  const auto rest = V::Fma(z.n, V::Set(-1.0f), z.q);
  return V::Div(V::Fma(V::Mul(z.n, h), n.q, V::Mul(rest, n.n)),
                V::Mul(z.q, n.q));
}

template <class... Types>
struct GruCell : Cell<Types...> {
  static constexpr int kX = 3, kU = 3;
  using Cell<Types...>::Cell;

  template <class V>
  TFREWPRUNE_INLINE inline void Run(const CellUnits& at) const {
    const auto r = this->gate(this->Sum(at, 1)).Value();
    const auto z = this->gate(this->Sum(at, 0));
    const auto n = this->inner(V::Fma(r, V::Load(at.u + 2 * at.stride),
                                      V::Load(at.x + 2 * at.stride)));
    V::Store(at.h, Mix<V>(z, V::Load(at.h), n));
  }
};

template <class... Types>
struct GruReset : Cell<Types...> {
  static constexpr int kX = 2, kU = 2;
  using Cell<Types...>::Cell;

  template <class V>
  TFREWPRUNE_INLINE inline void Run(const CellUnits& at) const {
    const auto r = this->gate(this->Sum(at, 1)).Value();
    V::Store(at.c, this->gate(this->Sum(at, 0)).Value());
    V::Store(at.reset, V::Mul(r, V::Load(at.h)));
  }
};

template <class... Types>
struct GruMix : Cell<Types...> {
  static constexpr int kX = 3, kU = 1;
  using Cell<Types...>::Cell;

  template <class V>
  TFREWPRUNE_INLINE inline void Run(const CellUnits& at) const {
    const auto n =
        this->inner(V::Add(V::Load(at.x + 2 * at.stride), V::Load(at.u)));
    const Quotient<V> z = {V::Load(at.c), V::Set(1.0f)};
    V::Store(at.h, Mix<V>(z, V::Load(at.h), n));
  }
};

template <class... Types>
struct RnnCell : Cell<Types...> {
  static constexpr int kX = 1, kU = 1;
  using Cell<Types...>::Cell;

  template <class V>
  TFREWPRUNE_INLINE inline void Run(const CellUnits& at) const {
    V::Store(at.h, this->inner(this->Sum(at, 0)).Value());
  }
};

// The last units, where they fill no vector: what is read of them goes through
// a step of one vector, and back. Of x and u `x_gates` and `u_gates` are read.
template <class V>
TFREWPRUNE_ONE_COPY void RunLast(const CellStep& step, int64_t done,
                                 int x_gates, int u_gates, CellKernel kernel) {
  constexpr int kMost = 4;
  const size_t bytes = static_cast<size_t>(step.units - done) * sizeof(float);
  float x[kMost * V::kLanes] = {}, u[kMost * V::kLanes] = {};
  float h[V::kLanes] = {}, c[V::kLanes] = {}, reset[V::kLanes];
  for (int g = 0; g < x_gates; ++g) {
    std::memcpy(x + g * V::kLanes, step.x + g * step.units + done, bytes);
  }
  for (int g = 0; g < u_gates; ++g) {
    std::memcpy(u + g * V::kLanes, step.u + g * step.units + done, bytes);
  }
  std::memcpy(h, step.h + done, bytes);
  if (step.c != nullptr) std::memcpy(c, step.c + done, bytes);
  CellStep last = step;
  last.units = V::kLanes;
  last.x = x;
  last.u = u;
  last.h = h;
  last.c = c;
  last.reset = reset;
  kernel(last);
  std::memcpy(step.h + done, h, bytes);
  if (step.c != nullptr) std::memcpy(step.c + done, c, bytes);
  if (step.reset != nullptr) std::memcpy(step.reset + done, reset, bytes);
}

template <class V, class CellType>
TFREWPRUNE_ONE_COPY void ForAllUnits(const CellStep& step) {
  const CellType cell(step);
  CellUnits at = {step.x, step.u, step.h, step.c, step.reset, step.units};
  // No questions in the loop: what a cell has not got is never read.
  if (at.c == nullptr) at.c = at.h;
  if (at.reset == nullptr) at.reset = at.h;
  for (int64_t left = step.units / V::kLanes; left > 0; --left) {
    cell.template Run<V>(at);
    at.x += V::kLanes;
    at.u += V::kLanes;
    at.h += V::kLanes;
    at.c += V::kLanes;
    at.reset += V::kLanes;
  }
  if (step.units % V::kLanes > 0) {
    RunLast<V>(step, step.units / V::kLanes * V::kLanes, CellType::kX,
               CellType::kU, ForAllUnits<V, CellType>);
  }
}

template <class V, template <class...> class CellOf>
void RunCell(const CellStep& step) {
  if (step.activation == CellActivation::kTanh &&
      (step.gate_activation == CellActivation::kSigmoid ||
       CellOf<V, UsualTanh<V>, UsualSigmoid<V>>::kX == 1)) {
    ForAllUnits<V, CellOf<V, UsualTanh<V>, UsualSigmoid<V>>>(step);
  } else {
    ForAllUnits<V, CellOf<V, AnyActivation<V>, AnyActivation<V>>>(step);
  }
}

template <class V>
inline constexpr CellKernels kCellKernels = {
    RunCell<V, LstmCell>, RunCell<V, GruCell>, RunCell<V, GruReset>,
    RunCell<V, GruMix>, RunCell<V, RnnCell>};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_RECURRENT_GENERIC_H_
