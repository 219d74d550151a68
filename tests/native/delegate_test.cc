// SPDX-License-Identifier: Apache-2.0
//
// The delegate through its C interface, in a fake interpreter.
#include "delegate/delegate.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "delegate/node.h"
#include "fake_interpreter.h"
#include "format/op_options.h"
#include "format/payload.h"
#include "golden.h"

extern "C" {
tfrewprune::tflite::Delegate* tflite_plugin_create_delegate(
    const char* const* keys, const char* const* values, size_t count,
    void (*report_error)(const char*));
void tflite_plugin_destroy_delegate(tfrewprune::tflite::Delegate* delegate);
const char* tfrewprune_version();
int tfrewprune_claimed_nodes(tfrewprune::tflite::Delegate* delegate);
const char* tfrewprune_isa_name(tfrewprune::tflite::Delegate* delegate);
int tfrewprune_threads(tfrewprune::tflite::Delegate* delegate);
uint64_t tfrewprune_held_bytes();
}

namespace tfrewprune {
namespace {

std::string reported;

struct Destroy {
  void operator()(tflite::Delegate* delegate) const {
    tflite_plugin_destroy_delegate(delegate);
  }
};
using Handle = std::unique_ptr<tflite::Delegate, Destroy>;

Handle Create(std::vector<const char*> keys = {},
              std::vector<const char*> values = {}) {
  reported.clear();
  return Handle(tflite_plugin_create_delegate(
      keys.data(), values.data(), keys.size(),
      [](const char* message) { reported = message; }));
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The environment must not decide what the tests of options see.
class DelegateTest : public ::testing::Test {
 protected:
  void SetUp() override { ClearEnvironment(); }
  void TearDown() override { ClearEnvironment(); }

 private:
  static void ClearEnvironment() {
    unsetenv("TFREWPRUNE_ISA");
    unsetenv("TFREWPRUNE_DRIVER");
  }
};
using DelegateOptionsTest = DelegateTest;

TEST_F(DelegateOptionsTest, Defaults) {
  Handle delegate = Create();
  ASSERT_NE(delegate, nullptr);
  EXPECT_STREQ(tfrewprune_isa_name(delegate.get()), IsaName(BestIsa()));
  EXPECT_EQ(tfrewprune_claimed_nodes(delegate.get()), 0);
  EXPECT_EQ(tfrewprune_threads(delegate.get()), 1);
  EXPECT_EQ(delegate->flags, 1);  // kTfLiteDelegateFlagsAllowDynamicTensors
  EXPECT_STREQ(tfrewprune_version(), TFREWPRUNE_VERSION);
}

TEST_F(DelegateOptionsTest, IsaFromOptionThenEnvironment) {
  setenv("TFREWPRUNE_ISA", "portable", 1);
  EXPECT_STREQ(tfrewprune_isa_name(Create().get()), "portable");
  EXPECT_STREQ(tfrewprune_isa_name(Create({"isa"}, {"reference"}).get()),
               "reference");
  EXPECT_STREQ(tfrewprune_isa_name(Create({"isa"}, {"auto"}).get()),
               IsaName(BestIsa()));
  setenv("TFREWPRUNE_ISA", "", 1);
  EXPECT_STREQ(tfrewprune_isa_name(Create().get()), IsaName(BestIsa()));
  setenv("TFREWPRUNE_ISA", "sse9", 1);
  EXPECT_EQ(Create(), nullptr);
  EXPECT_TRUE(Contains(reported, "TFREWPRUNE_ISA")) << reported;
  EXPECT_TRUE(Contains(reported, "'sse9'")) << reported;
}

TEST_F(DelegateOptionsTest, AnIsaOfAnotherMachineIsRefused) {
  const bool neon = IsaSupported(Isa::kNeon);
  const char* foreign = neon ? "avx2" : "neon";
  EXPECT_EQ(Create({"isa"}, {foreign}), nullptr);
  EXPECT_TRUE(Contains(reported, IsaName(BestIsa()))) << reported;
  EXPECT_TRUE(Contains(reported, foreign)) << reported;
}

TEST_F(DelegateOptionsTest, BadOptionsAreRefusedWithWhatWasExpected) {
  struct {
    const char *key, *value, *expected;
  } cases[] = {
      {"threads", "0", "from 1 to 64"},
      {"threads", "-1", "'-1'"},
      {"threads", "two", "'two'"},
      {"threads", "2x", "'2x'"},
      {"threads", "", "''"},
      {"threads", "65", "'65'"},
      {"threads", "99999999999999999999", "from 1 to 64"},
      {"isa", "", "avx512"},
      {"isa", "AVX2", "'AVX2'"},
      {"driver", "fastest", "auto, direct"},
      {"driver", "", "or reference"},
      {"log_level", "loud", "error, warning, info or debug"},
      {"tune", "twice", "off or once"},
      {"tune", "", "''"},
      {"tune_ms", "0", "from 1 to 60000"},
      {"tune_ms", "5.5", "'5.5'"},
      {"tune_ms", "60001", "'60001'"},
      {"precision", "half", "float32 or float16"},
      {"thread", "2", "threads, isa and log_level"},
      {"", "2", "''"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Create({c.key}, {c.value}), nullptr) << c.key << "=" << c.value;
    EXPECT_TRUE(Contains(reported, c.expected)) << reported;
    EXPECT_TRUE(Contains(reported, "Received")) << reported;
  }
  const std::string long_path(2000, 'x');
  EXPECT_EQ(Create({"cache_path"}, {long_path.c_str()}), nullptr);
  EXPECT_TRUE(Contains(reported, "less than 1024 bytes. Received: 2000"));
  EXPECT_EQ(Create({nullptr}, {nullptr}), nullptr);
  const char* key = "no_such_option";
  const char* value = "1";
  EXPECT_EQ(tflite_plugin_create_delegate(&key, &value, 1, nullptr), nullptr);
  tflite_plugin_destroy_delegate(nullptr);
}

// A graph of one fully connected or convolution node on a golden payload.
class OneLayer {
 public:
  explicit OneLayer(const std::string& golden)
      : payload_(ReadGolden(golden + ".payload")) {
    if (ParsePayload(payload_.data(), payload_.size(), &view_) != nullptr) {
      abort();
    }
  }

  void FullyConnected(std::vector<int> input, bool keep_num_dims = false) {
    options_ = {0x4F504654, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, keep_num_dims};
    Build(kFullyConnectedName, input);
  }
  // A kernel of height x width with the payload's columns.
  void Conv2D(std::vector<int> input, int height, int width = 1) {
    options_ = {0x4F504654,
                1,
                0,
                0,
                height,
                width,
                static_cast<int>(view_.columns) / (height * width),
                1,
                1,
                1,
                1,
                0};
    Build(kConv2DName, input);
  }

  FakeInterpreter& interpreter() { return interpreter_; }
  std::vector<int32_t>& options() { return options_; }
  tflite::Tensor& input() { return interpreter_.tensor(0); }
  tflite::Tensor& payload() { return interpreter_.tensor(1); }
  tflite::Tensor& bias() { return interpreter_.tensor(2); }
  tflite::Tensor& output() { return interpreter_.tensor(3); }
  const BandedView& view() const { return view_; }
  AlignedBytes& payload_bytes() { return payload_; }

  // x[i] = 1 / (i + 1), bias[o] = o.
  void FillInput() {
    for (size_t i = 0; i < input().bytes / 4; ++i) {
      input().data.f[i] = 1.0f / static_cast<float>(i + 1);
    }
    for (size_t i = 0; i < bias().bytes / 4; ++i) {
      bias().data.f[i] = static_cast<float>(i);
    }
  }
  // Expected output of pixel `p` of a fully connected layer.
  double Expected(size_t p, uint32_t row) const {
    double sum = row;
    for (uint32_t band = 0; band < view_.band_count; ++band) {
      for (uint32_t lane = 0; lane < view_.band_rows; ++lane) {
        if (view_.RowId(uint64_t{band} * view_.band_rows + lane) != row) {
          continue;
        }
        for (uint32_t n = view_.band_start[band];
             n < view_.band_start[band + 1]; ++n) {
          sum += view_.value[uint64_t{n} * view_.band_rows + lane] /
                 (static_cast<double>(p) * view_.columns + view_.Column(n) + 1);
        }
      }
    }
    return sum;
  }

 private:
  void Build(const char* name, std::vector<int> input) {
    options_.resize(16);
    interpreter_.AddTensor(input, "x");
    interpreter_.AddConstant(payload_.data(), payload_.size());
    interpreter_.AddTensor({static_cast<int>(view_.rows)}, "bias");
    interpreter_.AddTensor({1}, "logits");
    interpreter_.AddNode(name, {0, 1, 2}, {3}, options_.data(), 64);
  }

  AlignedBytes payload_;
  BandedView view_;
  std::vector<int32_t> options_;
  FakeInterpreter interpreter_;
};

TEST_F(DelegateTest, ClaimsOnlyOurNodes) {
  OneLayer layer("two_bands");
  layer.FullyConnected({2, 27});
  layer.interpreter().AddNode("SomebodyElses", {0}, {3}, nullptr, 0);
  layer.interpreter().AddNode("TfrewpruneOfTomorrow", {0}, {3}, nullptr, 0);
  layer.interpreter().AddNode(nullptr, {0}, {3}, nullptr, 0);
  Handle delegate = Create({"log_level"}, {"error"});
  ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
  EXPECT_EQ(layer.interpreter().claimed(), 1u);
  EXPECT_EQ(tfrewprune_claimed_nodes(delegate.get()), 1);
}

// Its own claimed nodes carry its prefix, too.
TEST_F(DelegateTest, ASecondDelegateDoesNotWarnOfClaimedNodes) {
  FakeInterpreter graph;
  graph.AddTensor({1}, "x");
  graph.AddNode(kClaimedName, {0}, {0}, nullptr, 0);
  testing::internal::CaptureStderr();
  Handle delegate = Create();
  EXPECT_EQ(graph.Apply(delegate.get()), tflite::kOk);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(tfrewprune_claimed_nodes(delegate.get()), 0);
}

// What a delegate with these options writes to stderr about one layer.
std::string LogOf(const std::string& golden, std::vector<const char*> keys,
                  std::vector<const char*> values) {
  OneLayer layer(golden);
  layer.FullyConnected({9, static_cast<int>(layer.view().columns)});
  testing::internal::CaptureStderr();
  Handle delegate = Create(keys, values);
  EXPECT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
  EXPECT_EQ(layer.interpreter().Allocate(), tflite::kOk);
  return testing::internal::GetCapturedStderr();
}

TEST_F(DelegateTest, ADriverIsForcedByTheOptionElseByTheEnvironment) {
  for (const char* driver : {"direct", "gemv", "reference"}) {
    const std::string expected = std::string("driver ") + driver + "\n";
    EXPECT_TRUE(Contains(
        LogOf("ragged", {"driver", "log_level"}, {driver, "debug"}), expected));
    setenv("TFREWPRUNE_DRIVER", driver, 1);
    EXPECT_TRUE(Contains(LogOf("ragged", {"log_level"}, {"debug"}), expected));
    EXPECT_FALSE(
        Contains(LogOf("ragged", {"driver", "log_level"}, {"auto", "debug"}),
                 "driver reference"));
    unsetenv("TFREWPRUNE_DRIVER");
  }
  setenv("TFREWPRUNE_DRIVER", "fastest", 1);
  EXPECT_EQ(Create(), nullptr);
  EXPECT_TRUE(Contains(reported, "TFREWPRUNE_DRIVER")) << reported;
}

TEST_F(DelegateTest, Float16ArithmeticWhereTheCpuHasIt) {
  const std::string log =
      LogOf("two_bands", {"precision", "log_level"}, {"float16", "debug"});
  EXPECT_EQ(Contains(log, "kernels in float16 arithmetic\n"), HalfArithmetic());
  EXPECT_EQ(Contains(log, "kernels: no float16 arithmetic\n"),
            !HalfArithmetic());
  EXPECT_EQ(Contains(log, "driver half_"), HalfArithmetic()) << log;
  EXPECT_FALSE(Contains(
      LogOf("two_bands", {"precision", "log_level"}, {"float32", "debug"}),
      "half_"));
}

TEST_F(DelegateTest, ADriverThatCannotDoALayerIsReplacedWithAWarning) {
  const std::string log = LogOf("ragged", {"driver"}, {"lifted"});
  EXPECT_TRUE(Contains(log,
                       "WARNING: tfrewprune: node 0: driver lifted cannot "
                       "do this layer; "))
      << log;
  EXPECT_EQ(LogOf("ragged", {"driver"}, {"direct"}), "");
}

TEST_F(DelegateTest, MeasuresWhenAskedToAndRemembersInTheFile) {
  char path[] = "/tmp/tfrewprune-delegate-XXXXXX";
  ASSERT_GE(mkstemp(path), 0);
  const std::vector<const char*> keys = {"threads", "log_level", "tune",
                                         "cache_path"};
  // The file is empty at first, which is no cache and no error.
  EXPECT_TRUE(Contains(LogOf("ragged", keys, {"2", "debug", "once", path}),
                       " is measured"));
  EXPECT_TRUE(Contains(LogOf("ragged", keys, {"2", "debug", "once", path}),
                       " is remembered"));
  EXPECT_TRUE(Contains(LogOf("ragged", keys, {"2", "debug", "once", ""}),
                       " is measured"));
  for (const char* said : {"measured", "remembered", "predicted"}) {
    EXPECT_FALSE(
        Contains(LogOf("ragged", keys, {"2", "debug", "off", path}), said));
  }
  // Two threads are not one.
  EXPECT_FALSE(Contains(LogOf("ragged", keys, {"1", "debug", "once", path}),
                        " is remembered"));
  remove(path);
  EXPECT_TRUE(Contains(
      LogOf("ragged", keys, {"2", "warning", "once", "/no/such/folder/file"}),
      "WARNING: tfrewprune: what was measured could not be written to "
      "cache_path: no file can be made in its folder"));
}

TEST_F(DelegateTest, AForcedDriverIsNotMeasured) {
  const std::string log =
      LogOf("ragged", {"threads", "log_level", "tune", "driver"},
            {"2", "debug", "once", "direct"});
  EXPECT_TRUE(Contains(log, "driver direct\n")) << log;
  EXPECT_FALSE(Contains(log, "measured")) << log;
}

TEST_F(DelegateTest, TunedLayersComputeAfterEveryResize) {
  OneLayer layer("ragged");  // 19 x 36
  layer.FullyConnected({1, 36});
  Handle delegate = Create({"threads", "tune", "tune_ms"}, {"2", "once", "5"});
  ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
  for (int batch : {1, 7, 1, 0, 40}) {
    layer.interpreter().Resize(0, {batch, 36});
    ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk)
        << layer.interpreter().errors();
    layer.FillInput();
    ASSERT_EQ(layer.interpreter().Invoke(), tflite::kOk);
    for (int p = 0; p < batch; ++p) {
      for (uint32_t row = 0; row < 19; ++row) {
        EXPECT_NEAR(layer.output().data.f[p * 19 + row], layer.Expected(p, row),
                    1e-4);
      }
    }
  }
}

// A geometry that no driver affords runs all the same, and says so once.
TEST_F(DelegateTest, PlainLoopsAreAnnouncedOnce) {
  for (const char* isa : {"auto", "reference"}) {
    OneLayer layer("ragged");  // 36 columns
    layer.Conv2D({1, 1, 3, 1}, 1, 36);
    layer.options()[10] = 1 << 20;  // dilation width
    layer.options()[11] = 0;        // SAME
    testing::internal::CaptureStderr();
    Handle delegate = Create({"isa"}, {isa});
    ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
    for (int width : {3, 5}) {
      layer.interpreter().Resize(0, {1, 1, width, 1});
      ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk)
          << layer.interpreter().errors();
      layer.FillInput();
      ASSERT_EQ(layer.interpreter().Invoke(), tflite::kOk);
    }
    const std::string log = testing::internal::GetCapturedStderr();
    const size_t found = log.find("WARNING: tfrewprune: node 0: no driver");
    EXPECT_EQ(found == std::string::npos, isa == std::string("reference"));
    EXPECT_EQ(log.find("no driver", found + 40), std::string::npos) << log;
  }
}

TEST_F(DelegateTest, ComputesAfterEveryResize) {
  for (const char* isa : {"auto", "portable", "reference"}) {
    OneLayer layer("ragged");  // 19 x 36, bands of 8
    layer.FullyConnected({1, 36});
    Handle delegate = Create({"isa"}, {isa});
    ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
    const std::vector<std::vector<int>> shapes = {{1, 36}, {5, 36}, {2, 3, 12},
                                                  {36},    {0, 36}, {40, 36}};
    for (const std::vector<int>& shape : shapes) {
      layer.interpreter().Resize(0, shape);
      ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk)
          << layer.interpreter().errors();
      layer.FillInput();
      ASSERT_EQ(layer.interpreter().Invoke(), tflite::kOk);
      const int batch = static_cast<int>(layer.input().bytes / 4 / 36);
      ASSERT_EQ(layer.interpreter().shape(3), (std::vector<int>{batch, 19}));
      for (int p = 0; p < batch; ++p) {
        for (uint32_t row = 0; row < 19; ++row) {
          EXPECT_NEAR(layer.output().data.f[p * 19 + row],
                      layer.Expected(p, row), 1e-4)
              << isa << " pixel " << p << " row " << row;
        }
      }
    }
  }
}

TEST_F(DelegateTest, ThreadsComeFromTheOptionElseFromTheInterpreter) {
  struct {
    const char* option;
    int recommended, expected;
  } cases[] = {{"auto", -1, 1}, {"auto", 3, 3}, {"2", 3, 2}, {"auto", 0, 1}};
  for (const auto& c : cases) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    layer.interpreter().context().recommended_num_threads = c.recommended;
    Handle delegate = Create({"threads"}, {c.option});
    ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
    ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk);
    EXPECT_EQ(tfrewprune_threads(delegate.get()), c.expected);
  }
}

// Whether a payload `shift` bytes after a cache line was copied, after a check
// of the results.
bool Copies(bool convolution, size_t shift) {
  OneLayer layer("two_bands");
  const size_t size = layer.payload_bytes().size();
  std::vector<uint8_t> memory(size + 128);
  uint8_t* at = memory.data();
  while (reinterpret_cast<uintptr_t>(at) % 64 != shift) ++at;
  memcpy(at, layer.payload_bytes().data(), size);
  if (convolution) {
    layer.Conv2D({1, 1, 1, 27}, 1);
  } else {
    layer.FullyConnected({1, 27});
  }
  layer.payload().data.data = at;
  testing::internal::CaptureStderr();
  Handle delegate = Create({"log_level"}, {"debug"});
  EXPECT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
  EXPECT_EQ(layer.interpreter().Allocate(), tflite::kOk);
  layer.FillInput();
  EXPECT_EQ(layer.interpreter().Invoke(), tflite::kOk);
  for (uint32_t row = 0; row < 32; ++row) {
    EXPECT_NEAR(layer.output().data.f[row], layer.Expected(0, row), 1e-4);
  }
  return Contains(testing::internal::GetCapturedStderr(), "bytes were copied");
}

TEST_F(DelegateTest, PayloadsAreUsedInPlaceAtAnyFourBytes) {
  for (size_t shift : {0, 4, 8, 16, 60}) EXPECT_FALSE(Copies(true, shift));
  for (size_t shift : {1, 2, 7, 63}) EXPECT_TRUE(Copies(true, shift));
  // Fully connected layers are measured to be faster from a copy.
  for (size_t shift : {1, 4, 32}) EXPECT_TRUE(Copies(false, shift));
  EXPECT_FALSE(Copies(false, 0));
}

TEST_F(DelegateTest, RefusalsNameTheNodeTheExpectedAndTheReceived) {
  struct {
    const char* what;
    void (*damage)(OneLayer*);
    const char* message;
  } cases[] = {
      {"option", [](OneLayer* l) { l->options()[3] = 6; },
       "fused activation must be from 0 to 5. Received: 6"},
      {"magic", [](OneLayer* l) { l->options()[0] = 0; }, "magic"},
      {"payload", [](OneLayer* l) { l->payload_bytes().data()[24] = 5; },
       "band_rows is not 4, 8, 16 or 32"},
      {"received", [](OneLayer* l) { l->payload_bytes().data()[4] = 9; },
       "version 9, layout 0"},
      {"computed payload",
       [](OneLayer* l) {
         l->payload().allocation_type = tflite::AllocationType(2);
       },
       "must be a constant"},
      {"payload type",
       [](OneLayer* l) { l->payload().type = tflite::kFloat32; },
       "Received: type 1"},
      {"payload length", [](OneLayer* l) { l->payload().bytes = 100; },
       "100 bytes"},
  };
  for (const auto& c : cases) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    c.damage(&layer);
    Handle delegate = Create();
    EXPECT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kError);
    const std::string& errors = layer.interpreter().errors();
    EXPECT_TRUE(Contains(errors, c.message)) << c.what << ": " << errors;
    EXPECT_TRUE(
        Contains(errors, "TfrewpruneFullyConnected (node 0, output 'logits')"))
        << errors;
    EXPECT_EQ(tfrewprune_claimed_nodes(delegate.get()), 0);
    // An interpreter that goes on all the same gets no further.
    EXPECT_EQ(layer.interpreter().Allocate(), tflite::kError);
    EXPECT_EQ(layer.interpreter().Invoke(), tflite::kError);
  }
}

TEST_F(DelegateTest, ShapesThatDoNotFitAreRefusedWhenAllocating) {
  struct {
    const char* what;
    void (*damage)(OneLayer*);
    const char* message;
  } cases[] = {
      {"activation type", [](OneLayer* l) { l->input().type = tflite::kUInt8; },
       "types 3 and 1"},
      {"output type", [](OneLayer* l) { l->output().type = tflite::kUInt8; },
       "types 1 and 3"},
      {"bias length", [](OneLayer* l) { l->interpreter().Resize(2, {31}); },
       "with 32 values. Received: type 1, shape [31]"},
      {"bias type", [](OneLayer* l) { l->bias().type = tflite::kUInt8; },
       "the bias must be float32"},
      {"columns", [](OneLayer* l) { l->interpreter().Resize(0, {1, 26}); },
       "[batch, 27] when flattened. Received: [1, 26]"},
      {"rank",
       [](OneLayer* l) {
         l->interpreter().Resize(0, {1, 1, 1, 1, 1, 1, 1, 1, 27});
       },
       "1 to 8 dimensions"},
  };
  for (const auto& c : cases) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    Handle delegate = Create();
    ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
    c.damage(&layer);
    EXPECT_EQ(layer.interpreter().Allocate(), tflite::kError) << c.what;
    EXPECT_TRUE(Contains(layer.interpreter().errors(), c.message))
        << c.what << ": " << layer.interpreter().errors();
  }
}

TEST_F(DelegateTest, HostileGraphsAreRefused) {
  struct {
    std::vector<int> inputs, outputs;
  } cases[] = {{{0}, {3}},          {{0, 1, 2, 2}, {3}}, {{0, 1, 2}, {}},
               {{0, 1, 2}, {3, 3}}, {{-1, 1, 2}, {3}},   {{0, -1, 2}, {3}},
               {{0, 1, 4}, {3}},    {{0, 1, -2}, {3}},   {{0, 1, 2}, {4}},
               {{0, 1, 2}, {-1}},   {{1 << 30, 1}, {3}}};
  for (const auto& c : cases) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    layer.interpreter().AddNode(kFullyConnectedName, c.inputs, c.outputs,
                                layer.options().data(), 64);
    Handle delegate = Create();
    EXPECT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kError);
    EXPECT_TRUE(Contains(layer.interpreter().errors(), "Received"))
        << layer.interpreter().errors();
  }
  // Options missing, short, negative in length.
  for (int length : {-5, 0, 63, 65}) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    layer.interpreter().AddNode(kConv2DName, {0, 1}, {3},
                                length <= 0 ? nullptr : layer.options().data(),
                                static_cast<size_t>(length));
    Handle delegate = Create();
    EXPECT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kError);
    EXPECT_TRUE(Contains(layer.interpreter().errors(), "length in bytes"));
  }
}

TEST_F(DelegateTest, ATensorThatShrinksBehindOurBackIsNoticed) {
  OneLayer layer("two_bands");
  layer.FullyConnected({4, 27});
  Handle delegate = Create();
  ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
  ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk);
  layer.FillInput();
  ASSERT_EQ(layer.interpreter().Invoke(), tflite::kOk);
  layer.input().bytes = 27 * 4;
  EXPECT_EQ(layer.interpreter().Invoke(), tflite::kError);
  EXPECT_TRUE(Contains(layer.interpreter().errors(), "432"))
      << layer.interpreter().errors();
}

TEST_F(DelegateTest, OptionalBiasMayBeLeftOut) {
  for (std::vector<int> inputs :
       {std::vector<int>{0, 1}, std::vector<int>{0, 1, -1}}) {
    OneLayer layer("two_bands");
    layer.FullyConnected({1, 27});
    FakeInterpreter graph;
    graph.AddTensor({1, 27});
    graph.AddConstant(layer.payload_bytes().data(),
                      layer.payload_bytes().size());
    graph.AddTensor({1});
    graph.AddNode(kFullyConnectedName, inputs, {2}, layer.options().data(), 64);
    Handle delegate = Create();
    ASSERT_EQ(graph.Apply(delegate.get()), tflite::kOk) << graph.errors();
    ASSERT_EQ(graph.Allocate(), tflite::kOk) << graph.errors();
    for (int i = 0; i < 27; ++i) {
      graph.tensor(0).data.f[i] = 1.0f / static_cast<float>(i + 1);
    }
    ASSERT_EQ(graph.Invoke(), tflite::kOk);
    for (uint32_t row = 0; row < 32; ++row) {
      EXPECT_NEAR(graph.tensor(2).data.f[row], layer.Expected(0, row) - row,
                  1e-4);
    }
  }
}

TEST_F(DelegateTest, AConvolutionAddsItsResidual) {
  for (const char* isa : {"auto", "portable", "reference"}) {
    OneLayer layer("ragged");  // 19 x 36, bands of 8
    layer.Conv2D({2, 5, 3, 9}, 4);
    FakeInterpreter& graph = layer.interpreter();
    const int residual = graph.AddTensor({2, 5, 3, 19}, "residual");
    const int sum = graph.AddTensor({1}, "sum");
    std::vector<int32_t> relu = layer.options();
    relu[3] = 1;
    graph.AddNode(kConv2DName, {0, 1, 2, residual}, {sum}, relu.data(), 64);
    Handle delegate = Create({"isa"}, {isa});
    ASSERT_EQ(graph.Apply(delegate.get()), tflite::kOk) << graph.errors();
    ASSERT_EQ(graph.Allocate(), tflite::kOk) << graph.errors();
    layer.FillInput();
    for (int i = 0; i < 2 * 5 * 3 * 19; ++i) {
      graph.tensor(residual).data.f[i] = static_cast<float>(i % 41 - 20);
    }
    ASSERT_EQ(graph.Invoke(), tflite::kOk) << graph.errors();
    ASSERT_EQ(graph.shape(sum), (std::vector<int>{2, 5, 3, 19}));
    for (int i = 0; i < 2 * 5 * 3 * 19; ++i) {
      const float expected =
          layer.output().data.f[i] + graph.tensor(residual).data.f[i];
      EXPECT_NEAR(graph.tensor(sum).data.f[i], std::fmax(expected, 0.0f), 1e-5);
    }
  }
}

TEST_F(DelegateTest, AResidualThatDoesNotFitIsRefused) {
  struct {
    std::vector<int> shape;
    int type;
    const char* message;
  } cases[] = {{{1, 5, 3, 19}, 1, "[2, 5, 3, 19]. Received: type 1, shape [1,"},
               {{2, 5, 3, 1}, 1, "shaped as the output"},
               {{2, 5, 57}, 1, "shape [2, 5, 57]"},
               {{2, 5, 3, 19}, 3, "Received: type 3"}};
  for (const auto& c : cases) {
    OneLayer layer("ragged");
    layer.Conv2D({2, 5, 3, 9}, 4);
    FakeInterpreter& graph = layer.interpreter();
    const int residual = graph.AddTensor(c.shape, "residual");
    graph.tensor(residual).type =
        static_cast<decltype(tflite::kFloat32)>(c.type);
    graph.AddNode(kConv2DName, {0, 1, 2, residual}, {graph.AddTensor({1})},
                  layer.options().data(), 64);
    Handle delegate = Create();
    ASSERT_EQ(graph.Apply(delegate.get()), tflite::kOk) << graph.errors();
    EXPECT_EQ(graph.Allocate(), tflite::kError);
    EXPECT_TRUE(Contains(graph.errors(), c.message)) << graph.errors();
  }
}

TEST_F(DelegateTest, LayersOfOneGraphShareTheirScratch) {
  const uint64_t before = tfrewprune_held_bytes();
  for (const char* isa : {"auto", "portable"}) {
    uint64_t held[4] = {};
    for (int layers : {1, 2, 3}) {
      OneLayer layer("wide_band");  // 40 x 64
      // Nearly all of it is border: the whole padded image is copied.
      layer.Conv2D({1, 300, 8, 8}, 1, 8);
      for (int i = 1; i < layers; ++i) {
        const int output = layer.interpreter().AddTensor({1}, "more");
        layer.interpreter().AddNode(kConv2DName, {0, 1, 2}, {output},
                                    layer.options().data(), 64);
      }
      Handle delegate = Create({"isa"}, {isa});
      ASSERT_EQ(layer.interpreter().Apply(delegate.get()), tflite::kOk);
      ASSERT_EQ(layer.interpreter().Allocate(), tflite::kOk)
          << layer.interpreter().errors();
      held[layers] = tfrewprune_held_bytes() - before;
    }
    // The first brings the scratch, each of the others only its tables.
    EXPECT_EQ(held[3] - held[2], held[2] - held[1]) << isa;
    EXPECT_GT(held[1], 100000u) << isa;
    EXPECT_LT(held[2] - held[1], held[1] / 2) << isa;
    EXPECT_EQ(tfrewprune_held_bytes(), before) << "not given back";
  }
}

TEST_F(DelegateTest, OneDelegateServesInterpretersOnSeveralThreads) {
  Handle delegate = Create({"threads"}, {"2"});
  std::vector<std::thread> users;
  std::atomic<int> wrong{0};
  for (int u = 0; u < 3; ++u) {
    users.emplace_back([&] {
      OneLayer layer("wide_band");  // 40 x 64
      layer.Conv2D({2, 6, 5, 16}, 4);
      layer.interpreter().context().recommended_num_threads = 2;
      if (layer.interpreter().Apply(delegate.get()) != tflite::kOk ||
          layer.interpreter().Allocate() != tflite::kOk) {
        ++wrong;
        return;
      }
      layer.FillInput();
      std::vector<float> first;
      for (int i = 0; i < 20; ++i) {
        if (layer.interpreter().Invoke() != tflite::kOk) ++wrong;
        std::vector<float> now(
            layer.output().data.f,
            layer.output().data.f + layer.output().bytes / 4);
        if (i == 0) first = now;
        if (now != first) ++wrong;
      }
    });
  }
  for (std::thread& user : users) user.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(tfrewprune_claimed_nodes(delegate.get()), 3);
}

}  // namespace
}  // namespace tfrewprune
