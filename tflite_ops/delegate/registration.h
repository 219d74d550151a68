// SPDX-License-Identifier: Apache-2.0
//
// TFLite's four functions around a node of any class with Init, Prepare and
// Invoke.
#ifndef TFREWPRUNE_DELEGATE_REGISTRATION_H_
#define TFREWPRUNE_DELEGATE_REGISTRATION_H_

#include <cstdlib>
#include <new>

#include "delegate/delegate.h"
#include "delegate/node.h"

namespace tfrewprune {

template <class Node>
void* InitNode(tflite::Context* context, const char* buffer, size_t) {
  const auto* params = reinterpret_cast<const tflite::DelegateParams*>(buffer);
  void* memory = nullptr;
  // The operators may hold cache-line aligned members.
  if (posix_memalign(&memory, 64, sizeof(Node)) != 0) {
    context->ReportError(context, "tfrewprune: out of memory.");
    return nullptr;
  }
  PackedDelegate* delegate = PackedDelegate::From(params->delegate);
  Node* node = new (memory) Node(delegate);
  if (node->Init(context, params->nodes_to_replace->data[0]) != tflite::kOk) {
    delegate->NodeRefused();
  }
  return node;
}

template <class Node>
tflite::Registration RegistrationOf() {
  tflite::Registration registration = {};
  registration.init = InitNode<Node>;
  registration.free = [](tflite::Context*, void* buffer) {
    if (buffer == nullptr) return;
    static_cast<Node*>(buffer)->~Node();
    free(buffer);
  };
  registration.prepare = [](tflite::Context* context, tflite::Node* node) {
    if (node->user_data == nullptr) return tflite::kError;
    return static_cast<Node*>(node->user_data)->Prepare(context, *node);
  };
  registration.invoke = [](tflite::Context* context, tflite::Node* node) {
    return static_cast<Node*>(node->user_data)->Invoke(context);
  };
  registration.custom_name = kClaimedName;
  registration.version = 1;
  return registration;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_REGISTRATION_H_
