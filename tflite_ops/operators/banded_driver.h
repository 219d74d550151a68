// SPDX-License-Identifier: Apache-2.0
//
// What all drivers of banded weights have in common.
#ifndef TFREWPRUNE_OPERATORS_BANDED_DRIVER_H_
#define TFREWPRUNE_OPERATORS_BANDED_DRIVER_H_

#include "operators/band_tables.h"
#include "operators/buffer.h"
#include "operators/driver.h"

namespace tfrewprune {

// The weights of some bands: `value` holds those of column `begin` and on.
struct BandValues {
  const float* value;
  uint32_t begin;
};

class BandedDriver {
 protected:
  // Work goes over bands of about so many bytes of weights before the next ones
  // come: more would have to come from afar again for every tile.
  static constexpr uint64_t kBandBytes = 192 << 10;

  // Takes the problem over. nullptr, or what is wrong.
  const char* Begin(const Problem& problem);
  // Where the columns of each kernel row begin, for convolutions. False when
  // memory is out.
  bool PrepareStarts();
  // Bands that are worked on together, a multiple of `group`.
  int64_t BandsAtOnce(int64_t group) const;
  // Scratch for the driver, and for every worker what FloatValues() converts:
  // at most `bands_at_once` bands. False when memory is out.
  bool ReserveScratch(int64_t floats, int64_t bands_at_once);
  // The weights of bands [band, band_end) as kernels read them: where they lie,
  // or converted. Until the worker's next call.
  BandValues FloatValues(int64_t band, int64_t band_end, int worker) const;
  // As the kernels read them.
  uint64_t weight_bytes() const {
    return weights_.column_count * weights_.band_rows * sizeof(float);
  }

  // Brings the bias into packed order unless told otherwise.
  void BeginInvoke(const Tensors& tensors, bool pack_bias = true);
  // From here on `input_`, `output_` and `residual_` are those of image n.
  void BeginImage(int n);
  // Calls function(self, task, worker) for all tasks, by all threads.
  void Run(int tasks, ThreadPool::Function function, void* self);

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
  const Kernels* kernels_ = nullptr;
  int64_t first_value_ = 0, value_floats_ = 0;  // in the workspace; a worker's
  Tensors tensors_ = {};
};

// What kernels that hold output rows in their vectors do for a column and a
// pixel.
struct BandFmas {
  double vectors;
  int fmas_a_cycle;
};
BandFmas FmasOfBands(const Problem& problem);

// What it takes to convert all weights once for kernels that read floats.
double WidenCycles(const Problem& problem);

// Bytes of the tables of kernel rows and taps.
double TableBytes(const Problem& problem);

// An Invoke of a driver that goes through tables of tiles, before the first
// one.
inline constexpr double kSetUpCycles = 3000;

// What a tile of so many pixels and a band take beside their columns: stores
// wait for the last FMAs, and longer where they go to one set of the
// first-level cache.
double StoreCycles(const BandedView& weights, double pixels);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_BANDED_DRIVER_H_
