// SPDX-License-Identifier: Apache-2.0
#include "operators/recurrent.h"

#include "isa/denormals.h"
#include "operators/integers.h"

namespace tfrewprune {
namespace {

// Projections of so many steps are made at once that they stay in the
// second-level cache until their step comes.
constexpr int64_t kProjectedBytes = 512 << 10;

}  // namespace

int RecurrentOperator::gates() const {
  return options_.kind == OpKind::kGru    ? 3
         : options_.kind == OpKind::kLstm ? 4
                                          : 1;
}

const char* RecurrentOperator::SetOptions(const OpOptions& options) {
  options_ = options;
  const bool apart = options.kind == OpKind::kGru && !options.reset_after;
  matrices_ = apart ? 3 : 2;
  units_ = matrix_[1].columns();
  const int64_t rows = gates() * units_;
  if (matrix_[0].rows() != rows) {
    return "the kernel must have gates x units rows, where the recurrent "
           "kernel has units columns";
  }
  if (matrix_[1].rows() != (apart ? rows - units_ : rows)) {
    return "the recurrent kernel must have gates x units rows, without the "
           "candidate's when those are apart, and units columns";
  }
  if (apart &&
      (matrix_[2].rows() != units_ || matrix_[2].columns() != units_)) {
    return "the candidate's recurrent kernel must have units rows and columns";
  }
  return nullptr;
}

const char* RecurrentOperator::Prepare(int batch, int64_t steps,
                                       const Resources& resources) {
  batch_ = batch;
  steps_ = steps;
  cells_ = SelectCellKernels(resources.kernels->isa);
  if (batch == 0 || steps == 0) return nullptr;
  const int64_t width = gates() * units_;
  const int64_t step_bytes =
      batch * (width + (batch > 1 ? features() : 0)) * int64_t{sizeof(float)};
  rows_ = Min(steps, Max(1, kProjectedBytes / step_bytes));
  const bool gathers = batch > 1 && rows_ < steps;
  if ((gathers && !input_.Allocate(batch * rows_ * features())) ||
      !projected_.Allocate(batch * rows_ * width) ||
      !product_.Allocate(batch * width)) {
    return kOutOfMemory;
  }
  const char* error = matrix_[0].PrepareFullyConnected(
      static_cast<int>(batch * rows_), Activation::kNone, resources);
  for (int i = 1; i < matrices_ && error == nullptr; ++i) {
    error =
        matrix_[i].PrepareFullyConnected(batch, Activation::kNone, resources);
  }
  if (error != nullptr || matrices_ < 3) return error;
  const int64_t states = batch * units_;
  return reset_.Allocate(states) && update_.Allocate(states) &&
                 candidate_.Allocate(states)
             ? nullptr
             : kOutOfMemory;
}

void RecurrentOperator::Invoke(const RecurrentTensors& tensors) {
  if (batch_ == 0) return;
  const FlushDenormals flush;
  Begin(tensors);
  multiplied_ = false;
  for (int64_t step = 0; step < steps_; ++step) {
    if (step % rows_ == 0) Project(tensors, step);
    Step(tensors, step);
  }
}

void RecurrentOperator::Begin(const RecurrentTensors& tensors) {
  const size_t bytes = batch_ * units_ * sizeof(float);
  const auto copy = [bytes](const float* from, float* to) {
    if (from == nullptr) {
      memset(to, 0, bytes);
    } else {
      memmove(to, from, bytes);
    }
  };
  copy(tensors.h_begin, tensors.h);
  if (tensors.c != nullptr) copy(tensors.c_begin, tensors.c);
  if (tensors.y != nullptr && options_.output == SequenceOutput::kLast)
    memset(tensors.y, 0, bytes);
}

void RecurrentOperator::Project(const RecurrentTensors& tensors, int64_t step) {
  // The last rows_ steps are whole: some are projected again.
  first_ = options_.go_backwards ? Max(0, steps_ - step - rows_)
                                 : Min(step, steps_ - rows_);
  const float* x = tensors.x + first_ * features();
  if (batch_ > 1 && rows_ < steps_) {
    const int64_t row = rows_ * features();
    for (int n = 0; n < batch_; ++n) {
      memcpy(input_.get() + n * row, x + n * steps_ * features(),
             row * sizeof(float));
    }
    x = input_.get();
  }
  matrix_[0].Invoke({x, tensors.bias, nullptr, projected_.get()});
}

void RecurrentOperator::Step(const RecurrentTensors& tensors, int64_t step) {
  const int64_t place = Place(step);
  const auto kept = [&](int n) {
    return tensors.mask == nullptr || tensors.mask[n * steps_ + place] != 0;
  };
  const int64_t width = gates() * units_;
  const auto projection = [&](int n) {
    return projected_.get() + (n * rows_ + place - first_) * width;
  };
  if (batch_ > 1 || kept(0)) {
    matrix_[1].Invoke({tensors.h, tensors.recurrent_bias, nullptr,
                       product_.get(), multiplied_});
    if (matrices_ > 2) {
      for (int n = 0; n < batch_; ++n) {
        cells_->gru_reset(
            {units_, static_cast<CellActivation>(options_.cell_activation),
             static_cast<CellActivation>(options_.gate_activation),
             projection(n), product_.get() + n * 2 * units_,
             tensors.h + n * units_, update_.get() + n * units_,
             reset_.get() + n * units_});
      }
      matrix_[2].Invoke(
          {reset_.get(), nullptr, nullptr, candidate_.get(), multiplied_});
    }
    multiplied_ = true;
  }
  for (int n = 0; n < batch_; ++n) {
    if (kept(n)) Cell(tensors, n, projection(n));
    if (tensors.y != nullptr) {
      Emit(tensors, n, step, kept(n));
    }
  }
}

void RecurrentOperator::Cell(const RecurrentTensors& tensors, int n,
                             const float* x) {
  const int64_t at = n * units_;
  CellStep step = {units_,
                   static_cast<CellActivation>(options_.cell_activation),
                   static_cast<CellActivation>(options_.gate_activation),
                   x,
                   product_.get() + n * gates() * units_,
                   tensors.h + at,
                   nullptr,
                   nullptr};
  if (options_.kind == OpKind::kLstm) {
    step.c = tensors.c + at;
    if (options_.cell_clip > 0) step.clip = options_.cell_clip;
    cells_->lstm(step);
  } else if (options_.kind == OpKind::kRnn) {
    cells_->rnn(step);
  } else if (matrices_ == 2) {
    cells_->gru(step);
  } else {
    step.u = candidate_.get() + at;
    step.c = update_.get() + at;
    cells_->gru_mix(step);
  }
}

void RecurrentOperator::Emit(const RecurrentTensors& tensors, int n,
                             int64_t step, bool kept) {
  const size_t bytes = units_ * sizeof(float);
  const bool all = options_.output == SequenceOutput::kAll;
  float* y = tensors.y + (all ? n * steps_ + step : n) * units_;
  if (kept) {
    memcpy(y, tensors.h + n * units_, bytes);
  } else if (options_.zero_output || (all && step == 0)) {
    memset(y, 0, bytes);
  } else if (all) {
    memcpy(y, y - units_, bytes);
  }
}

}  // namespace tfrewprune
