// SPDX-License-Identifier: Apache-2.0
//
// The loops of kernels/recurrent.h, once for every instruction set.
#ifndef TFREWPRUNE_KERNELS_RECURRENT_GENERIC_H_
#define TFREWPRUNE_KERNELS_RECURRENT_GENERIC_H_

#include <cstring>

#include "kernels/recurrent.h"
#include "simd/vec.h"

namespace tfrewprune {

// x P(x^2) / Q(x^2) on [-7.9, 7.9], fitted for the least relative error: 1.3e-7
// and, with float arithmetic, 4.2e-7. At 7.9 and beyond it is 1 - 1.2e-7.
template <class V>
TFREWPRUNE_VEC typename V::Reg Tanh(typename V::Reg v) {
  const typename V::Reg x = V::Clamp(V::Set(-7.9f), V::Set(7.9f), v);
  const typename V::Reg s = V::Mul(x, x);
  typename V::Reg p = V::Set(1.15318808e-5f);
  p = V::Fma(p, s, V::Set(2.96047749e-3f));
  p = V::Fma(p, s, V::Set(0.12934421f));
  p = V::Fma(p, s, V::Set(0.99999988f));
  typename V::Reg q = V::Set(2.49256033e-7f);
  q = V::Fma(q, s, V::Set(2.40012625e-4f));
  q = V::Fma(q, s, V::Set(2.38541011e-2f));
  q = V::Fma(q, s, V::Set(0.462676495f));
  q = V::Fma(q, s, V::Set(1.0f));
  return V::Div(V::Mul(x, p), q);
}

// scale * tanh(scale * v) + base is tanh or, as sigmoid(v) = tanh(v / 2) / 2 +
// 1 / 2, sigmoid: one code for both. The branch is the same all through a loop.
template <class V>
struct Activate {
  explicit Activate(CellActivation given)
      : kind(given),
        scale(V::Set(given == CellActivation::kSigmoid ? 0.5f : 1.0f)),
        base(V::Set(given == CellActivation::kSigmoid ? 0.5f : 0.0f)) {}
  TFREWPRUNE_INLINE inline typename V::Reg operator()(typename V::Reg v) const {
    if (kind >= CellActivation::kSigmoid) {
      return V::Fma(Tanh<V>(V::Mul(v, scale)), scale, base);
    }
    if (kind == CellActivation::kLinear) return v;
    return V::Clamp(V::Zero(), V::Set(__builtin_inff()), v);
  }

  CellActivation kind;
  typename V::Reg scale, base;
};

// A step with its activations.
template <class V>
struct Gates : CellStep {
  explicit Gates(const CellStep& step)
      : CellStep(step), inner(step.activation), gate(step.gate_activation) {}

  Activate<V> inner, gate;
};

// Loads and stores of whole vectors, or of the last `count` lanes.
template <class V>
struct WholeLanes {
  TFREWPRUNE_VEC typename V::Reg Load(const float* p, int64_t) {
    return V::Load(p);
  }
  TFREWPRUNE_VEC void Store(float* p, typename V::Reg v, int64_t) {
    V::Store(p, v);
  }
};
template <class V>
struct SomeLanes {
  TFREWPRUNE_VEC typename V::Reg Load(const float* p, int64_t count) {
    float lanes[V::kLanes] = {};
    std::memcpy(lanes, p, static_cast<size_t>(count) * sizeof(float));
    return V::Load(lanes);
  }
  TFREWPRUNE_VEC void Store(float* p, typename V::Reg v, int64_t count) {
    float lanes[V::kLanes];
    V::Store(lanes, v);
    std::memcpy(p, lanes, static_cast<size_t>(count) * sizeof(float));
  }
};

// What both products give for a unit of a gate.
template <class V, class Lanes>
TFREWPRUNE_VEC typename V::Reg GateSum(const Gates<V>& s, int64_t gate,
                                       int64_t i, int64_t count) {
  const int64_t at = gate * s.units + i;
  return V::Add(Lanes::Load(s.x + at, count), Lanes::Load(s.u + at, count));
}

template <class V>
struct LstmCell {
  template <class Lanes>
  TFREWPRUNE_VEC void Run(const Gates<V>& s, int64_t i, int64_t count) {
    auto sum = [&](int64_t gate) TFREWPRUNE_INLINE {
      return GateSum<V, Lanes>(s, gate, i, count);
    };
    const auto in = s.gate(sum(0));
    const auto forget = s.gate(sum(1));
    const auto candidate = s.inner(sum(2));
    const auto out = s.gate(sum(3));
    const auto c = V::Clamp(
        V::Set(-s.clip), V::Set(s.clip),
        V::Fma(forget, Lanes::Load(s.c + i, count), V::Mul(in, candidate)));
    Lanes::Store(s.c + i, c, count);
    Lanes::Store(s.h + i, V::Mul(out, s.inner(c)), count);
  }
};

// z h + (1 - z) n
template <class V>
TFREWPRUNE_VEC typename V::Reg Mix(typename V::Reg z, typename V::Reg h,
                                   typename V::Reg n) {
  const auto rest = V::Fma(z, V::Set(-1.0f), V::Set(1.0f));
  return V::Fma(z, h, V::Mul(rest, n));
}

template <class V>
struct GruCell {
  template <class Lanes>
  TFREWPRUNE_VEC void Run(const Gates<V>& s, int64_t i, int64_t count) {
    const int64_t n = s.units;
    const auto z = s.gate(GateSum<V, Lanes>(s, 0, i, count));
    const auto r = s.gate(GateSum<V, Lanes>(s, 1, i, count));
    const auto candidate =
        s.inner(V::Fma(r, Lanes::Load(s.u + 2 * n + i, count),
                       Lanes::Load(s.x + 2 * n + i, count)));
    const auto h = Lanes::Load(s.h + i, count);
    Lanes::Store(s.h + i, Mix<V>(z, h, candidate), count);
  }
};

template <class V>
struct GruReset {
  template <class Lanes>
  TFREWPRUNE_VEC void Run(const Gates<V>& s, int64_t i, int64_t count) {
    const auto z = s.gate(GateSum<V, Lanes>(s, 0, i, count));
    const auto r = s.gate(GateSum<V, Lanes>(s, 1, i, count));
    Lanes::Store(s.c + i, z, count);
    Lanes::Store(s.reset + i, V::Mul(r, Lanes::Load(s.h + i, count)), count);
  }
};

template <class V>
struct GruMix {
  template <class Lanes>
  TFREWPRUNE_VEC void Run(const Gates<V>& s, int64_t i, int64_t count) {
    const auto sum = V::Add(Lanes::Load(s.x + 2 * s.units + i, count),
                            Lanes::Load(s.u + i, count));
    const auto candidate = s.inner(sum);
    const auto z = Lanes::Load(s.c + i, count);
    const auto h = Lanes::Load(s.h + i, count);
    Lanes::Store(s.h + i, Mix<V>(z, h, candidate), count);
  }
};

template <class V>
struct RnnCell {
  template <class Lanes>
  TFREWPRUNE_VEC void Run(const Gates<V>& s, int64_t i, int64_t count) {
    const auto sum =
        V::Add(Lanes::Load(s.x + i, count), Lanes::Load(s.u + i, count));
    Lanes::Store(s.h + i, s.inner(sum), count);
  }
};

template <class V, class Cell>
void ForAllUnits(const CellStep& given) {
  const Gates<V> step(given);  // what is stored cannot change it
  int64_t i = 0;
  for (; i + V::kLanes <= step.units; i += V::kLanes) {
    Cell::template Run<WholeLanes<V>>(step, i, V::kLanes);
  }
  if (i < step.units) {
    Cell::template Run<SomeLanes<V>>(step, i, step.units - i);
  }
}

template <class V>
inline constexpr CellKernels kCellKernels = {
    ForAllUnits<V, LstmCell<V>>, ForAllUnits<V, GruCell<V>>,
    ForAllUnits<V, GruReset<V>>, ForAllUnits<V, GruMix<V>>,
    ForAllUnits<V, RnnCell<V>>};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_KERNELS_RECURRENT_GENERIC_H_
