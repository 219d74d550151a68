// SPDX-License-Identifier: Apache-2.0
#include "operators/irregular_fully_connected.h"

#include "simd/unroll.h"

namespace tfrewprune {
namespace {

// From this batch on most lanes of a vector of pixels are at work.
constexpr int kVectorBatch = 4;
// A task below this many weights is not worth a hand-off.
constexpr uint64_t kTaskWeights = 16 << 10;

// GNU vectors: native on SSE2 and NEON, plain code elsewhere.
using Four = float __attribute__((vector_size(16)));

Four ValuesAt(const float* value) {
  Four four;
  memcpy(&four, value, sizeof(four));
  return four;
}

Four InputsAt(const uint16_t* column, const float* x) {
  uint64_t c;  // one load for four columns
  memcpy(&c, column, sizeof(c));
  return Four{x[c & 0xffff], x[c >> 16 & 0xffff], x[c >> 32 & 0xffff],
              x[c >> 48]};
}

Four InputsAt(const uint32_t* column, const float* x) {
  return Four{x[column[0]], x[column[1]], x[column[2]], x[column[3]]};
}

// Loads are the bound: one for every input, a quarter for its column and its
// value. Gathers (AVX2, AVX-512) took longer by two thirds on Zen 5. Four sums,
// so that the latency of an addition is not the bound.
template <class Index>
float Dot(const Index* column, const float* value, uint32_t count,
          const float* x) {
  Four sum[4] = {};
  uint32_t i = 0;
  for (; i + 16 <= count; i += 16) {
    Unroll<4>([&](auto j) TFREWPRUNE_INLINE {
      sum[j] += InputsAt(column + i + 4 * j, x) * ValuesAt(value + i + 4 * j);
    });
  }
  for (; i + 4 <= count; i += 4) {
    sum[0] += InputsAt(column + i, x) * ValuesAt(value + i);
  }
  float rest = 0.0f;
  for (; i < count; ++i) rest += x[column[i]] * value[i];
  const Four all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  return (all[0] + all[1]) + (all[2] + all[3]) + rest;
}

}  // namespace

const char* IrregularFullyConnected::Prepare(const IrregularView& weights,
                                             int batch, Activation activation,
                                             Isa isa, ThreadPool* pool,
                                             Workspace* workspace) {
  weights_ = weights;
  batch_ = batch;
  activation_ = activation;
  pool_ = pool;
  if (weights.taps != 1) {
    return "payload does not fit a fully connected layer: its taps must be 1";
  }
  vectors_ = batch < kVectorBatch && isa != Isa::kReference;
  if (!vectors_) {
    ConvGeometry geometry = {};
    geometry.batch = geometry.in_h = geometry.out_h = 1;
    geometry.in_w = geometry.out_w = batch;
    geometry.in_c = static_cast<int>(weights.columns);
    geometry.kernel_h = geometry.kernel_w = 1;
    geometry.stride_h = geometry.stride_w = 1;
    geometry.dilation_h = geometry.dilation_w = 1;
    return pixels_.Prepare(weights, geometry, activation, isa, pool, workspace);
  }
  const int threads = pool == nullptr ? 1 : pool->threads();
  uint64_t tasks = weights.weight_count / kTaskWeights;
  if (tasks > static_cast<uint64_t>(threads)) tasks = threads;
  if (tasks > weights.rows) tasks = weights.rows;
  tasks_ = tasks < 1 ? 1 : static_cast<int>(tasks);
  const uint32_t chunks = weights.chunk_count();
  if (!first_.Allocate(uint64_t{chunks} * (tasks_ + 1))) return kOutOfMemory;
  uint32_t s = 0;
  for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
    uint32_t* first = first_.get() + uint64_t{chunk} * (tasks_ + 1);
    for (int t = 0; t <= tasks_; ++t) {
      const uint64_t row = uint64_t{weights.rows} * t / tasks_;
      while (s < weights.segment_count && weights.Chunk(s) == chunk &&
             weights.RowId(s) < row) {
        ++s;
      }
      first[t] = s;
    }
  }
  return nullptr;
}

// The rows of one task; no other task adds to them.
template <class Index>
void IrregularFullyConnected::RunTask(int task) {
  const IrregularView& w = weights_;
  const Index* row = static_cast<const Index*>(w.row_id);
  const Index* column = static_cast<const Index*>(w.column);
  for (uint32_t chunk = 0; chunk < w.chunk_count(); ++chunk) {
    const uint32_t* first =
        first_.get() + uint64_t{chunk} * (tasks_ + 1) + task;
    for (uint32_t s = first[0]; s < first[1]; ++s) {
      const uint32_t begin = w.segment_start[s];
      output_[row[s]] += Dot(column + begin, w.value + begin,
                             w.segment_start[s + 1] - begin, input_);
    }
  }
}

void IrregularFullyConnected::Invoke(const float* input, const float* bias,
                                     float* output) {
  if (!vectors_) {
    pixels_.Invoke(input, bias, output);
    return;
  }
  const uint32_t rows = weights_.rows;
  const ThreadPool::Function run =
      weights_.index_bytes == 2
          ? [](void* self, int task, int) {
              static_cast<IrregularFullyConnected*>(self)->RunTask<uint16_t>(
                  task);
            }
          : [](void* self, int task, int) {
              static_cast<IrregularFullyConnected*>(self)->RunTask<uint32_t>(
                  task);
            };
  for (int n = 0; n < batch_; ++n) {
    input_ = input + int64_t{n} * weights_.columns;
    output_ = output + int64_t{n} * rows;
    for (uint32_t o = 0; o < rows; ++o) {
      output_[o] = bias == nullptr ? 0.0f : bias[o];
    }
    if (tasks_ > 1) {
      pool_->Run(tasks_, run, this);
    } else {
      run(this, 0, 0);
    }
  }
  Activate(activation_, output, int64_t{batch_} * rows);
}

}  // namespace tfrewprune
