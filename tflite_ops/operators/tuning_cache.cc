// SPDX-License-Identifier: Apache-2.0
#include "operators/tuning_cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

namespace tfrewprune {
namespace {

// The file: a line of what wrote it, a line for each entry, and the hash of all
// that is before it.
//
//   tfrewprune tuning 1, library 0.1.0, cpu 0123456789abcdef
//   0123456789abcdef direct all
//   0123456789abcdef flat one
//   end 0123456789abcdef
constexpr size_t kLineBytes = 96;
constexpr size_t kMostBytes = kLineBytes * (TuningCache::kMost + 2);

int PrintHeader(char* text, size_t size) {
  return snprintf(text, size,
                  "tfrewprune tuning 1, library %s, cpu %016" PRIx64 "\n",
                  TFREWPRUNE_VERSION, CpuHash());
}

// The hash at the end of `text`, which has `bytes` before it.
int PrintEnd(const char* text, size_t bytes, char* line, size_t size) {
  return snprintf(line, size, "end %016" PRIx64 "\n", Hash(text, bytes));
}

// The whole file, ended by 0; its bytes. 0 where it cannot be read, or is
// longer than one of ours.
size_t ReadFile(const char* path, Buffer<char>* content) {
  FILE* file = fopen(path, "rbe");
  if (file == nullptr) return 0;
  size_t bytes = 0;
  if (content->Allocate(kMostBytes + 2)) {
    bytes = fread(content->get(), 1, kMostBytes + 1, file);
    if (ferror(file) != 0 || bytes > kMostBytes) bytes = 0;
    (*content)[bytes] = '\0';
  }
  fclose(file);
  return bytes;
}

// Whether it is one of ours, whole; *begin and *end enclose the entries.
bool FindEntries(const char* text, size_t bytes, const char** begin,
                 const char** end) {
  char line[kLineBytes];
  const size_t header = static_cast<size_t>(PrintHeader(line, sizeof(line)));
  if (header >= sizeof(line) || bytes < header ||
      memcmp(text, line, header) != 0) {
    return false;
  }
  const size_t last = strlen("end 0123456789abcdef\n");
  if (bytes < header + last) return false;
  PrintEnd(text, bytes - last, line, sizeof(line));
  if (memcmp(text + bytes - last, line, last) != 0) return false;
  *begin = text + header;
  *end = text + bytes - last;
  return true;
}

// "0123456789abcdef direct all". False for what this version does not know.
bool ReadEntry(const char* line, uint64_t* key, Choice* choice) {
  *key = 0;
  for (int i = 0; i < 16; ++i, ++line) {
    const bool digit = *line >= '0' && *line <= '9';
    if (!digit && (*line < 'a' || *line > 'f')) return false;
    *key = *key << 4 | unsigned(digit ? *line - '0' : *line - 'a' + 10);
  }
  if (*line++ != ' ') return false;
  char driver[32];
  const size_t length = strcspn(line, " \n");
  if (length >= sizeof(driver)) return false;
  memcpy(driver, line, length);
  driver[length] = '\0';
  choice->driver = FindDriver(driver);
  choice->alone = strncmp(line + length, " one\n", 5) == 0;
  return choice->driver != nullptr;
}

}  // namespace

uint64_t Hash(const void* data, size_t bytes, uint64_t seed) {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15u;
  constexpr int kLanes = 4;  // so that no multiplication waits for another
  uint64_t lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = (seed + bytes + i) * kOdd;
  const auto mix = [](uint64_t h, uint64_t word) {
    h = (h ^ word) * kOdd;
    return h ^ h >> 29;
  };
  const char* at = static_cast<const char*>(data);
  for (; bytes >= sizeof(lane); at += sizeof(lane), bytes -= sizeof(lane)) {
    uint64_t word[kLanes];
    memcpy(word, at, sizeof(word));
    for (int i = 0; i < kLanes; ++i) lane[i] = mix(lane[i], word[i]);
  }
  uint64_t rest[kLanes] = {};
  if (bytes > 0) memcpy(rest, at, bytes);  // `data` may be nullptr then
  uint64_t hash = seed;
  for (int i = 0; i < kLanes; ++i) hash = mix(hash, mix(lane[i], rest[i]));
  return hash ^ hash >> 32;
}

uint64_t CpuHash() {
  static constexpr const char* kFields[] = {
      "vendor_id",  "cpu family",      "model",    "stepping",
      "model name", "CPU implementer", "CPU part", "CPU variant"};
  constexpr int kMostLines = 64;
  FILE* file = fopen("/proc/cpuinfo", "re");
  if (file == nullptr) return 0;
  // Every core has the same lines, or those of its kind.
  uint64_t seen[kMostLines], all = 0;
  int count = 0;
  char line[256];
  while (count < kMostLines && fgets(line, sizeof(line), file) != nullptr) {
    bool named = false;
    for (const char* field : kFields) {
      const size_t length = strlen(field);
      if (strncmp(line, field, length) == 0 &&
          strspn(line + length, "\t :") > 0) {
        named = true;
      }
    }
    if (!named) continue;
    const uint64_t hash = Hash(line, strlen(line));
    bool known = false;
    for (int i = 0; i < count; ++i) known |= seen[i] == hash;
    if (known) continue;
    seen[count++] = hash;
    all ^= hash;
  }
  fclose(file);
  return all;
}

const Choice* TuningCache::Find(uint64_t key) const {
  for (uint32_t i = 0; i < count_; ++i) {
    if (entry_[i].key == key) return &entry_[i].choice;
  }
  return nullptr;
}

void TuningCache::Add(uint64_t key, const Choice& choice) {
  for (uint32_t i = 0; i < count_; ++i) {
    if (entry_[i].key != key) continue;
    entry_[i].choice = choice;
    return;
  }
  if (count_ == capacity_) {
    Buffer<Entry> larger;
    const uint32_t wanted = capacity_ == 0 ? 64 : 2 * capacity_;
    if (!larger.Allocate(wanted)) return;
    if (count_ > 0) memcpy(larger.get(), entry_.get(), count_ * sizeof(Entry));
    entry_.Swap(&larger);
    capacity_ = wanted;
  }
  entry_[count_++] = {key, choice};
}

int TuningCache::Read(const char* path) {
  Buffer<char> content;
  const size_t bytes = ReadFile(path, &content);
  const char *begin, *end;
  if (bytes == 0 || !FindEntries(content.get(), bytes, &begin, &end)) return 0;
  int read = 0;
  for (const char* line = begin; line < end; line = strchr(line, '\n') + 1) {
    uint64_t key;
    Choice choice;
    if (!ReadEntry(line, &key, &choice)) continue;
    if (Find(key) != nullptr) continue;
    Add(key, choice);
    ++read;
  }
  return read;
}

const char* TuningCache::Write(const char* path) {
  Read(path);
  Buffer<char> text, temporary;
  const size_t path_bytes = strlen(path) + 32;
  if (!text.Allocate(kMostBytes) || !temporary.Allocate(path_bytes)) {
    return "out of memory";
  }
  char* to = text.get();
  to += PrintHeader(to, kLineBytes);
  // The newest ones.
  for (uint32_t i = count_ > kMost ? count_ - kMost : 0; i < count_; ++i) {
    to += snprintf(to, kLineBytes, "%016" PRIx64 " %s %s\n", entry_[i].key,
                   entry_[i].choice.driver->name,
                   entry_[i].choice.alone ? "one" : "all");
  }
  const size_t before = static_cast<size_t>(to - text.get());
  to += PrintEnd(text.get(), before, to, kLineBytes);
  const size_t bytes = static_cast<size_t>(to - text.get());
  // Its own name in every process and thread.
  snprintf(temporary.get(), path_bytes, "%s.%ld.%zx", path,
           static_cast<long>(getpid()),
           reinterpret_cast<size_t>(this) & 0xffffff);
  FILE* file = fopen(temporary.get(), "wbxe");
  if (file == nullptr) return "no file can be made in its folder";
  // Not forced to the disk: what a crash leaves of it is known by its hash.
  bool written = fwrite(text.get(), 1, bytes, file) == bytes;
  written = fclose(file) == 0 && written;
  if (written && rename(temporary.get(), path) == 0) return nullptr;
  remove(temporary.get());
  return written ? "it cannot be replaced" : "the disk takes no more";
}

}  // namespace tfrewprune
