// SPDX-License-Identifier: Apache-2.0
//
// What the drivers that work on planes have in common: the image is worked on
// in blocks of output rows; the input under a block is transposed to planes in
// a scratch of cache size, then all items of the block, tiles or runs, go over
// all bands.
//
// `Self` derives from it and has
//   void RunItem(int item, const BandValues& values, const float* planes,
//                uint32_t band, uint32_t band_end, float* stage) const
//   void FillMissingRows(int item) const
//   void AddResidual(int item) const    once it has all its bands
#ifndef TFREWPRUNE_OPERATORS_PLANES_DRIVER_H_
#define TFREWPRUNE_OPERATORS_PLANES_DRIVER_H_

#include "kernels/planes.h"
#include "operators/banded_driver.h"
#include "operators/integers.h"
#include "operators/planes_layout.h"

namespace tfrewprune {

// Transposing a float, in cycles.
inline constexpr double kTransposeCycles = 0.27;

// Planes are made for every remainder by the strides; more than this is left to
// drivers that read the image in place.
inline constexpr int kMostPlanesStride = 32;

template <class Self>
class PlanesDriver : public BandedDriver {
 public:
  void Invoke(const Tensors& tensors);

 protected:
  using Block = PlanesBlock;
  // What the workers share.
  enum class Sharing {
    kNothing,  // each takes whole blocks, into planes of its own
    kBlock,    // items and bands of the only block, each with its own planes
    kPlanes,   // items and bands of one block after the other
  };

  // Whether planes are a way to do a problem.
  static bool Supports(const Problem& problem);
  // Cuts the output into the blocks of `layout_`; items(block) makes a block's
  // items and returns false when memory is out, which this then does, too.
  template <class Items>
  bool MakeBlocks(Items items);
  // Tables of kernel rows and taps; how threads share the work, for which bands
  // come in groups; scratch, of which every worker has `stage` floats and all
  // have `shared` together. nullptr, or what is wrong.
  const char* PreparePlanes(const Kernels& kernels, int64_t group,
                            int64_t stage, int64_t shared);
  float* Shared() const {
    return workspace_->get() + first_stage_ + stage_floats_ * threads_;
  }

  PlanesLayout layout_;
  Buffer<ptrdiff_t> tap_offset_;

 private:
  bool ChooseSharing(int64_t group);
  Self* self() { return static_cast<Self*>(this); }
  float* Planes(int worker) const {
    return workspace_->get() +
           (sharing_ == Sharing::kPlanes ? 0 : worker) * planes_floats_;
  }
  float* Stage(int worker) const {
    return workspace_->get() + first_stage_ + worker * stage_floats_;
  }
  // A share of the planes of a block.
  void Store(const Block& block, float* planes, int share, int shares) const {
    layout_.StoreRows(block, input_, transpose_, planes, share, shares);
  }
  void RunBands(int item, int item_end, int64_t band, int64_t band_end,
                int worker);
  void BlockTask(int task, int worker);
  void ItemTask(int task, int worker);
  void OwnPlanesTask(int worker);
  int TakeTask(int worker);
  void RunShared(const Block& block);

  TransposeKernel transpose_ = nullptr;
  Buffer<Block> block_;
  int blocks_ = 0;
  Sharing sharing_ = Sharing::kNothing;
  int64_t group_ = 1, bands_at_once_ = 1;
  int band_tasks_ = 1, item_tasks_ = 1;
  int64_t planes_floats_ = 0, first_stage_ = 0, stage_floats_ = 0;
  const Block* shared_ = nullptr;
  // Where workers share the only block: each has its own share of the tasks, so
  // that it writes the same output from call to call; who is done with it takes
  // from the others'.
  struct alignas(64) Worker {
    int64_t image;   // the one its planes hold
    uint32_t taken;  // tasks of its share
  };
  Buffer<Worker> worker_;
  int64_t image_ = 0;  // counts them
};

template <class Self>
bool PlanesDriver<Self>::Supports(const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  return problem.bands != nullptr && problem.kernels->transpose != nullptr &&
         problem.bands->index_bytes == 2 && g.batch > 0 &&
         problem.pixels() > 0 &&
         Max(g.stride_h, g.stride_w) <= kMostPlanesStride;
}

template <class Self>
template <class Items>
bool PlanesDriver<Self>::MakeBlocks(Items items) {
  const ConvGeometry& g = geometry_;
  const int block_rows = layout_.block_rows();
  const int block_pixels = layout_.block_pixels();
  const int64_t across = DivideUp(g.out_w, block_pixels);
  if (!block_.Allocate(layout_.blocks())) return false;
  blocks_ = 0;
  for (int64_t i = 0; i < layout_.blocks(); ++i) {
    Block& block = block_[blocks_++];
    block.y = static_cast<int>(i / across * block_rows);
    block.x = static_cast<int>(i % across * block_pixels);
    block.y_end = static_cast<int>(Min(g.out_h, int64_t{block.y} + block_rows));
    block.x_end =
        static_cast<int>(Min(g.out_w, int64_t{block.x} + block_pixels));
    if (!items(&block)) return false;
  }
  return true;
}

// Where it is fair every worker takes whole blocks. A single block is stored by
// every worker for itself where there are bands enough: reading planes that lie
// in another core's cache takes longer than transposing them again. Else all
// work on one block after the other, first on its transposition, then on its
// items and bands.
template <class Self>
bool PlanesDriver<Self>::ChooseSharing(int64_t group) {
  // Groups of bands for each worker, and its tasks: the last ones should be
  // short.
  constexpr int kGroupsPerThread = 4, kTasksPerThread = 16;
  group_ = group;
  bands_at_once_ = BandsAtOnce(group);
  item_tasks_ = band_tasks_ = 1;
  sharing_ = Sharing::kNothing;
  const int64_t busiest = DivideUp(blocks_, threads_) * layout_.block_rows() *
                          layout_.block_pixels() * threads_;
  if (threads_ == 1 || blocks_ == 0 ||
      kFairShare * static_cast<double>(busiest) <=
          double(geometry_.out_h) * geometry_.out_w) {
    return true;
  }
  const int64_t groups = DivideUp(weights_.band_count, group);
  const int64_t items = block_[0].item_end - block_[0].item;
  int tasks = 4 * threads_;
  sharing_ = Sharing::kPlanes;
  if (blocks_ == 1 && groups >= kGroupsPerThread * threads_) {
    sharing_ = Sharing::kBlock;
    tasks = kTasksPerThread * threads_;
  }
  band_tasks_ = static_cast<int>(Max(1, Min(groups, tasks)));
  item_tasks_ =
      static_cast<int>(Max(1, Min(items, DivideUp(tasks, band_tasks_))));
  return sharing_ != Sharing::kBlock || worker_.Allocate(threads_);
}

template <class Self>
const char* PlanesDriver<Self>::PreparePlanes(const Kernels& kernels,
                                              int64_t group, int64_t stage,
                                              int64_t shared) {
  const ConvGeometry& g = geometry_;
  transpose_ = kernels.transpose;
  const auto tap = [&](int64_t y, int64_t x) {
    return layout_.TapOffset(y * g.dilation_h, x * g.dilation_w);
  };
  if (!ChooseSharing(group) || !PrepareStarts() ||
      !TapOffsets(layout_.channel_stride(), tap, &tap_offset_)) {
    return kOutOfMemory;
  }
  planes_floats_ = layout_.floats();
  stage_floats_ = stage;
  first_stage_ = planes_floats_ * (sharing_ == Sharing::kPlanes ? 1 : threads_);
  return ReserveScratch(first_stage_ + stage * threads_ + shared,
                        bands_at_once_)
             ? nullptr
             : kOutOfMemory;
}

// Of all bands and items in the ranges.
template <class Self>
void PlanesDriver<Self>::RunBands(int item, int item_end, int64_t band,
                                  int64_t band_end, int worker) {
  const float* planes = Planes(worker);
  float* stage = Stage(worker);
  const bool first = band == 0;
  const bool all = first && band_end == weights_.band_count;
  do {  // once also where there are no bands
    const int64_t stop = Min(band_end, band + bands_at_once_);
    const BandValues values = KernelValues(band, stop, worker);
    for (int i = item; i < item_end; ++i) {
      self()->RunItem(i, values, planes, static_cast<uint32_t>(band),
                      static_cast<uint32_t>(stop), stage);
      if (stop < band_end) continue;
      if (first) self()->FillMissingRows(i);
      if (all) self()->AddResidual(i);
    }
    band = stop;
  } while (band < band_end);
}

// All of one block.
template <class Self>
void PlanesDriver<Self>::BlockTask(int task, int worker) {
  const Block& block = block_[task];
  Store(block, Planes(worker), 0, 1);
  RunBands(block.item, block.item_end, 0, weights_.band_count, worker);
}

// Some items and bands of the shared block.
template <class Self>
void PlanesDriver<Self>::ItemTask(int task, int worker) {
  const int64_t items = shared_->item_end - shared_->item;
  const int64_t i = task % item_tasks_, b = task / item_tasks_;
  const int64_t bands = weights_.band_count;
  const int64_t groups = DivideUp(bands, group_);
  RunBands(shared_->item + static_cast<int>(items * i / item_tasks_),
           shared_->item + static_cast<int>(items * (i + 1) / item_tasks_),
           groups * b / band_tasks_ * group_,
           Min(bands, groups * (b + 1) / band_tasks_ * group_), worker);
}

// The next task of the worker's share, or of another's: as often as there are
// tasks.
template <class Self>
int PlanesDriver<Self>::TakeTask(int worker) {
  const int tasks = item_tasks_ * band_tasks_;
  for (int i = worker;; i = i + 1 < threads_ ? i + 1 : 0) {
    const uint32_t begin = static_cast<uint32_t>(tasks * i / threads_);
    const uint32_t end = static_cast<uint32_t>(tasks * (i + 1) / threads_);
    const uint32_t task =
        begin + __atomic_fetch_add(&worker_[i].taken, 1, __ATOMIC_RELAXED);
    if (task < end) return static_cast<int>(task);
  }
}

// Of the only block, which every worker stores for itself.
template <class Self>
void PlanesDriver<Self>::OwnPlanesTask(int worker) {
  if (worker_[worker].image != image_) {
    Store(*shared_, Planes(worker), 0, 1);
    worker_[worker].image = image_;
  }
  ItemTask(TakeTask(worker), worker);
}

template <class Self>
void PlanesDriver<Self>::RunShared(const Block& block) {
  shared_ = &block;
  if (sharing_ == Sharing::kPlanes) {
    constexpr int kSharesPerThread = 4;
    Run(
        kSharesPerThread * threads_,
        [](void* context, int task, int) {
          PlanesDriver* self = static_cast<Self*>(context);
          self->Store(*self->shared_, self->Planes(0), task,
                      kSharesPerThread * self->threads_);
        },
        self());
    Run(
        item_tasks_ * band_tasks_,
        [](void* context, int task, int worker) {
          static_cast<Self*>(context)->ItemTask(task, worker);
        },
        self());
  } else {
    for (int i = 0; i < threads_; ++i) worker_[i].taken = 0;
    Run(
        item_tasks_ * band_tasks_,
        [](void* context, int, int worker) {
          static_cast<Self*>(context)->OwnPlanesTask(worker);
        },
        self());
  }
  if (band_tasks_ == 1 || residual_.values == nullptr) return;
  // Only now every item has all its bands.
  Run(
      block.item_end - block.item,
      [](void* context, int task, int) {
        Self* self = static_cast<Self*>(context);
        self->AddResidual(self->shared_->item + task);
      },
      self());
}

template <class Self>
void PlanesDriver<Self>::Invoke(const Tensors& tensors) {
  BeginInvoke(tensors);
  for (int n = 0; n < geometry_.batch; ++n) {
    BeginImage(n);
    ++image_;
    if (sharing_ == Sharing::kNothing) {
      Run(
          blocks_,
          [](void* context, int task, int worker) {
            static_cast<Self*>(context)->BlockTask(task, worker);
          },
          self());
      continue;
    }
    for (int b = 0; b < blocks_; ++b) RunShared(block_[b]);
  }
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PLANES_DRIVER_H_
