// SPDX-License-Identifier: Apache-2.0
//
// TFLite's four functions around a node of any class with Init, Prepare and
// Invoke: as what a delegate has claimed, and as an operator of the interpreter
// itself.
#ifndef TFREWPRUNE_DELEGATE_REGISTRATION_H_
#define TFREWPRUNE_DELEGATE_REGISTRATION_H_

#include <cstdlib>
#include <new>

#include "delegate/claimed_node.h"
#include "delegate/delegate.h"
#include "delegate/node.h"
#include "delegate/ops.h"

namespace tfrewprune {

// nullptr after a message when memory runs out. Operators may hold cache-line
// aligned members.
template <class T, class Argument>
T* MakeAligned(tflite::Context* context, Argument argument) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, sizeof(T)) != 0) {
    context->ReportError(context, "tfrewprune: out of memory.");
    return nullptr;
  }
  return new (memory) T(argument);
}

template <class T>
void DestroyAligned(T* object) {
  object->~T();
  free(object);
}

template <class Node>
tflite::Registration RegistrationOf() {
  tflite::Registration registration = {};
  registration.init = [](tflite::Context* context, const char* buffer,
                         size_t) -> void* {
    const auto* params =
        reinterpret_cast<const tflite::DelegateParams*>(buffer);
    PackedDelegate* delegate = PackedDelegate::From(params->delegate);
    Node* node = MakeAligned<Node>(context, delegate);
    NodeInGraph place;
    if (node != nullptr &&
        (!FindNode(context, params->nodes_to_replace->data[0], &place) ||
         node->Init(context, place) != tflite::kOk)) {
      delegate->NodeRefused();
    }
    return node;
  };
  registration.free = [](tflite::Context*, void* buffer) {
    if (buffer != nullptr) DestroyAligned(static_cast<Node*>(buffer));
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

// A node, and its share in what the nodes of its graph have in common.
template <class Node>
struct OpNode {
  explicit OpNode(GraphDelegate* graph)
      : graph(graph), node(GraphDelegate::Delegate(graph)) {}

  GraphDelegate* graph;
  bool tried = false;  // Init
  Node node;
};

template <class Node, OpKind kind>
tflite::Registration OpRegistrationOf() {
  tflite::Registration registration = {};
  registration.init = [](tflite::Context* context, const char*,
                         size_t) -> void* {
    GraphDelegate* graph = GraphDelegate::Acquire(context);
    if (graph == nullptr) return nullptr;
    auto* made = MakeAligned<OpNode<Node>>(context, graph);
    if (made == nullptr) GraphDelegate::Release(graph);
    return made;
  };
  registration.free = [](tflite::Context*, void* buffer) {
    if (buffer == nullptr) return;
    auto* made = static_cast<OpNode<Node>*>(buffer);
    GraphDelegate* graph = made->graph;
    DestroyAligned(made);
    GraphDelegate::Release(graph);
  };
  registration.prepare = [](tflite::Context* context, tflite::Node* node) {
    auto* made = static_cast<OpNode<Node>*>(node->user_data);
    if (made == nullptr) return tflite::kError;
    if (!made->tried) {
      made->tried = true;
      const tflite::Status status =
          made->node.Init(context, NodeInGraph{node, kind, -1});
      if (status != tflite::kOk) return status;
    }
    return made->node.Prepare(context, *node);
  };
  registration.invoke = [](tflite::Context* context, tflite::Node* node) {
    return static_cast<OpNode<Node>*>(node->user_data)->node.Invoke(context);
  };
  registration.version = 1;
  return registration;
}

}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_REGISTRATION_H_
