// SPDX-License-Identifier: Apache-2.0
//
// The native half of io.tfrewprune's Java classes (android/tfrewprune). It
// speaks to the library by its public C interface only.
#include <dlfcn.h>
#include <jni.h>
#include <pthread.h>

#include <cstddef>
#include <cstdint>

#include "tfrewprune.h"

namespace {

constexpr int kMostOptions = 16;
constexpr char kIllegalArgument[] = "java/lang/IllegalArgumentException";

void Throw(JNIEnv* env, const char* kind, const char* message) {
  if (env->ExceptionCheck()) return;  // what went wrong first counts
  jclass type = env->FindClass(kind);
  if (type != nullptr) env->ThrowNew(type, message);
}

// The pairs of two String arrays as C strings, for the length of one call.
class Options {
 public:
  Options(JNIEnv* env, jobjectArray keys, jobjectArray values) : env_(env) {
    if (keys == nullptr || values == nullptr) {
      Throw(env, kIllegalArgument, "tfrewprune: options must not be null.");
      return;
    }
    const jsize count = env->GetArrayLength(keys);
    if (count > kMostOptions || count != env->GetArrayLength(values)) {
      Throw(env, kIllegalArgument,
            "tfrewprune: expected as many values as options, 16 at most.");
      return;
    }
    for (jsize i = 0; i < count; ++i) {
      if (!Take(keys, i, 0) || !Take(values, i, 1)) return;
      ++count_;
    }
    valid_ = true;
  }

  ~Options() {
    for (int i = 0; i < kMostOptions; ++i) {
      for (int side = 0; side < 2; ++side) {
        if (text_[side][i] == nullptr) continue;
        env_->ReleaseStringUTFChars(string_[side][i], text_[side][i]);
      }
    }
  }

  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  bool valid() const { return valid_; }
  const char* const* keys() const { return text_[0]; }
  const char* const* values() const { return text_[1]; }
  size_t count() const { return static_cast<size_t>(count_); }

 private:
  bool Take(jobjectArray array, jsize i, int side) {
    string_[side][i] =
        static_cast<jstring>(env_->GetObjectArrayElement(array, i));
    if (string_[side][i] == nullptr) {
      Throw(env_, kIllegalArgument, "tfrewprune: an option is null.");
      return false;
    }
    text_[side][i] = env_->GetStringUTFChars(string_[side][i], nullptr);
    return text_[side][i] != nullptr;  // else OutOfMemoryError is on its way
  }

  JNIEnv* env_;
  jstring string_[2][kMostOptions] = {};
  const char* text_[2][kMostOptions] = {};
  int count_ = 0;
  bool valid_ = false;
};

// What a report_error callback said; it has no context of its own, so one call
// after the other. (thread_local needs a run-time library on old Androids.)
class Message {
 public:
  Message() {
    pthread_mutex_lock(&mutex_);
    text_[0] = '\0';
  }
  ~Message() { pthread_mutex_unlock(&mutex_); }

  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  static void Keep(const char* text) {
    size_t i = 0;
    for (; text[i] != '\0' && i + 1 < sizeof(text_); ++i) text_[i] = text[i];
    text_[i] = '\0';
  }
  static const char* text() { return text_; }

 private:
  static pthread_mutex_t mutex_;
  static char text_[512];
};

pthread_mutex_t Message::mutex_ = PTHREAD_MUTEX_INITIALIZER;
char Message::text_[512];

TfLiteDelegate* Pointer(jlong handle) {
  return reinterpret_cast<TfLiteDelegate*>(static_cast<intptr_t>(handle));
}

// LiteRT's library, which the app has loaded before. It stays open: the
// accelerator keeps pointers into it.
void* LiteRt() {
  static void* library = nullptr;
  if (library == nullptr) {
    library = dlopen("libLiteRt.so", RTLD_NOW | RTLD_LOCAL);
  }
  return library;
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_io_tfrewprune_TfrewpruneDelegate_create(
    JNIEnv* env, jclass, jobjectArray keys, jobjectArray values) {
  const Options options(env, keys, values);
  if (!options.valid()) return 0;
  const Message message;
  TfLiteDelegate* delegate = tflite_plugin_create_delegate(
      options.keys(), options.values(), options.count(), Message::Keep);
  if (delegate == nullptr) Throw(env, kIllegalArgument, message.text());
  return static_cast<jlong>(reinterpret_cast<intptr_t>(delegate));
}

JNIEXPORT void JNICALL
Java_io_tfrewprune_TfrewpruneDelegate_destroy(JNIEnv*, jclass, jlong handle) {
  if (handle != 0) tflite_plugin_destroy_delegate(Pointer(handle));
}

JNIEXPORT jint JNICALL Java_io_tfrewprune_TfrewpruneDelegate_claimedNodes(
    JNIEnv*, jclass, jlong handle) {
  return handle == 0 ? 0 : tfrewprune_claimed_nodes(Pointer(handle));
}

JNIEXPORT jstring JNICALL Java_io_tfrewprune_TfrewpruneDelegate_isaName(
    JNIEnv* env, jclass, jlong handle) {
  if (handle == 0) return nullptr;
  return env->NewStringUTF(tfrewprune_isa_name(Pointer(handle)));
}

JNIEXPORT jstring JNICALL
Java_io_tfrewprune_TfrewpruneDelegate_version(JNIEnv* env, jclass) {
  return env->NewStringUTF(tfrewprune_version());
}

JNIEXPORT void JNICALL Java_io_tfrewprune_TfrewpruneAccelerator_register(
    JNIEnv* env, jclass, jlong environment, jobjectArray keys,
    jobjectArray values) {
  const Options options(env, keys, values);
  if (!options.valid()) return;
  if (LiteRt() == nullptr) {
    Throw(env, "java/lang/IllegalStateException",
          "tfrewprune: libLiteRt.so is not part of this app.");
    return;
  }
  const Message message;
  const auto find = [](const char* name) { return dlsym(LiteRt(), name); };
  if (tfrewprune_register_accelerator(
          reinterpret_cast<void*>(static_cast<intptr_t>(environment)), find,
          options.keys(), options.values(), options.count(),
          Message::Keep) != 0) {
    Throw(env, kIllegalArgument, message.text());
  }
}

}  // extern "C"
