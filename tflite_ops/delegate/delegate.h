// SPDX-License-Identifier: Apache-2.0
//
// The delegate: claims our custom operators in a TFLite graph and owns what
// their nodes share (options, kernels, threads).
#ifndef TFREWPRUNE_DELEGATE_DELEGATE_H_
#define TFREWPRUNE_DELEGATE_DELEGATE_H_

#include <pthread.h>

#include "delegate/options.h"
#include "delegate/tflite_abi.h"
#include "kernels/select.h"
#include "operators/thread_pool.h"
#include "operators/tuner.h"
#include "operators/workspace.h"

namespace tfrewprune {

// One run of one node: its index in the graph, nanoseconds of CLOCK_MONOTONIC,
// its threads, and the name of its driver.
struct NodeRun {
  int64_t node, begin, end, threads;
  const char* driver;
};

// The scratch that all nodes of one graph share: TFLite runs them one after the
// other. It goes with its last user, a node or the delegate, whichever is freed
// later.
struct GraphWorkspace {
  static void Release(GraphWorkspace* workspace);  // nullptr is fine

  Workspace workspace;
  const tflite::Context* graph;
  int users;
  GraphWorkspace* next;  // of the delegate
};

class PackedDelegate {
 public:
  // nullptr when memory runs out.
  static PackedDelegate* Create(const DelegateOptions& options);
  static void Destroy(PackedDelegate* delegate);
  static PackedDelegate* From(tflite::Delegate* base) {
    return static_cast<PackedDelegate*>(base->data);
  }

  tflite::Delegate* base() { return &base_; }
  const DelegateOptions& options() const { return options_; }
  const Kernels* kernels() const { return kernels_; }
  // nullptr: everything in float32.
  const Kernels* half_kernels() const { return half_kernels_; }
  Tuner* tuner() const { return tuner_; }  // nullptr: nothing is measured

  // The pool for nodes of this interpreter: as many threads as the option
  // says, else as the interpreter recommends. Pools live as long as the
  // delegate, one for each number of threads ever asked for. nullptr when
  // memory runs out.
  ThreadPool* PoolFor(const tflite::Context* context);

  // Adds a user to the graph's scratch. nullptr when memory runs out.
  GraphWorkspace* AcquireWorkspace(const tflite::Context* graph);

  // Nodes claimed so far, in all graphs the delegate was applied to.
  int claimed_nodes() const {
    return __atomic_load_n(&claimed_, __ATOMIC_RELAXED);
  }
  // Called by a node that Init refused, after its message.
  void NodeRefused() { __atomic_fetch_add(&refused_, 1, __ATOMIC_RELAXED); }
  // Threads of the pool used last; 1 before the first use.
  int threads() const { return __atomic_load_n(&threads_, __ATOMIC_RELAXED); }

  // Writes every run of a node from now on to `runs`, until `capacity` are
  // there; nullptr stops. Returns how many there were since the last call. Not
  // while a graph runs.
  int Trace(NodeRun* runs, int capacity);
  // The time of a run's begin, 0 when nobody wants to know.
  int64_t BeginRun() const;
  void EndRun(int node, int64_t begin, int threads, const char* driver);

  // Writes one line to stderr when the option log_level is at least `level`.
  __attribute__((format(printf, 3, 4))) void Log(LogLevel level,
                                                 const char* format, ...) const;

 private:
  static tflite::Status Prepare(tflite::Context* context,
                                tflite::Delegate* base);
  tflite::Status ClaimNodes(tflite::Context* context);

  explicit PackedDelegate(const DelegateOptions& options);

  tflite::Delegate base_;
  DelegateOptions options_;
  const Kernels* kernels_;
  const Kernels* half_kernels_;
  Tuner* tuner_ = nullptr;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;   // guards the next two
  ThreadPool* pool_[ThreadPool::kMaxThreads + 1] = {};  // by threads wanted
  GraphWorkspace* workspaces_ = nullptr;
  NodeRun* trace_ = nullptr;
  int trace_capacity_ = 0, traced_ = 0;
  int claimed_ = 0;
  int refused_ = 0;
  int threads_ = 1;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_DELEGATE_H_
