// SPDX-License-Identifier: Apache-2.0
//
// What the drivers that work on planes have in common: the image is worked on
// in blocks of output rows; the input under a block is transposed to planes in
// a scratch of cache size, then all items of the block, tiles or runs, go over
// all bands.
//
// `Self` derives from it and has
//   void Store(const Block&, float* planes, int share, int shares) const
//   void RunItem(int item, const BandValues& values, const float* planes,
//                uint32_t band, uint32_t band_end, float* stage) const
//   void FillMissingRows(int item) const
//   void AddResidual(int item) const    once it has all its bands
#ifndef TFREWPRUNE_OPERATORS_PLANES_DRIVER_H_
#define TFREWPRUNE_OPERATORS_PLANES_DRIVER_H_

#include "kernels/planar.h"
#include "operators/banded_driver.h"
#include "operators/integers.h"
#include "operators/planes_block.h"

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

  // Cuts the output into blocks; items(block) makes a block's items and returns
  // false when memory is out, which this then does, too.
  template <class Items>
  bool MakeBlocks(int block_rows, int block_pixels, Items items);
  // How threads share the work; bands come in groups. False when memory is out.
  bool ChooseSharing(int64_t block_pixels, int64_t group);
  // Where each tap's channels begin in planes that have `channel_stride`;
  // offset(kernel row, kernel column) in floats. False when memory is out.
  template <class Offset>
  bool TapOffsets(int64_t channel_stride, Offset offset,
                  Buffer<ptrdiff_t>* offsets) const;
  // Scratch: planes for one block, and a stage for every worker.
  const char* ReservePlanes(int64_t planes, int64_t stage);

  TransposeKernel transpose_ = nullptr;
  PlanesLayer planes_layer_ = {};
  Buffer<ptrdiff_t> tap_offset_;
  Buffer<Block> block_;
  int blocks_ = 0;

 private:
  Self* self() { return static_cast<Self*>(this); }
  float* Planes(int worker) const {
    return workspace_->get() +
           (sharing_ == Sharing::kPlanes ? 0 : worker) * planes_floats_;
  }
  float* Stage(int worker) const {
    return workspace_->get() + first_stage_ + worker * stage_floats_;
  }
  void RunBands(int item, int item_end, int64_t band, int64_t band_end,
                int worker);
  void BlockTask(int task, int worker);
  void ItemTask(int task, int worker);
  void OwnPlanesTask(int worker);
  int TakeTask(int worker);
  void RunShared(const Block& block);

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
template <class Items>
bool PlanesDriver<Self>::MakeBlocks(int block_rows, int block_pixels,
                                    Items items) {
  const ConvGeometry& g = geometry_;
  const int64_t down = DivideUp(g.out_h, block_rows);
  const int64_t across = DivideUp(g.out_w, block_pixels);
  if (!block_.Allocate(down * across)) return false;
  blocks_ = 0;
  for (int64_t i = 0; i < down * across; ++i) {
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
bool PlanesDriver<Self>::ChooseSharing(int64_t block_pixels, int64_t group) {
  // Groups of bands for each worker, and its tasks: the last ones should be
  // short.
  constexpr int kGroupsPerThread = 4, kTasksPerThread = 16;
  group_ = group;
  bands_at_once_ = BandsAtOnce(group);
  item_tasks_ = band_tasks_ = 1;
  sharing_ = Sharing::kNothing;
  const int64_t busiest = DivideUp(blocks_, threads_) * block_pixels * threads_;
  if (threads_ == 1 || blocks_ == 0 ||
      0.9 * static_cast<double>(busiest) <=
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
template <class Offset>
bool PlanesDriver<Self>::TapOffsets(int64_t channel_stride, Offset offset,
                                    Buffer<ptrdiff_t>* offsets) const {
  const ConvGeometry& g = geometry_;
  const int64_t taps = int64_t{g.kernel_h} * g.kernel_w;
  if (!offsets->Allocate(taps)) return false;
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t floats = offset(tap / g.kernel_w, tap % g.kernel_w) -
                           tap * g.in_c * channel_stride;
    (*offsets)[tap] = static_cast<ptrdiff_t>(floats * int64_t{sizeof(float)});
  }
  return true;
}

template <class Self>
const char* PlanesDriver<Self>::ReservePlanes(int64_t planes, int64_t stage) {
  planes_floats_ = planes;
  stage_floats_ = stage;
  first_stage_ = planes * (sharing_ == Sharing::kPlanes ? 1 : threads_);
  return ReserveScratch(first_stage_ + stage * threads_, bands_at_once_)
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
    const BandValues values = FloatValues(band, stop, worker);
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
  self()->Store(block, Planes(worker), 0, 1);
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
    self()->Store(*shared_, Planes(worker), 0, 1);
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
          Self* self = static_cast<Self*>(context);
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
