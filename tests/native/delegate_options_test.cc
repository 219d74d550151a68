// SPDX-License-Identifier: Apache-2.0
//
// The options of a delegate, and what the environment says instead.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "delegate_case.h"

namespace tfrewprune {
namespace {

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

TEST_F(DelegateOptionsTest, ADriverIsForcedByTheOptionElseByTheEnvironment) {
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

TEST_F(DelegateOptionsTest, Float16ArithmeticWhereTheCpuHasIt) {
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

TEST_F(DelegateOptionsTest, ADriverThatCannotDoALayerIsReplacedWithAWarning) {
  const std::string log = LogOf("ragged", {"driver"}, {"lifted"});
  EXPECT_TRUE(Contains(log,
                       "WARNING: tfrewprune: node 0: driver lifted cannot "
                       "do this layer; "))
      << log;
  EXPECT_EQ(LogOf("ragged", {"driver"}, {"direct"}), "");
}

TEST_F(DelegateOptionsTest, MeasuresWhenAskedToAndRemembersInTheFile) {
  char path[] = "/tmp/tfrewprune-delegate-XXXXXX";
  ASSERT_GE(mkstemp(path), 0);
  // A minute, of which it takes some milliseconds: a busy machine must not
  // decide what is measured.
  const auto log_of = [](const char* threads, const char* level,
                         const char* tune, const char* cache) {
    return LogOf("ragged",
                 {"threads", "log_level", "tune", "cache_path", "tune_ms"},
                 {threads, level, tune, cache, "60000"});
  };
  // The file is empty at first, which is no cache and no error.
  EXPECT_TRUE(Contains(log_of("2", "debug", "once", path), " is measured"));
  EXPECT_TRUE(Contains(log_of("2", "debug", "once", path), " is remembered"));
  EXPECT_TRUE(Contains(log_of("2", "debug", "once", ""), " is measured"));
  const std::string off = log_of("2", "debug", "off", path);
  for (const char* said : {"measured", "remembered", "predicted"}) {
    EXPECT_FALSE(Contains(off, said)) << off;
  }
  // Two threads are not one.
  EXPECT_FALSE(Contains(log_of("1", "debug", "once", path), " is remembered"));
  remove(path);
  EXPECT_TRUE(
      Contains(log_of("2", "warning", "once", "/no/such/folder/file"),
               "WARNING: tfrewprune: what was measured could not be written to "
               "cache_path: no file can be made in its folder"));
}

TEST_F(DelegateOptionsTest, AForcedDriverIsNotMeasured) {
  const std::string log =
      LogOf("ragged", {"threads", "log_level", "tune", "driver"},
            {"2", "debug", "once", "direct"});
  EXPECT_TRUE(Contains(log, "driver direct\n")) << log;
  EXPECT_FALSE(Contains(log, "measured")) << log;
}

TEST_F(DelegateOptionsTest, ThreadsComeFromTheOptionElseFromTheInterpreter) {
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

}  // namespace
}  // namespace tfrewprune
