/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin of qemu-user that counts 64-bit ARM instructions between two marks: `hint #0x70`
 * begins a region and `hint #0x71` ends it (both do nothing on any ARM core). After each
 * region one line of JSON goes to qemu's log. Built without qemu's header, which no package
 * has: the few functions of plugin interface version 1 are declared here. Exact on one
 * thread; counters of several would race.
 *
 *   cc -O2 -shared -fPIC count_instructions.c -o libcount.so
 *   qemu-aarch64 -plugin ./libcount.so -d plugin -D counts.jsonl program
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct block;
struct instruction;
extern void qemu_plugin_register_vcpu_tb_trans_cb(
    plugin_id id, void (*translated)(plugin_id id, struct block* block));
extern size_t qemu_plugin_tb_n_insns(const struct block* block);
extern struct instruction* qemu_plugin_tb_get_insn(const struct block* block, size_t index);
extern const void* qemu_plugin_insn_data(const struct instruction* instruction);
extern void qemu_plugin_register_vcpu_insn_exec_cb(
    struct instruction* instruction, void (*call)(unsigned cpu, void* data), int flags,
    void* data);
extern void qemu_plugin_register_vcpu_insn_exec_inline(
    struct instruction* instruction, int operation, void* counter, uint64_t addend);
extern void qemu_plugin_outs(const char* text);

EXPORT int qemu_plugin_version = 1;

enum { NO_REGISTERS = 0, ADD = 0 };
enum { HINT = 0xD503201F, BEGIN = 0x70, END = 0x71 };
enum { ALL, FMA, VECTOR, LOAD, STORE, BRANCH, KINDS };
static const char* const names[KINDS] = {"all",  "fma",   "vector",
                                         "load", "store", "branch"};
static uint64_t count[KINDS], before[KINDS];

static void begin(unsigned cpu, void* data) {
  (void)cpu;
  (void)data;
  memcpy(before, count, sizeof(count));
}

static void end(unsigned cpu, void* data) {
  char text[256];
  int used = 0;
  (void)cpu;
  (void)data;
  for (int kind = 0; kind < KINDS; ++kind) {
    used += snprintf(text + used, sizeof(text) - used, "%s\"%s\": %llu", kind ? ", " : "{",
                     names[kind], (unsigned long long)(count[kind] - before[kind]));
  }
  snprintf(text + used, sizeof(text) - used, "}\n");
  qemu_plugin_outs(text);
}

/* The encodings are those of the Arm Architecture Reference Manual, C4.1. */
static int is_vector(uint32_t word) { return (word >> 25 & 7) == 7; }

/* FMLA and FMLS of whole vectors, plain and by element, of floats and halves. */
static int is_fma(uint32_t word) {
  return (word & 0xBF20FC00) == 0x0E20CC00 || (word & 0xBF80F400) == 0x0F801000 ||
         (word & 0xBFC0F400) == 0x0F001000;
}

/* LOAD, STORE or neither (KINDS). */
static int memory_access(uint32_t word) {
  int load;
  if ((word >> 25 & 5) != 4) return KINDS;
  if ((word & 0x3B000000) == 0x18000000) {
    load = 1; /* relative to the program counter */
  } else if ((word & 0x3A000000) == 0x28000000 || /* pairs */
             (word & 0xBE000000) == 0x0C000000 || /* structures, replicating too */
             (word & 0x3F000000) == 0x08000000) { /* exclusive and ordered */
    load = word >> 22 & 1;
  } else {
    const uint32_t kind = word >> 22 & 3; /* of one register */
    load = (word >> 26 & 1) ? kind & 1 : kind != 0;
  }
  return load ? LOAD : STORE;
}

static int is_branch(uint32_t word) {
  return (word >> 26 & 0x1F) == 5 ||       /* B, BL */
         (word & 0xFF000000) == 0x54000000 || /* B.cond */
         (word >> 25 & 0x3F) == 0x1A ||       /* CBZ, CBNZ */
         (word >> 25 & 0x3F) == 0x1B ||       /* TBZ, TBNZ */
         (word & 0xFE000000) == 0xD6000000;   /* to a register */
}

static void add(struct instruction* instruction, int kind) {
  qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD, &count[kind], 1);
}

static void translated(plugin_id id, struct block* block) {
  const size_t instructions = qemu_plugin_tb_n_insns(block);
  (void)id;
  for (size_t i = 0; i < instructions; ++i) {
    struct instruction* instruction = qemu_plugin_tb_get_insn(block, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof(word));
    if (word == (HINT | BEGIN << 5)) {
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, begin, NO_REGISTERS, NULL);
    } else if (word == (HINT | END << 5)) {
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, end, NO_REGISTERS, NULL);
    }
    add(instruction, ALL);
    if (is_fma(word)) add(instruction, FMA);
    if (is_vector(word)) add(instruction, VECTOR);
    if (memory_access(word) != KINDS) add(instruction, memory_access(word));
    if (is_branch(word)) add(instruction, BRANCH);
  }
}

EXPORT int qemu_plugin_install(plugin_id id, const void* info, int count_of_arguments,
                               char** arguments) {
  (void)info;
  (void)count_of_arguments;
  (void)arguments;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  return 0;
}
