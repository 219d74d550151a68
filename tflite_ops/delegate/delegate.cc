// SPDX-License-Identifier: Apache-2.0
#include "delegate/delegate.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "delegate/node.h"
#include "format/op_options.h"

namespace tfrewprune {
namespace {

constexpr char kOurPrefix[] = "Tfrewprune";
constexpr const char* kLevelNames[] = {"ERROR", "WARNING", "INFO", "DEBUG"};

bool IsOurs(const tflite::Registration& registration) {
  return registration.custom_name != nullptr &&
         strncmp(registration.custom_name, kOurPrefix,
                 sizeof(kOurPrefix) - 1) == 0;
}

bool IsKnown(const tflite::Registration& registration) {
  OpKind kind;
  return FindOpKind(registration.custom_name, &kind);
}

// How a node that is known runs.
tflite::Registration RegistrationFor(const tflite::Registration& known) {
  OpKind kind;
  return FindOpKind(known.custom_name, &kind) && IsRecurrent(kind)
             ? RecurrentNodeRegistration()
             : PackedNodeRegistration();
}

// A node that a delegate of this library has claimed.
bool IsClaimed(const tflite::Registration& registration) {
  return strcmp(registration.custom_name, kClaimedName) == 0;
}

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

// An IntArray with exactly one entry, on the stack.
struct OneNode {
  int size = 1;
  int data[1];
};

}  // namespace

PackedDelegate::PackedDelegate(const DelegateOptions& options)
    : base_(),
      options_(options),
      kernels_(SelectKernels(options.isa)),
      half_kernels_(options.precision == Precision::kFloat16
                        ? SelectHalfKernels(options.isa)
                        : nullptr) {
  base_.data = this;
  base_.Prepare = Prepare;
  // Without it TFLite prepares the still unresolved custom operators of a
  // model with an unknown batch first, and fails.
  base_.flags = tflite::kAllowDynamicTensors;
}

PackedDelegate* PackedDelegate::Create(const DelegateOptions& options) {
  void* memory = malloc(sizeof(PackedDelegate));
  if (memory == nullptr) return nullptr;
  PackedDelegate* delegate = new (memory) PackedDelegate(options);
  if (options.tune) {
    TunerOptions tuning;
    tuning.budget = 1e-3 * options.tune_ms;
    if (*options.cache_path != '\0') tuning.cache_path = options.cache_path;
    delegate->tuner_ = Tuner::Create(tuning);
    if (delegate->tuner_ == nullptr) {
      Destroy(delegate);
      return nullptr;
    }
  }
  return delegate;
}

void PackedDelegate::Destroy(PackedDelegate* delegate) {
  if (delegate == nullptr) return;
  for (ThreadPool* pool : delegate->pool_) ThreadPool::Destroy(pool);
  while (GraphWorkspace* workspace = delegate->workspaces_) {
    delegate->workspaces_ = workspace->next;
    GraphWorkspace::Release(workspace);
  }
  Tuner::Destroy(delegate->tuner_);
  pthread_mutex_destroy(&delegate->mutex_);
  free(delegate);
}

ThreadPool* PackedDelegate::PoolFor(const tflite::Context* context) {
  int wanted = options_.threads;
  if (wanted == 0) wanted = context->recommended_num_threads;
  if (wanted < 1) wanted = 1;  // -1: the interpreter has no opinion
  if (wanted > ThreadPool::kMaxThreads) wanted = ThreadPool::kMaxThreads;
  pthread_mutex_lock(&mutex_);
  if (pool_[wanted] == nullptr) {
    pool_[wanted] = ThreadPool::Create(wanted);
    if (pool_[wanted] != nullptr && pool_[wanted]->threads() < wanted) {
      Log(LogLevel::kWarning, "the system gave %d of the %d threads asked for",
          pool_[wanted]->threads(), wanted);
    }
  }
  ThreadPool* pool = pool_[wanted];
  pthread_mutex_unlock(&mutex_);
  if (pool != nullptr)
    __atomic_store_n(&threads_, pool->threads(), __ATOMIC_RELAXED);
  return pool;
}

void GraphWorkspace::Release(GraphWorkspace* workspace) {
  if (workspace == nullptr ||
      __atomic_sub_fetch(&workspace->users, 1, __ATOMIC_ACQ_REL) > 0) {
    return;
  }
  workspace->~GraphWorkspace();
  free(workspace);
}

GraphWorkspace* PackedDelegate::AcquireWorkspace(const tflite::Context* graph) {
  pthread_mutex_lock(&mutex_);
  GraphWorkspace* found = nullptr;
  for (GraphWorkspace** link = &workspaces_; *link != nullptr;) {
    GraphWorkspace* workspace = *link;
    if (workspace->graph == graph) {
      found = workspace;
    } else if (__atomic_load_n(&workspace->users, __ATOMIC_ACQUIRE) == 1) {
      *link = workspace->next;  // the graph is gone
      GraphWorkspace::Release(workspace);
      continue;
    }
    link = &workspace->next;
  }
  if (found == nullptr) {
    void* memory = malloc(sizeof(GraphWorkspace));
    if (memory != nullptr) {
      found = new (memory) GraphWorkspace{{}, graph, 1, workspaces_};
      workspaces_ = found;
    }
  }
  if (found != nullptr) __atomic_fetch_add(&found->users, 1, __ATOMIC_RELAXED);
  pthread_mutex_unlock(&mutex_);
  return found;
}

int PackedDelegate::Trace(NodeRun* runs, int capacity) {
  const int written = traced_ < trace_capacity_ ? traced_ : trace_capacity_;
  trace_ = runs;
  trace_capacity_ = runs == nullptr ? 0 : capacity;
  traced_ = 0;
  return written;
}

int64_t PackedDelegate::BeginRun() const {
  return trace_ == nullptr ? 0 : Now();
}

void PackedDelegate::EndRun(int node, int64_t begin, int threads,
                            const char* driver) {
  if (trace_ == nullptr) return;
  const int64_t end = Now();
  const int place = __atomic_fetch_add(&traced_, 1, __ATOMIC_RELAXED);
  if (place < trace_capacity_) {
    trace_[place] = {node, begin, end, threads, driver};
  }
}

void PackedDelegate::Log(LogLevel level, const char* format, ...) const {
  if (level > options_.log_level) return;
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  dprintf(2, "%s: tfrewprune: %s\n", kLevelNames[static_cast<int>(level)],
          text);
}

tflite::Status PackedDelegate::Prepare(tflite::Context* context,
                                       tflite::Delegate* base) {
  return From(base)->ClaimNodes(context);
}

tflite::Status PackedDelegate::ClaimNodes(tflite::Context* context) {
  tflite::IntArray* plan = nullptr;
  if (context->GetExecutionPlan(context, &plan) != tflite::kOk) {
    context->ReportError(context, "tfrewprune: TFLite gave no execution plan.");
    return tflite::kError;
  }
  // Claiming changes the plan, so what is to be claimed is collected first.
  const int graph_nodes = plan->size;
  int* ours = static_cast<int*>(malloc(sizeof(int) * (graph_nodes + 1)));
  if (ours == nullptr) {
    context->ReportError(context, "tfrewprune: out of memory.");
    return tflite::kError;
  }
  int count = 0, claimed_before = 0;
  for (int i = 0; i < graph_nodes; ++i) {
    tflite::Node* node;
    tflite::Registration* registration;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node,
                                        &registration) != tflite::kOk) {
      free(ours);
      context->ReportError(context, "tfrewprune: TFLite gave no node %d.",
                           plan->data[i]);
      return tflite::kError;
    }
    if (!IsOurs(*registration)) continue;
    if (IsClaimed(*registration)) {
      ++claimed_before;
      continue;
    }
    if (!IsKnown(*registration)) {
      Log(LogLevel::kWarning,
          "operator %s is not known to this version of the library, and stays "
          "with the interpreter",
          registration->custom_name);
      continue;
    }
    ours[count++] = plan->data[i];
  }
  // One partition a node: tensors between neighbours of ours stay ordinary
  // tensors of the interpreter, and its profiler sees every layer.
  const int refused = __atomic_load_n(&refused_, __ATOMIC_RELAXED);
  tflite::Status status = tflite::kOk;
  for (int i = 0; i < count && status == tflite::kOk; ++i) {
    OneNode node;
    node.data[0] = ours[i];
    tflite::Node* known;
    tflite::Registration* registration;
    status = context->GetNodeAndRegistration(context, ours[i], &known,
                                             &registration);
    if (status != tflite::kOk) break;
    status = context->ReplaceNodeSubsetsWithDelegateKernels(
        context, RegistrationFor(*registration),
        reinterpret_cast<const tflite::IntArray*>(&node), base());
    // TFLite does not ask Init whether it went well.
    if (__atomic_load_n(&refused_, __ATOMIC_RELAXED) != refused) {
      status = tflite::kError;
    }
    if (status == tflite::kOk) {
      __atomic_fetch_add(&claimed_, 1, __ATOMIC_RELAXED);
    }
  }
  free(ours);
  if (count == 0 && claimed_before > 0) {
    Log(LogLevel::kInfo,
        "claimed none of %d nodes: another delegate of this library has "
        "claimed %d",
        graph_nodes, claimed_before);
  } else if (count == 0) {
    Log(LogLevel::kWarning,
        "claimed none of %d nodes: this graph has no packed layer",
        graph_nodes);
  } else if (status == tflite::kOk) {
    Log(LogLevel::kInfo, "claimed %d of %d nodes, %s kernels%s", count,
        graph_nodes, IsaName(options_.isa),
        half_kernels_ != nullptr                    ? " in float16 arithmetic"
        : options_.precision == Precision::kFloat16 ? ": no float16 arithmetic"
                                                    : "");
  }
  return status;
}

}  // namespace tfrewprune
