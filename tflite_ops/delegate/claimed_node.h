// SPDX-License-Identifier: Apache-2.0
//
// What every node does, claimed by a delegate or an operator of the interpreter
// itself, whatever it computes: reading the node it stands for, finding
// payloads, messages, shapes of outputs.
#ifndef TFREWPRUNE_DELEGATE_CLAIMED_NODE_H_
#define TFREWPRUNE_DELEGATE_CLAIMED_NODE_H_

#include "delegate/delegate.h"
#include "delegate/shapes.h"
#include "delegate/tflite_abi.h"
#include "format/op_options.h"
#include "operators/packed_operator.h"

namespace tfrewprune {

// What a node is: TFLite's description, the operator's kind, and the node's
// number in the graph, -1 where TFLite does not tell.
struct NodeInGraph {
  const tflite::Node* node;
  OpKind kind;
  int index;
};

// Fills all but the index of a node that is to be claimed. Returns false after
// a message.
bool FindNode(tflite::Context* context, int index, NodeInGraph* found);

class ClaimedNode {
 protected:
  static constexpr int kMostPayloads = 3;

  explicit ClaimedNode(PackedDelegate* delegate) : delegate_(delegate) {}
  ~ClaimedNode();

  // Where messages are about.
  void SetPlace(const NodeInGraph& place) {
    node_index_ = place.index;
    options_.kind = place.kind;
  }
  // `inputs` is what they are, for messages; the bits of `optional` say which
  // may be absent.
  struct Signature {
    const char* inputs;
    int fewest, most;
    uint32_t optional;
    int outputs;
  };
  tflite::Status CheckTensors(tflite::Context* context,
                              const tflite::Node& node,
                              const Signature& signature);
  tflite::Status ReadOptions(tflite::Context* context,
                             const tflite::Node& node);
  // Checks a payload; it stays where the model has it, unless `fast` asks for
  // memory that begins a cache line. `number` is below kMostPayloads.
  tflite::Status ReadPayload(tflite::Context* context, int tensor, bool fast,
                             int number, PackedOperator* packed);
  tflite::Status AcquireWorkspace(tflite::Context* context);

  // An optional vector of `count` floats: a bias.
  tflite::Status CheckVector(tflite::Context* context, int tensor,
                             const char* name, uint32_t count) const;
  tflite::Status ResizeOutput(tflite::Context* context, int tensor,
                              const Shape& shape) const;
  Resources ResourcesWith(ThreadPool* pool) const;
  // What a user should know of the driver that was chosen.
  void LogDriver(const PackedOperator& packed);

  // Reports "tfrewprune: <operator> (node <n>, output '<name>'): <message>".
  __attribute__((format(printf, 3, 4))) tflite::Status Fail(
      tflite::Context* context, const char* format, ...) const;

  const tflite::Tensor* tensor(const tflite::Context* context,
                               int index) const {
    return index == tflite::kOptionalTensor ? nullptr
                                            : &context->tensors[index];
  }

  PackedDelegate* delegate_;
  int node_index_ = -1;
  // Indices, not pointers: TFLite may move its tensors.
  int output_ = -1;  // the first
  OpOptions options_ = {};
  GraphWorkspace* workspace_ = nullptr;

 private:
  bool warned_ = false;                     // of plain loops
  void* payload_copy_[kMostPayloads] = {};  // where the model's is misaligned
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_CLAIMED_NODE_H_
