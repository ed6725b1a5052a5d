/* A plugin of QEMU's (TCG plugin interface, version 1): instructions that a program executes; with vlen=BITS, what it
 * executes is RISC-V's, and multiply-adds of vectors of float32 and their lanes are counted among them.
 *
 *     qemu-riscv64 -cpu rv64,v=true,vlen=256,vext_spec=v1.0 -plugin ./count_instructions.so,vlen=256 PROGRAM
 *
 * Prints at the end: instructions=N vector_fma=N lanes=N. QEMU tells a plugin no registers, so lanes follow from the
 * vector length that vsetvli and vsetivli were last given: an immediate, or else the most that the registers hold. That
 * is never too few. QEMU's own header is not needed: what is used of it is declared here. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t Id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
  const char* target_name;
  struct {
    int min, cur;
  } version;
  bool system_emulation;
  union {
    struct {
      int smp_vcpus, max_vcpus;
    } system;
  };
} Info;

extern void qemu_plugin_register_vcpu_tb_trans_cb(Id, void (*)(Id, struct qemu_plugin_tb*));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb*, int operation, void*, uint64_t);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb*, void (*)(unsigned, void*), int flags, void*);
extern void qemu_plugin_register_atexit_cb(Id, void (*)(Id, void*), void*);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
extern struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
extern const void* qemu_plugin_insn_data(const struct qemu_plugin_insn*);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn*);

EXPORT int qemu_plugin_version = 1;

enum { kAdd = 0, kNoRegisters = 0 };

static uint64_t register_bits;
static uint64_t instructions, vector_fma, lanes, length;

/* A block of code: multiply-adds before it sets a vector length, lanes of those behind, and the length at its end. */
typedef struct {
  uint64_t before, lanes_behind, length;
  bool sets;
} Block;

static uint64_t field(uint32_t word, int low, int bits) { return word >> low & ((1u << bits) - 1); }

/* Major opcode OP-V; operands .vv or .vf of floats; vfmadd to vfnmsac are 0x28 to 0x2f. */
static bool is_fma(uint32_t word) {
  const uint64_t operands = field(word, 12, 3), function = field(word, 26, 6);
  return field(word, 0, 7) == 0x57 && (operands == 1 || operands == 5) && function >= 0x28 && function <= 0x2f;
}

static uint64_t most_elements(uint64_t type) {
  const uint64_t in_one = register_bits / (8u << (type >> 3 & 7)), group = type & 7;
  return group < 4 ? in_one << group : in_one >> (8 - group);
}

static void see_length(uint32_t word, Block* block) {
  if (field(word, 0, 7) != 0x57 || field(word, 12, 3) != 7) return;
  if (field(word, 30, 2) == 3) { /* vsetivli */
    const uint64_t most = most_elements(field(word, 20, 10)), wanted = field(word, 15, 5);
    block->length = wanted < most ? wanted : most;
  } else if (field(word, 31, 1) == 0 && (field(word, 15, 5) != 0 || field(word, 7, 5) != 0)) { /* vsetvli, new length */
    block->length = most_elements(field(word, 20, 11));
  } else {
    return;
  }
  block->sets = true;
}

static void executed(unsigned cpu, void* data) {
  const Block* block = data;
  (void)cpu;
  lanes += block->before * length + block->lanes_behind;
  if (block->sets) length = block->length;
}

static void translated(Id id, struct qemu_plugin_tb* tb) {
  (void)id;
  const size_t count = qemu_plugin_tb_n_insns(tb);
  qemu_plugin_register_vcpu_tb_exec_inline(tb, kAdd, &instructions, count);
  if (register_bits == 0) return;
  Block* block = calloc(1, sizeof *block); /* lives as long as the program */
  uint64_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    const struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(tb, i);
    uint32_t word;
    if (qemu_plugin_insn_size(instruction) != sizeof word) continue;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
    see_length(word, block);
    if (!is_fma(word)) continue;
    ++found;
    if (block->sets) {
      block->lanes_behind += block->length;
    } else {
      ++block->before;
    }
  }
  if (found > 0) qemu_plugin_register_vcpu_tb_exec_inline(tb, kAdd, &vector_fma, found);
  if (found > 0 || block->sets) {
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, kNoRegisters, block);
  } else {
    free(block);
  }
}

static void finished(Id id, void* data) {
  (void)id, (void)data;
  fprintf(stderr, "\ninstructions=%" PRIu64 " vector_fma=%" PRIu64 " lanes=%" PRIu64 "\n", instructions, vector_fma,
          lanes);
}

EXPORT int qemu_plugin_install(Id id, const Info* info, int argc, char** argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "vlen=", 5) == 0) register_bits = strtoul(argv[i] + 5, NULL, 10);
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finished, NULL);
  return 0;
}
