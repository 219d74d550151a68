// SPDX-License-Identifier: Apache-2.0
#include "delegate/accelerator.h"

#include <pthread.h>

#include <cstdlib>
#include <new>

#include "delegate/delegate.h"

namespace tfrewprune {
namespace {

// LiteRT's C API, as of version 2.1.6: handles are pointers, a status is an
// int.
using Status = int;
using Handle = void*;
constexpr Status kOk = 0, kRuntimeFailure = 3;
constexpr int kCpu = 1;  // kLiteRtHwAcceleratorCpu
struct Version {
  int major, minor, patch;
};
using Deleter = void (*)(tflite::Delegate*);
using WrapDelegate = Status (*)(tflite::Delegate*, Deleter, Handle*);

// What CreateDelegate needs to know of an accelerator: LiteRT hands it nothing
// but the handle. LiteRT owns the node and releases it with the environment.
struct Registered {
  Handle accelerator;
  WrapDelegate wrap;
  DelegateOptions options;
  Registered* next;
};

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
Registered* registered = nullptr;

void Release(void* node) {
  pthread_mutex_lock(&mutex);
  Registered** place = &registered;
  while (*place != nullptr && *place != node) place = &(*place)->next;
  if (*place != nullptr) *place = (*place)->next;
  pthread_mutex_unlock(&mutex);
  free(node);
}

bool Find(Handle accelerator, Registered* found) {
  pthread_mutex_lock(&mutex);
  const Registered* node = registered;
  while (node != nullptr && node->accelerator != accelerator) node = node->next;
  if (node != nullptr) *found = *node;
  pthread_mutex_unlock(&mutex);
  return node != nullptr;
}

Status GetName(Handle, const char** name) {
  *name = "tfrewprune";
  return kOk;
}

// Of the accelerator interface that this was written against.
Status GetVersion(Handle, Version* version) {
  *version = {0, 1, 0};
  return kOk;
}

Status GetHardwareSupport(Handle, int* set) {
  *set = kCpu;
  return kOk;
}

Status CreateDelegate(Handle /*runtime_context*/, Handle /*environment*/,
                      Handle accelerator, Handle /*options*/, Handle* wrapper) {
  Registered node;
  if (!Find(accelerator, &node)) return kRuntimeFailure;
  PackedDelegate* delegate = PackedDelegate::Create(node.options);
  if (delegate == nullptr) return kRuntimeFailure;
  const Deleter destroy = [](tflite::Delegate* base) {
    PackedDelegate::Destroy(PackedDelegate::From(base));
  };
  const Status status = node.wrap(delegate->base(), destroy, wrapper);
  if (status != kOk) PackedDelegate::Destroy(delegate);
  return status;
}

}  // namespace

const char* RegisterAccelerator(void* environment, FindSymbol find,
                                const DelegateOptions& options) {
  if (environment == nullptr || find == nullptr) {
    return "expected a LiteRtEnvironment and a function that finds symbols, "
           "received a null pointer";
  }
  // Before 2.1.6, the first with this one, CreateDelegate had other arguments.
  if (find("LiteRtDestroyDelegateWrapper") == nullptr) {
    return "expected LiteRT 2.1.6 or newer, received one without "
           "LiteRtDestroyDelegateWrapper";
  }
  using Set = Status (*)(Handle, void*);
  const auto create =
      reinterpret_cast<Status (*)(Handle*)>(find("LiteRtCreateAccelerator"));
  const auto destroy =
      reinterpret_cast<Status (*)(Handle)>(find("LiteRtDestroyAccelerator"));
  const auto add =
      reinterpret_cast<Status (*)(Handle, Handle, void*, void (*)(void*))>(
          find("LiteRtRegisterAccelerator"));
  const auto wrap = reinterpret_cast<WrapDelegate>(find("LiteRtWrapDelegate"));
  const struct {
    Set set;
    void* function;
  } functions[] = {
      {reinterpret_cast<Set>(find("LiteRtSetAcceleratorGetName")),
       reinterpret_cast<void*>(GetName)},
      {reinterpret_cast<Set>(find("LiteRtSetAcceleratorGetVersion")),
       reinterpret_cast<void*>(GetVersion)},
      {reinterpret_cast<Set>(find("LiteRtSetAcceleratorGetHardwareSupport")),
       reinterpret_cast<void*>(GetHardwareSupport)},
      {reinterpret_cast<Set>(find("LiteRtSetDelegateFunction")),
       reinterpret_cast<void*>(CreateDelegate)}};
  bool complete = create != nullptr && destroy != nullptr && add != nullptr &&
                  wrap != nullptr;
  for (const auto& function : functions) complete &= function.set != nullptr;
  if (!complete) return "LiteRT's functions for accelerators are not all there";

  Handle accelerator = nullptr;
  if (create(&accelerator) != kOk) return "LiteRtCreateAccelerator failed";
  for (const auto& function : functions) {
    if (function.set(accelerator, function.function) != kOk) {
      destroy(accelerator);
      return "LiteRT refused a function of the accelerator";
    }
  }
  auto* node = static_cast<Registered*>(malloc(sizeof(Registered)));
  if (node == nullptr) {
    destroy(accelerator);
    return "out of memory";
  }
  pthread_mutex_lock(&mutex);
  new (node) Registered{accelerator, wrap, options, registered};
  registered = node;
  pthread_mutex_unlock(&mutex);
  // Where this fails, LiteRT has released accelerator and node.
  if (add(environment, accelerator, node, Release) != kOk) {
    return "LiteRtRegisterAccelerator failed";
  }
  return nullptr;
}

}  // namespace tfrewprune
