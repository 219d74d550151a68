// SPDX-License-Identifier: Apache-2.0
#include "delegate/ops.h"

#include <pthread.h>

#include <cstdlib>
#include <new>

#include "delegate/node.h"
#include "format/op_options.h"

namespace tfrewprune {
namespace {

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;  // guards all of these
GraphDelegate* graphs = nullptr;
bool options_set = false, made = false;
DelegateOptions op_options;
tflite::Registration registrations[5];

constexpr struct {
  const char* name;
  OpKind kind;
} kOps[] = {{kConv2DName, OpKind::kConv2D},
            {kFullyConnectedName, OpKind::kFullyConnected},
            {kGruName, OpKind::kGru},
            {kLstmName, OpKind::kLstm},
            {kRnnName, OpKind::kRnn}};
constexpr int kCount = sizeof(kOps) / sizeof(kOps[0]);
static_assert(kCount == sizeof(registrations) / sizeof(registrations[0]));

}  // namespace

Op OpAt(int index) {
  if (index < 0 || index >= kCount) return {nullptr, nullptr};
  pthread_mutex_lock(&mutex);
  if (!made) {
    for (int i = 0; i < kCount; ++i) {
      registrations[i] = IsRecurrent(kOps[i].kind)
                             ? RecurrentOpRegistration(kOps[i].kind)
                             : PackedOpRegistration(kOps[i].kind);
      registrations[i].custom_name = kOps[i].name;
    }
    made = true;
  }
  pthread_mutex_unlock(&mutex);
  return {kOps[index].name, &registrations[index]};
}

void SetOpOptions(const DelegateOptions& options) {
  pthread_mutex_lock(&mutex);
  op_options = options;
  options_set = true;
  pthread_mutex_unlock(&mutex);
}

GraphDelegate* GraphDelegate::Acquire(tflite::Context* graph) {
  char error[512] = "tfrewprune: out of memory.";
  pthread_mutex_lock(&mutex);
  GraphDelegate* found = graphs;
  while (found != nullptr && found->graph_ != graph) found = found->next_;
  if (found == nullptr) found = Make(graph, error, sizeof(error));
  if (found != nullptr) ++found->users_;
  pthread_mutex_unlock(&mutex);
  if (found == nullptr) graph->ReportError(graph, "%s", error);
  return found;
}

GraphDelegate* GraphDelegate::Make(const tflite::Context* graph, char* error,
                                   size_t error_size) {
  if (!options_set) {  // then what the environment says
    options_set = ParseDelegateOptions(nullptr, nullptr, 0, &op_options, error,
                                       error_size);
    if (!options_set) return nullptr;
  }
  void* memory = malloc(sizeof(GraphDelegate));
  if (memory == nullptr) return nullptr;
  PackedDelegate* delegate = PackedDelegate::Create(op_options);
  if (delegate == nullptr) {
    free(memory);
    return nullptr;
  }
  graphs = new (memory) GraphDelegate(graph, delegate, graphs);
  return graphs;
}

void GraphDelegate::Release(GraphDelegate* graph) {
  pthread_mutex_lock(&mutex);
  const bool last = --graph->users_ == 0;
  if (last) {
    GraphDelegate** place = &graphs;
    while (*place != graph) place = &(*place)->next_;
    *place = graph->next_;
  }
  pthread_mutex_unlock(&mutex);
  if (!last) return;
  PackedDelegate::Destroy(graph->delegate_);
  free(graph);
}

}  // namespace tfrewprune
