// SPDX-License-Identifier: Apache-2.0
//
// One claimed node: TFLite's Init / Prepare / Invoke around one operator.
#ifndef TFREWPRUNE_DELEGATE_NODE_H_
#define TFREWPRUNE_DELEGATE_NODE_H_

#include "delegate/tflite_abi.h"
#include "format/op_options.h"

namespace tfrewprune {

// What a claimed node is called.
inline constexpr char kClaimedName[] = "TfrewpruneDelegate";

// The delegate kernel for a partition of exactly one TfrewpruneConv2D or
// TfrewpruneFullyConnected node. Init checks options and payload, Prepare the
// shapes (again after every resize), Invoke computes and allocates nothing.
tflite::Registration PackedNodeRegistration();

// The same for one TfrewpruneGRU, TfrewpruneLSTM or TfrewpruneRNN node.
tflite::Registration RecurrentNodeRegistration();

// Both as operators of the interpreter itself, without a delegate (ops.h):
// the first Prepare does what Init does of a claimed node.
tflite::Registration PackedOpRegistration(OpKind kind);
tflite::Registration RecurrentOpRegistration(OpKind kind);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_NODE_H_
