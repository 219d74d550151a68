// SPDX-License-Identifier: Apache-2.0
//
// Our operators as custom operators of an interpreter, for hosts that build
// TFLite themselves and register what it runs: no delegate is needed then.
#ifndef TFREWPRUNE_DELEGATE_OPS_H_
#define TFREWPRUNE_DELEGATE_OPS_H_

#include "delegate/delegate.h"
#include "delegate/options.h"
#include "delegate/tflite_abi.h"

namespace tfrewprune {

struct Op {
  const char* name;
  const tflite::Registration* registration;
};

// All of them, one after the other; a name of nullptr after the last.
Op OpAt(int index);

// For all graphs that are made from now on.
void SetOpOptions(const DelegateOptions& options);

// Nodes of a graph share threads, scratch and options, which are a delegate's:
// a delegate that claims nothing, made by the first node of the graph and
// destroyed by the last.
class GraphDelegate {
 public:
  // nullptr after a message.
  static GraphDelegate* Acquire(tflite::Context* graph);
  static void Release(GraphDelegate* graph);
  static PackedDelegate* Delegate(GraphDelegate* graph) {
    return graph->delegate_;
  }

 private:
  GraphDelegate(const tflite::Context* graph, PackedDelegate* delegate,
                GraphDelegate* next)
      : graph_(graph), delegate_(delegate), next_(next) {}
  static GraphDelegate* Make(const tflite::Context* graph, char* error,
                             size_t error_size);

  const tflite::Context* graph_;
  PackedDelegate* delegate_;
  int users_ = 0;
  GraphDelegate* next_;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_OPS_H_
