// SPDX-License-Identifier: Apache-2.0
#include "operators/conv2d.h"

#include "kernels/reference.h"

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
  planar_ = PlanarConv::Supports(*kernels, weights);
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
  if (planar_) {
    planar_conv_.Invoke(input, output, residual_);
  } else {
    direct_conv_.Invoke(input, output, residual_);
  }
  if (NeedsPostPass(activation_)) Activate(activation_, output, count);
}

}  // namespace tfrewprune
