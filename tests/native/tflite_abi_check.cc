// SPDX-License-Identifier: Apache-2.0
//
// Compiled (not linked or run) by tests/unit/test_tflite_abi.py against an
// official tensorflow/lite/core/c/common.h: every field of ours lies where
// TFLite has it.
#include <type_traits>

#include "delegate/tflite_abi.h"
#include "tensorflow/lite/core/c/common.h"

namespace ours = tfrewprune::tflite;

#define SAME_SIZE(our, official) \
  static_assert(sizeof(ours::our) == sizeof(official), #official)
#define SAME_FIELD(our, our_field, official, field)                          \
  static_assert(offsetof(ours::our, our_field) == offsetof(official, field), \
                #official "." #field);                                       \
  static_assert(sizeof(ours::our::our_field) == sizeof(official::field),     \
                #official "." #field)
#define SAME(our, official, field) SAME_FIELD(our, field, official, field)

SAME_SIZE(Tensor, TfLiteTensor);
SAME(Tensor, TfLiteTensor, type);
SAME(Tensor, TfLiteTensor, data);
SAME(Tensor, TfLiteTensor, dims);
SAME(Tensor, TfLiteTensor, params);
SAME(Tensor, TfLiteTensor, allocation_type);
SAME(Tensor, TfLiteTensor, bytes);
SAME(Tensor, TfLiteTensor, allocation);
SAME(Tensor, TfLiteTensor, name);
SAME(Tensor, TfLiteTensor, delegate);
SAME(Tensor, TfLiteTensor, buffer_handle);
SAME(Tensor, TfLiteTensor, data_is_stale);
SAME(Tensor, TfLiteTensor, is_variable);
SAME(Tensor, TfLiteTensor, quantization);
SAME(Tensor, TfLiteTensor, sparsity);
SAME(Tensor, TfLiteTensor, dims_signature);

SAME_SIZE(Node, TfLiteNode);
SAME(Node, TfLiteNode, inputs);
SAME(Node, TfLiteNode, outputs);
SAME(Node, TfLiteNode, intermediates);
SAME(Node, TfLiteNode, temporaries);
SAME(Node, TfLiteNode, user_data);
SAME(Node, TfLiteNode, builtin_data);
SAME(Node, TfLiteNode, custom_initial_data);
SAME(Node, TfLiteNode, custom_initial_data_size);
SAME(Node, TfLiteNode, delegate);
SAME(Node, TfLiteNode, might_have_side_effect);

SAME_SIZE(DelegateParams, TfLiteDelegateParams);
SAME(DelegateParams, TfLiteDelegateParams, delegate);
SAME(DelegateParams, TfLiteDelegateParams, nodes_to_replace);
SAME(DelegateParams, TfLiteDelegateParams, input_tensors);
SAME(DelegateParams, TfLiteDelegateParams, output_tensors);

SAME_SIZE(Registration, TfLiteRegistration);
SAME(Registration, TfLiteRegistration, init);
SAME(Registration, TfLiteRegistration, free);
SAME(Registration, TfLiteRegistration, prepare);
SAME(Registration, TfLiteRegistration, invoke);
SAME(Registration, TfLiteRegistration, profiling_string);
SAME(Registration, TfLiteRegistration, builtin_code);
SAME(Registration, TfLiteRegistration, custom_name);
SAME(Registration, TfLiteRegistration, version);
SAME(Registration, TfLiteRegistration, registration_external);
SAME(Registration, TfLiteRegistration, async_kernel);
SAME(Registration, TfLiteRegistration, inplace_operator);

SAME_SIZE(Context, TfLiteContext);
SAME(Context, TfLiteContext, tensors_size);
SAME(Context, TfLiteContext, GetExecutionPlan);
SAME(Context, TfLiteContext, tensors);
SAME_FIELD(Context, impl, TfLiteContext, impl_);
SAME(Context, TfLiteContext, ResizeTensor);
SAME(Context, TfLiteContext, ReportError);
SAME(Context, TfLiteContext, AddTensors);
SAME(Context, TfLiteContext, GetNodeAndRegistration);
SAME(Context, TfLiteContext, ReplaceNodeSubsetsWithDelegateKernels);
SAME(Context, TfLiteContext, recommended_num_threads);
SAME(Context, TfLiteContext, GetExternalContext);
SAME(Context, TfLiteContext, SetExternalContext);
SAME(Context, TfLiteContext, allow_fp32_relax_to_fp16);
SAME(Context, TfLiteContext, profiler);
SAME(Context, TfLiteContext, AllocatePersistentBuffer);
SAME(Context, TfLiteContext, AllocateBufferForEval);
SAME(Context, TfLiteContext, RequestScratchBufferInArena);
SAME(Context, TfLiteContext, GetScratchBuffer);
SAME(Context, TfLiteContext, ResizeTensorExplicit);
SAME(Context, TfLiteContext, PreviewDelegatePartitioning);
SAME(Context, TfLiteContext, GetTensor);
SAME(Context, TfLiteContext, GetEvalTensor);
SAME(Context, TfLiteContext, GetModelMetadata);
SAME(Context, TfLiteContext, AcquireSubgraphContext);
SAME(Context, TfLiteContext, ReleaseSubgraphContext);

SAME_SIZE(Delegate, TfLiteDelegate);
SAME_FIELD(Delegate, data, TfLiteDelegate, data_);
SAME(Delegate, TfLiteDelegate, Prepare);
SAME(Delegate, TfLiteDelegate, CopyFromBufferHandle);
SAME(Delegate, TfLiteDelegate, CopyToBufferHandle);
SAME(Delegate, TfLiteDelegate, FreeBufferHandle);
SAME(Delegate, TfLiteDelegate, flags);
SAME(Delegate, TfLiteDelegate, opaque_delegate_builder);

static_assert(offsetof(ours::IntArray, data) == offsetof(TfLiteIntArray, data));
static_assert(sizeof(ours::Status) == sizeof(TfLiteStatus));
static_assert(int{ours::kOk} == int{kTfLiteOk});
static_assert(int{ours::kError} == int{kTfLiteError});
static_assert(int{ours::kDelegateError} == int{kTfLiteDelegateError});
static_assert(int{ours::kFloat32} == int{kTfLiteFloat32});
static_assert(int{ours::kUInt8} == int{kTfLiteUInt8});
static_assert(int{ours::kMmapRo} == int{kTfLiteMmapRo});
static_assert(int64_t{ours::kAllowDynamicTensors} ==
              int64_t{kTfLiteDelegateFlagsAllowDynamicTensors});
static_assert(ours::kOptionalTensor == kTfLiteOptionalTensor);
