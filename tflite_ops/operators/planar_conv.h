// SPDX-License-Identifier: Apache-2.0
//
// Convolution by the planar kernels (kernels/planar.h): the image is worked on
// in blocks of output rows; the input under a block is transposed to planes in
// a scratch of cache size, then all tiles of the block run over all bands.
#ifndef TFREWPRUNE_OPERATORS_PLANAR_CONV_H_
#define TFREWPRUNE_OPERATORS_PLANAR_CONV_H_

#include "format/payload.h"
#include "kernels/convolution.h"
#include "kernels/planar.h"
#include "operators/band_tables.h"
#include "operators/buffer.h"
#include "operators/down_planes.h"
#include "operators/planar_layout.h"
#include "operators/residual.h"
#include "operators/thread_pool.h"
#include "operators/tiling.h"
#include "operators/workspace.h"

namespace tfrewprune {

class PlanarConv {
 public:
  // True when `kernels` has planar kernels for these weights.
  static bool Supports(const Kernels& kernels, const BandedView& weights);

  // As Conv2D::Prepare. `tables` belongs to the same weights.
  const char* Prepare(const BandedView& weights, const ConvGeometry& geometry,
                      const BandTables& tables, const Kernels& kernels,
                      ThreadPool* pool, Workspace* workspace);

  // After tables->PackBias(). Allocates nothing.
  void Invoke(const float* input, float* output, const Residual& residual);

 private:
  struct Block : PlanarBlock {
    int tile, tile_end;
  };
  const char* PrepareColumns();
  const char* PrepareBlocks();
  const char* PrepareDown();
  bool PrepareThreads();
  bool AddTiles(Block* block);
  void BeginTiles();
  double UnitCycles(int units) const;
  double TileCycles() const;
  int TransposeTasks() const;
  void TransposeTask(int task);
  void StoreBlock(const Block& block, float* planes) const;
  void StoreRest(const Block& block, float* planes) const;
  void BlockTask(int task, int worker);
  int TakeTask(int worker);
  void TileTask(int task, const Block& block, const float* planes, int worker);
  void OwnPlanesTask(int worker);
  void RunShared(const Block& block);
  // Of all bands and tiles in the ranges; `worker` picks the stage.
  void RunBands(const float* planes, int tile, int tile_end, uint32_t band,
                uint32_t band_end, int worker);
  void RunTile(const Tile& tile, const float* planes, uint32_t band,
               uint32_t band_end, float* stage) const;
  void RunKernel(const PlanarLayer& layer, const Tile& tile, uint32_t band,
                 uint32_t band_end, const float* planes, float* output,
                 const Segment* segments) const;
  uint32_t RunEnd(uint32_t band, uint32_t band_end) const;
  void FillMissingRows(const Tile& tile) const;
  void AddResidual(const Tile& tile) const;  // once it has all its bands
  void Run(int tasks, ThreadPool::Function function);

  BandedView weights_ = {};
  ConvGeometry geometry_ = {};  // pointwise: one row of all pixels
  const BandTables* tables_ = nullptr;
  ThreadPool* pool_ = nullptr;
  // Planes, one for every worker or one for all, then the workers' stages.
  Workspace* workspace_ = nullptr;
  int threads_ = 1;
  TransposeKernel transpose_ = nullptr;
  static constexpr int kMostShapes = 64;
  const PlanarKernelRow* kernel_[kMostShapes];
  TileShape shape_[kMostShapes];
  int shapes_ = 0, unit_ = 1;

  PlanarLayout layout_;
  bool down_ = false;  // the last column has a run and planes of its own
  DownPlanes down_planes_;
  PlanarLayer down_layer_ = {};  // of tiles that are nothing but that run
  int64_t bands_at_once_ = 1;
  // What the workers share.
  enum class Sharing {
    kNothing,  // each takes whole blocks, into planes of its own
    kBlock,    // tiles and bands of the only block, each with its own planes
    kPlanes,   // tiles and bands of one block after the other
  };
  Sharing sharing_ = Sharing::kNothing;
  int band_tasks_ = 1, tile_tasks_ = 1;
  int64_t planes_floats_ = 0;  // of one worker, or of all
  Buffer<uint32_t> start_;
  Buffer<ptrdiff_t> tap_offset_, down_tap_offset_;
  Buffer<Block> block_;
  int blocks_ = 0;
  Tiling tiling_;
  PlanarLayer layer_ = {};
  // Output that would fall onto a few cache sets goes through a stage.
  bool staged_ = false;
  uint32_t stage_bands_ = 1;
  int64_t stage_floats_ = 0;
  PlanarLayer stage_layer_ = {};
  int64_t stage_first_ = 0;

  // Of the Invoke at work.
  const float* input_ = nullptr;
  float* output_ = nullptr;
  Residual residual_;
  const Block* shared_ = nullptr;
  // Where workers share a block: each has its own share of the tasks, so
  // that it writes the same output from call to call; who is done with it takes
  // from the others'.
  struct alignas(64) Worker {
    int64_t image;   // the one its planes hold
    uint32_t taken;  // tasks of its share
  };
  Buffer<Worker> worker_;
  int64_t image_ = 0;  // counts them
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PLANAR_CONV_H_
