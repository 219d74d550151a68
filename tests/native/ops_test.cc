// SPDX-License-Identifier: Apache-2.0
//
// The operators without a delegate: what their nodes share, and refusals. That
// they compute is tested in a real interpreter (tests/cpp_hosts).
#include "delegate/ops.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "fake_interpreter.h"
#include "format/op_options.h"

namespace tfrewprune {
namespace {

TEST(OpsTest, EveryOperatorHasANameAndFourFunctions) {
  std::set<std::string> names;
  for (int i = 0; OpAt(i).name != nullptr; ++i) {
    const Op op = OpAt(i);
    OpKind kind;
    EXPECT_TRUE(FindOpKind(op.name, &kind)) << op.name;
    EXPECT_EQ(static_cast<int>(kind), i);
    EXPECT_STREQ(op.registration->custom_name, op.name);
    EXPECT_EQ(op.registration, OpAt(i).registration);
    EXPECT_TRUE(op.registration->init && op.registration->free &&
                op.registration->prepare && op.registration->invoke);
    names.insert(op.name);
  }
  EXPECT_EQ(names.size(), 5u);
  EXPECT_EQ(OpAt(-1).name, nullptr);
  EXPECT_EQ(OpAt(5).registration, nullptr);
}

TEST(OpsTest, NodesOfAGraphShareADelegateThatGoesWithTheLast) {
  DelegateOptions options;
  options.threads = 2;
  SetOpOptions(options);
  FakeInterpreter one, other;
  GraphDelegate* first = GraphDelegate::Acquire(&one.context());
  GraphDelegate* second = GraphDelegate::Acquire(&one.context());
  GraphDelegate* third = GraphDelegate::Acquire(&other.context());
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first, second);
  EXPECT_NE(first, third);
  EXPECT_EQ(GraphDelegate::Delegate(first)->options().threads, 2);
  GraphDelegate::Release(first);
  GraphDelegate::Release(third);
  EXPECT_EQ(GraphDelegate::Acquire(&one.context()), second);
  GraphDelegate::Release(second);
  GraphDelegate::Release(second);
}

TEST(OpsTest, ANodeThatIsNoneOfOursIsRefusedWithItsOutput) {
  FakeInterpreter interpreter;
  const int x = interpreter.AddTensor({1, 4}, "x");
  const int y = interpreter.AddTensor({1, 4}, "y");
  for (int i = 0; OpAt(i).name != nullptr; ++i) {
    const tflite::Registration& op = *OpAt(i).registration;
    int inputs[] = {1, x}, outputs[] = {1, y};
    tflite::Node node = {};
    node.inputs = reinterpret_cast<tflite::IntArray*>(inputs);
    node.outputs = reinterpret_cast<tflite::IntArray*>(outputs);
    node.user_data = op.init(&interpreter.context(), nullptr, 0);
    ASSERT_NE(node.user_data, nullptr);
    EXPECT_NE(op.prepare(&interpreter.context(), &node), tflite::kOk);
    EXPECT_NE(interpreter.errors().find("tfrewprune: Tfrewprune"),
              std::string::npos)
        << interpreter.errors();
    // Again: it stays refused, and is not read.
    EXPECT_NE(op.prepare(&interpreter.context(), &node), tflite::kOk);
    EXPECT_NE(op.invoke(&interpreter.context(), &node), tflite::kOk);
    op.free(&interpreter.context(), node.user_data);
  }
  OpAt(0).registration->free(&interpreter.context(), nullptr);
}

}  // namespace
}  // namespace tfrewprune
