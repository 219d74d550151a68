// SPDX-License-Identifier: Apache-2.0
#include "operators/conv2d.h"

#include "kernels/reference.h"
#include "operators/planar_layout.h"

namespace tfrewprune {
namespace {

const char* CheckGeometry(const BandedView& weights, const ConvGeometry& g) {
  if (const char* error = CheckPositive(g)) return error;
  if (uint64_t(g.kernel_h) * g.kernel_w * g.in_c != weights.columns) {
    return "payload does not fit the convolution: its columns must be kernel "
           "height x kernel width x input channels";
  }
  return CheckImages(g, weights.rows);
}

// True where the band kernels, which read the image as it is, win although the
// planar kernels could do the layer. Those take 14 cycles for the FMAs that
// take the band kernels 15 to 16 (28 pixels are 28 loads), but their input must
// be transposed: what counts is how much is done with an input. The limits are
// measured, see HACKING.md.
bool DirectWins(const BandedView& weights, const ConvGeometry& g) {
  constexpr int64_t kTile = 28;  // pixels
  // Few pixels leave little to transpose and make emptier tiles here.
  if (int64_t{g.batch} * g.out_h * g.out_w < 100) return false;
  // Pixels, or output pixels, that share a set of the first-level cache: the
  // planar kernels have an answer to both.
  if (CacheSets(int64_t{g.stride_w} * g.in_c) < 2) return false;
  if (CacheSets(weights.rows) < 4) return false;
  const bool pointwise = g.kernel_h == 1 && g.kernel_w == 1;
  // FMA cycles for every input.
  const double cycles = 0.5 * g.out_h * g.out_w *
                        static_cast<double>(weights.column_count) *
                        weights.band_rows / 16;
  const double inputs = pointwise ? double(g.out_h) * g.out_w * g.in_c
                                  : double(g.in_h) * g.in_w * g.in_c;
  const double reuse = cycles / inputs;
  // Bytes that a tile reads: once for every band, from the second-level cache
  // where they are more than the first one holds.
  const double window =
      double(sizeof(float)) * g.in_c * ((g.kernel_h - 1) * g.dilation_h + 1) *
      (pointwise
           ? kTile
           : (kTile - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1);
  return reuse <= (pointwise ? 1.0 : 2.5) && window <= 64 * 1024 &&
         reuse * window <= 54 * 1024;
}

}  // namespace

const char* Conv2D::Prepare(const BandedView& weights,
                            const ConvGeometry& geometry, Activation activation,
                            const Kernels* kernels, ThreadPool* pool,
                            Workspace* workspace, bool sums) {
  weights_ = weights;
  geometry_ = geometry;
  activation_ = activation;
  kernels_ = kernels;
  const ConvGeometry& g = geometry_;
  if (const char* error = CheckGeometry(weights, g)) return error;
  residual_.add = kernels->add;
  ActivationRange(activation, &residual_.minimum, &residual_.maximum);
  if (kernels->isa == Isa::kReference || OutputCount() == 0) return nullptr;
  const Activation in_kernels = sums ? Activation::kNone : activation;
  if (const char* error = tables_.Prepare(weights, in_kernels)) return error;

  if (workspace == nullptr) workspace = &own_workspace_;
  flat_ = FlatConv::Supports(*kernels, weights);
  planar_ = !flat_ && PlanarConv::Supports(*kernels, weights) &&
            !DirectWins(weights, g);
  if (flat_) {
    return flat_conv_.Prepare(weights, g, tables_, *kernels, pool, workspace);
  }
  return planar_ ? planar_conv_.Prepare(weights, g, tables_, *kernels, pool,
                                        workspace)
                 : direct_conv_.Prepare(weights, g, tables_, *kernels, pool,
                                        workspace);
}

int64_t Conv2D::OutputCount() const {
  return int64_t{geometry_.batch} * geometry_.out_h * geometry_.out_w *
         weights_.rows;
}

void Conv2D::Invoke(const float* input, const float* bias, float* output,
                    const float* residual) {
  const int64_t count = OutputCount();
  if (count == 0) return;
  residual_.values = residual;
  if (kernels_->isa == Isa::kReference) {
    ReferenceConv2D(weights_, geometry_, Activation::kNone, input, bias,
                    output);
    residual_.Complete(0, count, output);
    Activate(activation_, output, count);
    return;
  }
  tables_.PackBias(bias);
  if (flat_) {
    flat_conv_.Invoke(input, output, residual_);
  } else if (planar_) {
    planar_conv_.Invoke(input, output, residual_);
  } else {
    direct_conv_.Invoke(input, output, residual_);
  }
  if (NeedsPostPass(activation_)) Activate(activation_, output, count);
}

}  // namespace tfrewprune
