// SPDX-License-Identifier: Apache-2.0
//
// Instruction sets: names, what this machine supports, which one to use.
#ifndef TFREWPRUNE_ISA_ISA_H_
#define TFREWPRUNE_ISA_ISA_H_

namespace tfrewprune {

enum class Isa : int {
  kReference,  // triple loop, the oracle of the tests
  kPortable,   // 16-byte vectors, any CPU
  kAvx2,       // AVX2 + FMA
  kAvx512,     // AVX-512 F, VL, DQ and BW
  kNeon,       // AArch64, and ARMv7 with NEON and VFPv4
};
inline constexpr int kIsaCount = 5;

// Lower-case name, as used by TFREWPRUNE_ISA and the delegate option "isa".
const char* IsaName(Isa isa);

// Understands every IsaName() and "auto" (= BestIsa()). Returns false, and
// leaves *isa alone, for anything else.
bool IsaFromName(const char* name, Isa* isa);

// True when this build has kernels for `isa` and this CPU can run them.
bool IsaSupported(Isa isa);

// The fastest supported instruction set; never kReference.
Isa BestIsa();

// True when this CPU multiplies and adds halves: ARMv8.2's optional FP16, never
// x86.
bool HalfArithmetic();

// FMAs of so many lanes that this CPU begins in a cycle. Zen 4 does those of 16
// lanes in two halves.
int FmasPerCycle(Isa isa, int lanes);

}  // namespace tfrewprune

#endif  // TFREWPRUNE_ISA_ISA_H_
