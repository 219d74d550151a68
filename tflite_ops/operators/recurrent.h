// SPDX-License-Identifier: Apache-2.0
//
// A recurrent layer: the input's products of many steps at once, then step by
// step the product with the state and the cell (kernels/recurrent.h). All
// matrices are packed operators of their own, with any driver.
#ifndef TFREWPRUNE_OPERATORS_RECURRENT_H_
#define TFREWPRUNE_OPERATORS_RECURRENT_H_

#include "format/op_options.h"
#include "kernels/recurrent.h"
#include "operators/packed_operator.h"

namespace tfrewprune {

// The tensors of one Invoke; what may be absent is nullptr.
struct RecurrentTensors {
  const float* x;               // [batch, steps, features]
  const float* bias;            // [gates * units], or absent
  const float* recurrent_bias;  // of the recurrent matrix's rows, or absent
  const uint8_t* mask;          // [batch, steps], 0 = step left out; or absent
  const float* h_begin;         // [batch, units], zeros when absent
  const float* c_begin;         // LSTM: likewise
  float* y;  // [batch, steps, units] or [batch, units], or absent
  float* h;  // [batch, units]
  float* c;  // LSTM: likewise
};

class RecurrentOperator {
 public:
  static constexpr int kMatrices = 3;

  // The matrices: kernel, recurrent kernel and, of a GRU that resets first, the
  // recurrent kernel of its candidate.
  PackedOperator* matrix(int i) { return &matrix_[i]; }

  // Whether the matrices, once they have been read, fit each other. nullptr, or
  // what is wrong.
  const char* SetOptions(const OpOptions& options);
  int matrices() const { return matrices_; }
  int gates() const;
  int64_t units() const { return units_; }
  int64_t features() const { return matrix_[0].columns(); }

  // Allocates everything that Invoke needs. nullptr, or what is wrong.
  const char* Prepare(int batch, int64_t steps, const Resources& resources);
  // Allocates nothing.
  void Invoke(const RecurrentTensors& tensors);

 private:
  void Begin(const RecurrentTensors& tensors);
  // The products with the input for steps [step, step + rows_), or fewer.
  void Project(const RecurrentTensors& tensors, int64_t step);
  void Step(const RecurrentTensors& tensors, int64_t step);
  void Cell(const RecurrentTensors& tensors, int n, const float* x);
  void Emit(const RecurrentTensors& tensors, int n, int64_t step, bool kept);
  // Which step of the sequence is worked on as the step-th.
  int64_t Place(int64_t step) const {
    return options_.go_backwards ? steps_ - 1 - step : step;
  }

  OpOptions options_ = {};
  PackedOperator matrix_[kMatrices];
  int matrices_ = 2;
  int64_t units_ = 0;
  const CellKernels* cells_ = nullptr;
  int batch_ = 0;
  int64_t steps_ = 0;
  int64_t rows_ = 0;         // steps projected at once
  int64_t first_ = 0;        // the first of them in the sequence
  bool multiplied_ = false;  // with the state before, in this Invoke
  Buffer<float> input_;      // x of those steps, where a batch has more
  Buffer<float> projected_;  // [batch, rows_, gates * units]
  Buffer<float> product_;    // [batch, gates * units], with the state
  Buffer<float> reset_;      // GRU that resets first: the state, and
  Buffer<float> update_;     // its update gate; [batch, units]
  Buffer<float> candidate_;  // and the product of the former
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_RECURRENT_H_
