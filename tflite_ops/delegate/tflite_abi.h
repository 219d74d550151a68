// SPDX-License-Identifier: Apache-2.0
//
// Our own declaration of the C structs of TensorFlow Lite's
// tensorflow/lite/core/c/common.h that a delegate touches. No package carries
// that header, and the library must build without TensorFlow. The layout is
// TFLite's semi-stable ABI (new fields only at the end); it is the same from
// TFLite 2.14 to LiteRT 2.3, on x86-64 and arm64. tests/unit/test_tflite_abi.py
// compares this file with an official copy; the figures of that copy are
// asserted at the end. Pointers to types we never look into are void*.
#ifndef TFREWPRUNE_DELEGATE_TFLITE_ABI_H_
#define TFREWPRUNE_DELEGATE_TFLITE_ABI_H_

#include <cstddef>
#include <cstdint>

namespace tfrewprune {
namespace tflite {

enum Status : int { kOk = 0, kError = 1, kDelegateError = 2 };
enum Type : int { kFloat32 = 1, kUInt8 = 3, kBool = 6 };
enum AllocationType : int { kMmapRo = 1 };
enum DelegateFlags : int64_t { kAllowDynamicTensors = 1 };
inline constexpr int kOptionalTensor = -1;

struct IntArray {
  int size;
  int data[];
};

struct QuantizationParams {
  float scale;
  int32_t zero_point;
};

struct Quantization {
  int type;
  void* params;
};

struct Delegate;

struct Tensor {
  Type type;
  union {
    float* f;
    void* data;
  } data;
  IntArray* dims;
  QuantizationParams params;
  AllocationType allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  Delegate* delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  Quantization quantization;
  void* sparsity;
  const IntArray* dims_signature;
};

struct Node {
  IntArray* inputs;
  IntArray* outputs;
  IntArray* intermediates;
  IntArray* temporaries;
  void* user_data;
  void* builtin_data;
  const void* custom_initial_data;
  int custom_initial_data_size;
  Delegate* delegate;
  bool might_have_side_effect;
};

struct DelegateParams {
  Delegate* delegate;
  IntArray* nodes_to_replace;
  IntArray* input_tensors;
  IntArray* output_tensors;
};

struct Context;

struct Registration {
  void* (*init)(Context* context, const char* buffer, size_t length);
  void (*free)(Context* context, void* buffer);
  Status (*prepare)(Context* context, Node* node);
  Status (*invoke)(Context* context, Node* node);
  const char* (*profiling_string)(const Context* context, const Node* node);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* async_kernel;
  uint64_t inplace_operator;
};

struct Context {
  size_t tensors_size;
  Status (*GetExecutionPlan)(Context* context, IntArray** execution_plan);
  Tensor* tensors;
  void* impl;
  // Takes ownership of new_size, which must come from malloc.
  Status (*ResizeTensor)(Context* context, Tensor* tensor, IntArray* new_size);
  __attribute__((format(printf, 2, 3))) void (*ReportError)(Context* context,
                                                            const char* message,
                                                            ...);
  void* AddTensors;
  Status (*GetNodeAndRegistration)(Context* context, int node_index,
                                   Node** node, Registration** registration);
  Status (*ReplaceNodeSubsetsWithDelegateKernels)(
      Context* context, Registration registration,
      const IntArray* nodes_to_replace, Delegate* delegate);
  int recommended_num_threads;
  void* GetExternalContext;
  void* SetExternalContext;
  bool allow_fp32_relax_to_fp16;
  void* profiler;
  void* AllocatePersistentBuffer;
  void* AllocateBufferForEval;
  void* RequestScratchBufferInArena;
  void* GetScratchBuffer;
  void* ResizeTensorExplicit;
  void* PreviewDelegatePartitioning;
  void* GetTensor;
  void* GetEvalTensor;
  void* GetModelMetadata;
  void* AcquireSubgraphContext;
  void* ReleaseSubgraphContext;
};

struct Delegate {
  void* data;
  Status (*Prepare)(Context* context, Delegate* delegate);
  void* CopyFromBufferHandle;
  void* CopyToBufferHandle;
  void* FreeBufferHandle;
  int64_t flags;
  void* opaque_delegate_builder;
};

#if UINTPTR_MAX == UINT64_MAX
// Figures of the official header, TFLite 2.14, the same on x86-64 and arm64.
#define TFREWPRUNE_CHECK_SIZE(type, size) static_assert(sizeof(type) == size)
#define TFREWPRUNE_CHECK_OFFSET(type, field, offset) \
  static_assert(offsetof(type, field) == offset)
TFREWPRUNE_CHECK_SIZE(Tensor, 112);
TFREWPRUNE_CHECK_SIZE(Node, 80);
TFREWPRUNE_CHECK_SIZE(DelegateParams, 32);
TFREWPRUNE_CHECK_SIZE(Registration, 88);
TFREWPRUNE_CHECK_SIZE(Context, 200);
TFREWPRUNE_CHECK_SIZE(Delegate, 56);
TFREWPRUNE_CHECK_OFFSET(Tensor, data, 8);
TFREWPRUNE_CHECK_OFFSET(Tensor, dims, 16);
TFREWPRUNE_CHECK_OFFSET(Tensor, allocation_type, 32);
TFREWPRUNE_CHECK_OFFSET(Tensor, bytes, 40);
TFREWPRUNE_CHECK_OFFSET(Tensor, name, 56);
TFREWPRUNE_CHECK_OFFSET(Node, user_data, 32);
TFREWPRUNE_CHECK_OFFSET(Node, builtin_data, 40);
TFREWPRUNE_CHECK_OFFSET(Node, custom_initial_data, 48);
TFREWPRUNE_CHECK_OFFSET(Node, custom_initial_data_size, 56);
TFREWPRUNE_CHECK_OFFSET(Registration, builtin_code, 40);
TFREWPRUNE_CHECK_OFFSET(Registration, custom_name, 48);
TFREWPRUNE_CHECK_OFFSET(Context, tensors, 16);
TFREWPRUNE_CHECK_OFFSET(Context, ResizeTensor, 32);
TFREWPRUNE_CHECK_OFFSET(Context, ReportError, 40);
TFREWPRUNE_CHECK_OFFSET(Context, GetNodeAndRegistration, 56);
TFREWPRUNE_CHECK_OFFSET(Context, ReplaceNodeSubsetsWithDelegateKernels, 64);
TFREWPRUNE_CHECK_OFFSET(Context, recommended_num_threads, 72);
TFREWPRUNE_CHECK_OFFSET(Delegate, Prepare, 8);
TFREWPRUNE_CHECK_OFFSET(Delegate, flags, 40);
#undef TFREWPRUNE_CHECK_SIZE
#undef TFREWPRUNE_CHECK_OFFSET
#endif

}  // namespace tflite
}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_TFLITE_ABI_H_
