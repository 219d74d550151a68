// SPDX-License-Identifier: Apache-2.0
//
// LiteRT's CompiledModel takes no delegates, but its environment takes
// accelerators, and an accelerator is a maker of delegates: this registers
// ours.
#ifndef TFREWPRUNE_DELEGATE_ACCELERATOR_H_
#define TFREWPRUNE_DELEGATE_ACCELERATOR_H_

#include "delegate/options.h"

namespace tfrewprune {

// Finds a function of LiteRT's C API by its name; nullptr where there is none.
// (The library itself links nothing of LiteRT, so that it loads in any host.)
using FindSymbol = void* (*)(const char* name);

// Every CompiledModel that is made with `environment` (a LiteRtEnvironment)
// from now on runs packed layers with `options`. The environment must be
// destroyed before the library is unloaded. Returns nullptr, or what is wrong.
const char* RegisterAccelerator(void* environment, FindSymbol find,
                                const DelegateOptions& options);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_DELEGATE_ACCELERATOR_H_
