// SPDX-License-Identifier: Apache-2.0
//
// Scratch memory shared by operators that never run at the same time: those of
// one graph. It stays in the caches from layer to layer, and a model needs it
// once, not for every layer.
#ifndef TFREWPRUNE_OPERATORS_WORKSPACE_H_
#define TFREWPRUNE_OPERATORS_WORKSPACE_H_

#include "operators/buffer.h"

namespace tfrewprune {

class Workspace {
 public:
  // Makes room for at least `count` floats; what it held is lost. False when
  // memory is out: the room is then what it was. Room for nothing has an
  // address, too.
  bool Reserve(uint64_t count) {
    if (count <= count_ && memory_.get() != nullptr) return true;
    Buffer<float> larger;
    if (!larger.Allocate(count)) return false;
    memory_.Swap(&larger);
    count_ = count;
    return true;
  }

  // 64-byte aligned. Holds anything at the start of an Invoke: another operator
  // may have used it since. Ask in every Invoke: Reserve() moves it.
  float* get() { return memory_.get(); }
  uint64_t count() const { return count_; }

 private:
  Buffer<float> memory_;
  uint64_t count_ = 0;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_WORKSPACE_H_
