// SPDX-License-Identifier: Apache-2.0
//
// The table of drivers.
#include <string.h>

#include "operators/direct_conv.h"
#include "operators/dots.h"
#include "operators/driver.h"
#include "operators/gemv.h"
#include "operators/lifted_conv.h"
#include "operators/reference_loops.h"
#if defined(__x86_64__)
#include "operators/flat_conv.h"
#include "operators/planar_conv.h"
#endif

namespace tfrewprune {
namespace {

constexpr Driver kDrivers[] = {
    // Bands: weights whose rows share their columns.
    MakeDriver<DirectConv>("direct"),
#if defined(__x86_64__)
    MakeDriver<PlanarConv>("planar"),
    MakeDriver<FlatConv>("flat"),
#endif
    MakeDriver<Gemv>("gemv"),
#if defined(__aarch64__)
    MakeDriver<HalfDirectConv>("half_direct"),
    MakeDriver<HalfGemv>("half_gemv"),
#endif
    // Weights whose rows do not.
    MakeDriver<LiftedConv>("lifted"),
    MakeDriver<Dots>("dots"),
    // Both.
    MakeDriver<ReferenceLoops>("reference"),
};
constexpr int kDriverCount = sizeof(kDrivers) / sizeof(kDrivers[0]);

}  // namespace

const Driver* Drivers(int* count) {
  *count = kDriverCount;
  return kDrivers;
}

const Driver* FindDriver(const char* name) {
  for (const Driver& driver : kDrivers) {
    if (strcmp(driver.name, name) == 0) return &driver;
  }
  return nullptr;
}

const Driver* ReferenceDriver() { return &kDrivers[kDriverCount - 1]; }

const Driver* ChooseDriver(const Problem& problem, const Driver* wanted) {
  if (wanted != nullptr && wanted->cycles(problem) != kUnsupported) {
    return wanted;
  }
  const Driver* best = nullptr;
  double least = 0;
  for (const Driver& driver : kDrivers) {
    const double cycles = driver.cycles(problem);
    if (cycles == kUnsupported) continue;
    if (best == nullptr || cycles < least) {
      best = &driver;
      least = cycles;
    }
  }
  return best;
}

}  // namespace tfrewprune
