// SPDX-License-Identifier: Apache-2.0
//
// One 64-bit word holds the job number and the tasks nobody has taken yet.
// Callers and workers take tasks from it by compare-and-swap, so a worker that
// wakes late can never touch a job that is over, and a caller whose workers do
// not wake (a busy machine, a forked process) simply does all tasks itself.
//
// Waiting is a short spin, then sleep: layers of one inference follow each
// other within microseconds, while a futex wake-up costs tens of them.
#include "operators/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "isa/denormals.h"

// 0 or 1: Linux' futex, or a condition variable as everywhere else.
#if !defined(TFREWPRUNE_FUTEX)
#if defined(__linux__)
#define TFREWPRUNE_FUTEX 1
#else
#define TFREWPRUNE_FUTEX 0
#endif
#endif

#if TFREWPRUNE_FUTEX
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

// Built against glibc 2.34 or newer, the library runs on older ones all the
// same: these two moved there from libpthread under a new version, and nothing
// else that it needs is younger than glibc 2.17.
#if defined(TFREWPRUNE_OLD_GLIBC) && defined(__x86_64__)
__asm__(".symver pthread_create, pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join, pthread_join@GLIBC_2.2.5");
#elif defined(TFREWPRUNE_OLD_GLIBC) && defined(__aarch64__)
__asm__(".symver pthread_create, pthread_create@GLIBC_2.17");
__asm__(".symver pthread_join, pthread_join@GLIBC_2.17");
#endif

namespace tfrewprune {
namespace {

constexpr int64_t kSpinNanoseconds = 40000;

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  asm volatile("yield");
#endif
}

int64_t Nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

// Polls `done()` for at most kSpinNanoseconds; returns its last value. After
// the quick cases it yields between polls: where threads outnumber free
// processors, the thread it waits for may need this very one.
template <class Predicate>
bool SpinUntil(Predicate done) {
  for (int i = 0; i < 64; ++i) {
    if (done()) return true;
    Pause();
  }
  const int64_t deadline = Nanoseconds() + kSpinNanoseconds;
  while (Nanoseconds() < deadline) {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      Pause();
    }
    sched_yield();
  }
  return done();
}

// A 32-bit word threads can sleep on. Wait() returns when the word differs from
// `expected`, and may return early; Wake() must follow the change of the word.
class SleepWord {
 public:
  std::atomic<uint32_t> value{0};

#if TFREWPRUNE_FUTEX
  void Wait(uint32_t expected) {
    syscall(SYS_futex, Address(), FUTEX_WAIT_PRIVATE, expected, nullptr,
            nullptr, 0);
  }
  void Wake(int threads) {
    syscall(SYS_futex, Address(), FUTEX_WAKE_PRIVATE, threads, nullptr, nullptr,
            0);
  }

 private:
  static_assert(sizeof(std::atomic<uint32_t>) == 4, "the kernel reads 4 bytes");
  uint32_t* Address() { return reinterpret_cast<uint32_t*>(&value); }
#else
  void Wait(uint32_t expected) {
    pthread_mutex_lock(&mutex_);
    while (value.load() == expected) pthread_cond_wait(&changed_, &mutex_);
    pthread_mutex_unlock(&mutex_);
  }
  void Wake(int) {
    pthread_mutex_lock(&mutex_);
    pthread_cond_broadcast(&changed_);
    pthread_mutex_unlock(&mutex_);
  }

 private:
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;
#endif
};

struct Job {
  ThreadPool::Function function;
  void* context;
  uint32_t tasks;
};

}  // namespace

struct ThreadPool::State {
  struct Worker {
    State* state;
    int index;
    pthread_t thread;
  };

  // High half: number of the job. Low half: tasks of it still to be taken.
  alignas(64) std::atomic<uint64_t> todo{0};
  // Written by the caller of Run before `todo` is published, and read only by
  // holders of a task: while one is held, Run cannot return.
  Job job{};
  // Tasks not finished yet; the caller sleeps on it.
  alignas(64) SleepWord unfinished;
  std::atomic<bool> caller_sleeps{false};
  // Counts jobs; the workers sleep on it.
  alignas(64) SleepWord jobs;
  std::atomic<int> sleeping{0};
  std::atomic<bool> stop{false};
  std::atomic<bool> busy{false};
  int workers = 0;  // without the caller of Run
  pid_t process = getpid();
  Worker worker[kMaxThreads];

  static uint32_t Left(uint64_t word) { return static_cast<uint32_t>(word); }

  // Takes one task of the present job and runs it; false when none is left.
  bool RunOne(int worker_index) {
    uint64_t word = todo.load(std::memory_order_acquire);
    do {
      if (Left(word) == 0) return false;
    } while (
        !todo.compare_exchange_weak(word, word - 1, std::memory_order_acquire));
    job.function(job.context, static_cast<int>(job.tasks - Left(word)),
                 worker_index);
    // Sequentially consistent with the caller's announcement of its sleep.
    if (unfinished.value.fetch_sub(1) == 1 && caller_sleeps.load()) {
      unfinished.Wake(1);
    }
    return true;
  }

  void Work(int index) {
    const FlushDenormals flush;
    for (;;) {
      // First `jobs`, then `stop`: a pool that ends in between changes `jobs`
      // after `stop`, so that Wait below returns at once.
      const uint32_t seen = jobs.value.load();
      if (stop.load()) return;
      while (RunOne(index)) {
      }
      if (SpinUntil([&] { return jobs.value.load() != seen; })) continue;
      sleeping.fetch_add(1);
      // A job published since `seen` was read makes Wait return at once.
      jobs.Wait(seen);
      sleeping.fetch_sub(1);
    }
  }

  static void* Main(void* argument) {
    const Worker* self = static_cast<const Worker*>(argument);
    self->state->Work(self->index);
    return nullptr;
  }

  void AwaitFinish() {
    if (SpinUntil([&] {
          return unfinished.value.load(std::memory_order_acquire) == 0;
        })) {
      return;
    }
    caller_sleeps.store(true);
    for (uint32_t left; (left = unfinished.value.load()) != 0;) {
      unfinished.Wait(left);
    }
    caller_sleeps.store(false);
  }
};

ThreadPool* ThreadPool::Create(int threads) {
  if (threads < 1) threads = 1;
  if (threads > kMaxThreads) threads = kMaxThreads;
  void* pool_memory = malloc(sizeof(ThreadPool));
  void* state_memory = nullptr;
  if (pool_memory == nullptr ||
      posix_memalign(&state_memory, alignof(State), sizeof(State)) != 0) {
    free(pool_memory);
    return nullptr;
  }
  State* state = new (state_memory) State;
  for (int i = 1; i < threads; ++i) {
    State::Worker& worker = state->worker[state->workers];
    worker.state = state;
    worker.index = i;
    if (pthread_create(&worker.thread, nullptr, State::Main, &worker) != 0) {
      break;
    }
    ++state->workers;
  }
  return new (pool_memory) ThreadPool(state);
}

void ThreadPool::Destroy(ThreadPool* pool) {
  if (pool == nullptr) return;
  State* state = pool->state_;
  state->stop.store(true);
  state->jobs.value.fetch_add(1);
  state->jobs.Wake(INT_MAX);
  // A forked child has the pool's memory but not its threads.
  for (int i = 0; i < state->workers && getpid() == state->process; ++i) {
    pthread_join(state->worker[i].thread, nullptr);
  }
  state->~State();
  free(state);
  free(pool);
}

void ThreadPool::Run(int tasks, Function function, void* context) {
  if (tasks <= 0) return;
  State* state = state_;
  if (tasks == 1 || state->workers == 0 || state->busy.exchange(true)) {
    for (int task = 0; task < tasks; ++task) function(context, task, 0);
    return;
  }
  state->job = {function, context, static_cast<uint32_t>(tasks)};
  state->unfinished.value.store(static_cast<uint32_t>(tasks),
                                std::memory_order_relaxed);
  const uint64_t number =
      (state->todo.load(std::memory_order_relaxed) >> 32) + 1;
  state->todo.store(number << 32 | static_cast<uint32_t>(tasks),
                    std::memory_order_release);
  state->jobs.value.fetch_add(1);
  // Either this sees a worker that is about to sleep, or that worker sees the
  // new value of `jobs`.
  if (state->sleeping.load() > 0) {
    state->jobs.Wake(tasks - 1 < state->workers ? tasks - 1 : state->workers);
  }
  while (state->RunOne(0)) {
  }
  state->AwaitFinish();
  state->busy.store(false, std::memory_order_release);
}

int ThreadPool::threads() const { return state_->workers + 1; }

}  // namespace tfrewprune
