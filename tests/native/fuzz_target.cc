// SPDX-License-Identifier: Apache-2.0
#include "fuzz_target.h"

#include <algorithm>
#include <vector>

#include "delegate/delegate.h"
#include "fake_interpreter.h"
#include "format/op_options.h"
#include "golden.h"
#include "operators/packed_operator.h"

namespace {

int64_t invocations = 0;

}  // namespace

int64_t FuzzInvocations() { return invocations; }

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tfrewprune;
  if (size < kFuzzControlBytes) return 0;
  const uint8_t* control = data;
  data += kFuzzControlBytes;
  size -= kFuzzControlBytes;
  AlignedBytes options(data, std::min(size, kFuzzOptionBytes));
  data += options.size();
  size -= options.size();
  AlignedBytes payload(data, size);

  // Shapes that fit come from the input's own claims; control bytes bend them.
  const bool conv = control[0] % 2 == 0;
  PackedOperator view;
  const bool valid =
      view.ReadPayload(payload.data(), payload.size()) == nullptr;
  const int rows =
      valid && view.rows() < 4096 ? static_cast<int>(view.rows()) : 7;
  int channels = 3;
  if (options.size() == kFuzzOptionBytes) {
    memcpy(&channels, options.data() + 6 * 4, 4);
  }
  if (channels < 0 || channels > 4096) channels = 3;
  std::vector<int> shape;
  if (conv) {
    shape = {control[1] % 3, control[2] % 9, control[3] % 9, channels};
    // Some large images, as long as plain loops over them take no time.
    if (control[4] % 8 == 1 && channels <= 16) {
      shape[1] = control[2] % 2 == 0 ? 1 + 37 * control[2] : 1 + control[2];
      shape[2] = control[3] % 2 == 0 ? 1 : 1 + control[3] / 4;
    }
  } else {
    const int columns =
        valid && view.columns() < 100000 ? static_cast<int>(view.columns()) : 5;
    shape = {control[1] % 4, columns};
    if (control[2] % 8 == 0) shape = {2, control[3] % 3, columns};
  }
  if (control[4] % 16 == 0) shape[shape.size() - 1] += 1;

  const Isa isas[] = {BestIsa(), Isa::kPortable, Isa::kReference};
  DelegateOptions delegate_options;
  delegate_options.isa = isas[control[5] % 3];
  delegate_options.threads = 1 + control[6] % 2;
  delegate_options.log_level = LogLevel::kError;
  PackedDelegate* delegate = PackedDelegate::Create(delegate_options);
  {
    FakeInterpreter graph;
    const int x = graph.AddTensor(shape, "x");
    const int w = graph.AddConstant(payload.data(), payload.size());
    const int b = control[7] % 2 == 0 ? -1 : graph.AddTensor({rows}, "bias");
    std::vector<int> inputs = {x, w, b};
    int residual = -1;
    if (control[7] / 2 % 4 == 1) {
      residual = graph.AddTensor({shape[0], shape[1], shape.back(), rows}, "r");
      if (conv) graph.Resize(residual, {shape[0], shape[1], shape[2], rows});
      inputs.push_back(residual);
    }
    const int y = graph.AddTensor({1}, "y");
    graph.AddNode(conv ? kConv2DName : kFullyConnectedName, inputs, {y},
                  options.data(), options.size());
    if (graph.Apply(delegate->base()) == tflite::kOk &&
        graph.Allocate() == tflite::kOk) {
      for (int index : {x, b, residual}) {
        if (index < 0) continue;
        tflite::Tensor& tensor = graph.tensor(index);
        std::fill_n(tensor.data.f, tensor.bytes / 4, 0.5f);
      }
      if (graph.Invoke() == tflite::kOk) {
        ++invocations;
        // Reads every output value: MemorySanitizer or valgrind would see one
        // that was never written.
        volatile float sum = 0;
        for (size_t i = 0; i < graph.tensor(y).bytes / 4; ++i) {
          sum = sum + graph.tensor(y).data.f[i];
        }
      }
    } else if (graph.errors().empty()) {
      abort();  // a refusal without a reason
    }
  }
  PackedDelegate::Destroy(delegate);
  return 0;
}
