// SPDX-License-Identifier: Apache-2.0
//
// What all drivers of banded weights have in common.
#ifndef TFREWPRUNE_OPERATORS_BANDED_DRIVER_H_
#define TFREWPRUNE_OPERATORS_BANDED_DRIVER_H_

#include "operators/band_tables.h"
#include "operators/buffer.h"
#include "operators/driver.h"
#include "operators/tiling.h"

namespace tfrewprune {

// The weights of some bands: `value` holds those of column `begin` and on.
struct BandValues {
  const void* value;
  uint32_t begin;
};

class BandedDriver {
 protected:
  // `half`: in float16 arithmetic, where the problem has kernels for it.
  explicit BandedDriver(bool half = false) : half_(half) {}

  // Work goes over bands of about so many bytes of weights before the next ones
  // come: more would have to come from afar again for every tile.
  static constexpr uint64_t kBandBytes = 192 << 10;

  // Takes the problem over; rounds weights to halves where those are needed.
  // nullptr, or what is wrong.
  const char* Begin(const Problem& problem);
  // Where the columns of each kernel row begin, for convolutions. False when
  // memory is out.
  bool PrepareStarts();
  // Where each tap's channels, `channel_stride` values apart, begin in what the
  // kernels read; offset(kernel row, kernel column) in values. In bytes, those
  // of the tap's first column taken off. False when memory is out.
  template <class Offset>
  bool TapOffsets(int64_t channel_stride, Offset offset,
                  Buffer<ptrdiff_t>* offsets) const;
  // What the direct kernels are told of the layer, but for the offsets of its
  // columns; strides in values. It points into the tables.
  DirectLayer MakeDirectLayer(int64_t pixel_stride,
                              int64_t output_stride) const;
  // Bands that are worked on together, a multiple of `group`.
  int64_t BandsAtOnce(int64_t group) const;
  // Scratch for the driver, and for every worker what KernelValues() converts:
  // at most `bands_at_once` bands. False when memory is out.
  bool ReserveScratch(int64_t floats, int64_t bands_at_once);
  // The weights of bands [band, band_end) as kernels read them: where they lie,
  // or converted. Until the worker's next call.
  BandValues KernelValues(int64_t band, int64_t band_end, int worker) const;
  // Of weights and inputs as the kernels read them.
  int64_t value_bytes() const { return half_ ? sizeof(Half) : sizeof(float); }
  uint64_t weight_bytes() const {
    return weights_.column_count * weights_.band_rows * value_bytes();
  }
  // To bring inputs into that form; `half_` alone.
  NarrowKernel narrow() const { return kernels_->narrow; }

  // Brings the bias into packed order unless told otherwise.
  void BeginInvoke(const Tensors& tensors, bool pack_bias = true);
  // From here on `input_`, `output_` and `residual_` are those of image n.
  void BeginImage(int n);
  // Of tile i, whose pixels are `output_stride` floats apart: the rows that no
  // band carries, and what comes once it has all its bands.
  void FillMissingRows(const Tiling& tiling, int i,
                       int64_t output_stride) const;
  void AddResidual(const Tiling& tiling, int i, int64_t output_stride) const;
  // Calls function(self, task, worker) for all tasks, by all threads.
  void Run(int tasks, ThreadPool::Function function, void* self);

  const bool half_;
  BandedView weights_ = {};
  ConvGeometry geometry_ = {};  // pointwise: one row of all pixels
  BandTables tables_;
  ThreadPool* pool_ = nullptr;
  int threads_ = 1;
  Workspace* workspace_ = nullptr;
  Buffer<uint32_t> start_;

  // Of the image at work.
  const float* input_ = nullptr;
  float* output_ = nullptr;
  Residual residual_;

 private:
  const char* RoundWeights();

  const Kernels* kernels_ = nullptr;
  Buffer<Half> rounded_;  // the weights, where they were floats
  int64_t first_value_ = 0, value_floats_ = 0;  // in the workspace; a worker's
  Tensors tensors_ = {};
};

// What the direct kernels do.
BandFmas FmasOfBands(const Problem& problem);

// Makes it the problem of a driver in float16 arithmetic: `kernels` become
// those for it. False where it is not wanted, or there are none for such
// weights.
bool WithHalfKernels(Problem* problem);

// What it takes to convert all weights once for kernels that read floats.
double WidenCycles(const Problem& problem);

// The offset of a column for the direct kernels, in cycles.
inline constexpr double kOffsetCycles = 1.5;

// Bytes of the tables of kernel rows and taps.
double TableBytes(const Problem& problem);

// An Invoke of a driver that goes through tables of tiles, before the first
// one.
inline constexpr double kSetUpCycles = 3000;

// What a tile of so many pixels and a band take beside their columns: stores
// wait for the last FMAs, and longer where they go to one set of the
// first-level cache.
double StoreCycles(const BandedView& weights, double pixels);

template <class Offset>
bool BandedDriver::TapOffsets(int64_t channel_stride, Offset offset,
                              Buffer<ptrdiff_t>* offsets) const {
  const ConvGeometry& g = geometry_;
  const int64_t taps = int64_t{g.kernel_h} * g.kernel_w;
  if (!offsets->Allocate(taps)) return false;
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t values = offset(tap / g.kernel_w, tap % g.kernel_w) -
                           tap * g.in_c * channel_stride;
    (*offsets)[tap] = static_cast<ptrdiff_t>(values * value_bytes());
  }
  return true;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_BANDED_DRIVER_H_
