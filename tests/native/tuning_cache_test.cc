// SPDX-License-Identifier: Apache-2.0
//
// The file of measured choices: what comes back, and what is not believed.
#include "operators/tuning_cache.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <thread>

namespace tfrewprune {
namespace {

class TuningCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tfrewprune-tuning-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    path_ = folder_ + "/cache";
  }
  void TearDown() override {
    for (const std::string& name : Files()) {
      remove((folder_ + "/" + name).c_str());
    }
    rmdir(folder_.c_str());
  }

  std::set<std::string> Files() const {
    std::set<std::string> names;
    DIR* folder = opendir(folder_.c_str());
    while (const dirent* entry = readdir(folder)) {
      if (entry->d_name[0] != '.') names.insert(entry->d_name);
    }
    closedir(folder);
    return names;
  }
  std::string Content() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Put(const std::string& content) const {
    std::ofstream(path_, std::ios::binary) << content;
  }
  int ReadCount() const {
    TuningCache cache;
    const int read = cache.Read(path_.c_str());
    EXPECT_EQ(read, cache.count());
    return read;
  }
  void WriteTwo() const {
    TuningCache cache;
    cache.Add(1, {FindDriver("direct"), false});
    cache.Add(~uint64_t{0}, {FindDriver("lifted"), true});
    ASSERT_EQ(cache.Write(path_.c_str()), nullptr);
  }
  // The same entries under another first line, as whole as the original.
  void Forge(const std::string& from, const std::string& to) const {
    std::string text = Content();
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, from.size(), to);
    text.resize(text.rfind("end "));
    char end[32];
    snprintf(end, sizeof(end), "end %016llx\n",
             static_cast<unsigned long long>(Hash(text.data(), text.size())));
    Put(text + end);
  }

  std::string folder_, path_;
};

TEST_F(TuningCacheTest, WhatWasWrittenComesBack) {
  WriteTwo();
  EXPECT_EQ(Files(), std::set<std::string>{"cache"});
  TuningCache cache;
  EXPECT_EQ(cache.Read(path_.c_str()), 2);
  ASSERT_NE(cache.Find(1), nullptr);
  EXPECT_STREQ(cache.Find(1)->driver->name, "direct");
  EXPECT_FALSE(cache.Find(1)->alone);
  ASSERT_NE(cache.Find(~uint64_t{0}), nullptr);
  EXPECT_STREQ(cache.Find(~uint64_t{0})->driver->name, "lifted");
  EXPECT_TRUE(cache.Find(~uint64_t{0})->alone);
  EXPECT_EQ(cache.Find(2), nullptr);
}

TEST_F(TuningCacheTest, OwnEntriesCountMoreThanTheFiles) {
  WriteTwo();
  TuningCache cache;
  cache.Add(1, {FindDriver("gemv"), false});
  EXPECT_EQ(cache.Read(path_.c_str()), 1);
  EXPECT_STREQ(cache.Find(1)->driver->name, "gemv");
}

TEST_F(TuningCacheTest, AMissingFileOrFolderHoldsNothing) {
  EXPECT_EQ(ReadCount(), 0);
  TuningCache cache;
  EXPECT_EQ(cache.Read((folder_ + "/no/cache").c_str()), 0);
  EXPECT_EQ(cache.Read(folder_.c_str()), 0);
}

TEST_F(TuningCacheTest, ADamagedFileIsIgnoredAndReplaced) {
  WriteTwo();
  const std::string whole = Content();
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] ^= 4;
    Put(damaged);
    ASSERT_EQ(ReadCount(), 0) << "byte " << i;
    Put(whole.substr(0, i));
    ASSERT_EQ(ReadCount(), 0) << "cut at " << i;
  }
  Put(whole + "x");
  EXPECT_EQ(ReadCount(), 0);
  Put(std::string(1 << 22, 'x'));
  EXPECT_EQ(ReadCount(), 0);
  TuningCache cache;
  cache.Add(3, {FindDriver("lifted"), false});
  ASSERT_EQ(cache.Write(path_.c_str()), nullptr);
  EXPECT_EQ(ReadCount(), 1);
}

TEST_F(TuningCacheTest, AFileOfAnotherCpuOrVersionIsIgnored) {
  WriteTwo();
  Forge("tuning 1", "tuning 1");
  EXPECT_EQ(ReadCount(), 2) << "the forgery itself";
  char cpu[32];
  snprintf(cpu, sizeof(cpu), "%016llx",
           static_cast<unsigned long long>(CpuHash()));
  Forge(cpu, "0123456789abcdef");
  EXPECT_EQ(ReadCount(), 0);
  WriteTwo();
  EXPECT_EQ(ReadCount(), 2) << "replaced, not added to";
  Forge("library ", "library 9");
  EXPECT_EQ(ReadCount(), 0);
  WriteTwo();
  Forge("tuning 1", "tuning 2");
  EXPECT_EQ(ReadCount(), 0);
}

TEST_F(TuningCacheTest, UnknownDriversAreLeftOut) {
  WriteTwo();
  Forge("lifted", "warped");
  TuningCache cache;
  EXPECT_EQ(cache.Read(path_.c_str()), 1);
  EXPECT_NE(cache.Find(1), nullptr);
}

TEST_F(TuningCacheTest, WritingKeepsWhatOthersWroteMeanwhile) {
  TuningCache one, other;
  one.Add(1, {FindDriver("direct"), false});
  other.Add(2, {FindDriver("gemv"), false});
  ASSERT_EQ(one.Write(path_.c_str()), nullptr);
  ASSERT_EQ(other.Write(path_.c_str()), nullptr);
  EXPECT_EQ(ReadCount(), 2);
}

TEST_F(TuningCacheTest, TheFileStaysSmall) {
  TuningCache cache;
  const uint64_t count = TuningCache::kMost + 10;
  for (uint64_t key = 1; key <= count; ++key) {
    cache.Add(key, {FindDriver("reference"), false});
  }
  ASSERT_EQ(cache.Write(path_.c_str()), nullptr);
  TuningCache read;
  EXPECT_EQ(read.Read(path_.c_str()), int{TuningCache::kMost});
  EXPECT_EQ(read.Find(1), nullptr) << "the oldest ones go";
  EXPECT_NE(read.Find(count), nullptr);
}

TEST_F(TuningCacheTest, AFileThatCannotBeWrittenSaysWhyAndLeavesNothing) {
  TuningCache cache;
  cache.Add(1, {FindDriver("direct"), false});
  EXPECT_NE(cache.Write((folder_ + "/no/cache").c_str()), nullptr);
  // A folder in its place: the temporary file is made and must go.
  ASSERT_EQ(mkdir(path_.c_str(), 0700), 0);
  EXPECT_NE(cache.Write(path_.c_str()), nullptr);
  EXPECT_EQ(Files(), std::set<std::string>{"cache"});
  ASSERT_EQ(rmdir(path_.c_str()), 0);
}

// A reader finds a whole file at any time.
TEST_F(TuningCacheTest, ReplacedAtOnce) {
  WriteTwo();
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (uint64_t key = 10; !stop.load(); ++key) {
      TuningCache cache;
      cache.Add(key % 50, {FindDriver("lifted"), false});
      EXPECT_EQ(cache.Write(path_.c_str()), nullptr);
    }
  });
  for (int i = 0; i < 300; ++i) EXPECT_GE(ReadCount(), 2);
  stop = true;
  writer.join();
}

TEST(HashTest, EveryByteAndTheLengthCount) {
  std::set<uint64_t> seen;
  size_t count = 0;
  for (size_t length : {0, 1, 7, 8, 31, 32, 33, 64, 100}) {
    std::string text(length, '\0');
    seen.insert(Hash(text.data(), length));
    seen.insert(Hash(text.data(), length, 1));
    count += 2;
    for (size_t i = 0; i < length; ++i) {
      text[i] = 1;
      seen.insert(Hash(text.data(), length));
      text[i] = 0;
      ++count;
    }
  }
  EXPECT_EQ(seen.size(), count);
}

TEST(HashTest, TheCpuIsTheSameEveryTime) { EXPECT_EQ(CpuHash(), CpuHash()); }

}  // namespace
}  // namespace tfrewprune
