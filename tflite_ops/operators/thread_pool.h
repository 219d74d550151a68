// SPDX-License-Identifier: Apache-2.0
//
// Fork-join over a fixed set of threads, made for jobs of a few microseconds.
// Its own threads count denormals as zero (isa/denormals.h).
#ifndef TFREWPRUNE_OPERATORS_THREAD_POOL_H_
#define TFREWPRUNE_OPERATORS_THREAD_POOL_H_

namespace tfrewprune {

class ThreadPool {
 public:
  // `task` in [0, tasks); `worker` in [0, threads()), never the same for two
  // calls that run at one time inside one Run(), so it may index scratch.
  using Function = void (*)(void* context, int task, int worker);

  // Starts threads - 1 threads (the caller of Run is the other one). `threads`
  // is clamped to [1, kMaxThreads]; when the system gives fewer threads the
  // pool has fewer. Returns nullptr only when memory runs out.
  static ThreadPool* Create(int threads);
  static void Destroy(ThreadPool* pool);  // nullptr is fine; not during Run

  // Calls function(context, task, worker) once for every task in [0, tasks)
  // and returns when all calls have returned. Tasks are handed out in ascending
  // order. Any thread may call Run at any time: when the pool is at work for
  // another caller (or this is a task of this pool) the tasks run on the
  // calling thread, as worker 0.
  void Run(int tasks, Function function, void* context);

  int threads() const;

  static constexpr int kMaxThreads = 64;

 private:
  struct State;
  explicit ThreadPool(State* state) : state_(state) {}
  State* state_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_THREAD_POOL_H_
