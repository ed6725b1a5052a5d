/* What this CPU can do, under LLVM's names: from the kernel where it says, else by trying. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>

#include "evo_run.h"

#if defined(__x86_64__)
const char* const cpu_arch = "x86_64";
#elif defined(__aarch64__)
const char* const cpu_arch = "aarch64";
#elif defined(__riscv) && __riscv_xlen == 64
const char* const cpu_arch = "riscv64";
#elif defined(__arm__)
const char* const cpu_arch = "armv7a";
#else
#error "evo_tvm does not compile for this CPU"
#endif

enum { kMaxFeatures = 64 };
static const char* found[kMaxFeatures + 1];
static int num_found;

static void add(const char* feature, bool there) {
  if (there && num_found < kMaxFeatures) found[num_found++] = feature;
}

#if defined(__x86_64__)

/* Linux's name, LLVM's name. */
static const char* const kFlags[][2] = {
    {"pni", "sse3"},
    {"ssse3", "ssse3"},
    {"sse4_1", "sse4.1"},
    {"sse4_2", "sse4.2"},
    {"popcnt", "popcnt"},
    {"cx16", "cx16"},
    {"lahf_lm", "sahf"},
    {"avx", "avx"},
    {"f16c", "f16c"},
    {"fma", "fma"},
    {"avx2", "avx2"},
    {"bmi1", "bmi"},
    {"bmi2", "bmi2"},
    {"abm", "lzcnt"},
    {"movbe", "movbe"},
    {"xsave", "xsave"},
    {"avx512f", "avx512f"},
    {"avx512cd", "avx512cd"},
    {"avx512bw", "avx512bw"},
    {"avx512dq", "avx512dq"},
    {"avx512vl", "avx512vl"},
    {"avx512_vnni", "avx512vnni"},
    {"avx512vbmi", "avx512vbmi"},
    {"avx512_vbmi2", "avx512vbmi2"},
    {"avx512ifma", "avx512ifma"},
    {"avx512_bitalg", "avx512bitalg"},
    {"avx512_vpopcntdq", "avx512vpopcntdq"},
    {"avx512_bf16", "avx512bf16"},
    {"avx512_fp16", "avx512fp16"},
    {"avx_vnni", "avxvnni"},
    {"avx_vnni_int8", "avxvnniint8"},
    {"avx_vnni_int16", "avxvnniint16"},
    {"avx_ifma", "avxifma"},
    {"avx_ne_convert", "avxneconvert"},
    {"gfni", "gfni"},
};

static void look(void) {
  static char line[1 << 14];
  FILE* file = fopen("/proc/cpuinfo", "r");
  while (file != NULL && fgets(line, sizeof line, file) != NULL && strncmp(line, "flags", 5) != 0) line[0] = '\0';
  if (file != NULL) fclose(file);
  for (char* word = strtok(line, " \t\n"); word != NULL; word = strtok(NULL, " \t\n")) {
    for (size_t i = 0; i < sizeof kFlags / sizeof *kFlags; ++i) add(kFlags[i][1], strcmp(word, kFlags[i][0]) == 0);
  }
}

#elif defined(__aarch64__)

static void look(void) {
  const unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
  /* Bits of Linux's arch/arm64/include/uapi/asm/hwcap.h. */
  add("fp-armv8", one >> 0 & 1);
  add("neon", one >> 1 & 1);
  add("lse", one >> 8 & 1);
  add("fullfp16", (one >> 9 & 1) && (one >> 10 & 1));
  add("rdm", one >> 12 & 1);
  add("complxnum", one >> 14 & 1);
  add("rcpc", one >> 15 & 1);
  add("dotprod", one >> 20 & 1);
  add("sve", one >> 22 & 1);
  add("fp16fml", one >> 23 & 1);
  add("sve2", two >> 1 & 1);
  add("i8mm", two >> 13 & 1);
  add("bf16", two >> 14 & 1);
}

#elif defined(__arm__)

static void look(void) {
  const unsigned long one = getauxval(AT_HWCAP);
  /* Bits of Linux's arch/arm/include/uapi/asm/hwcap.h. */
  add("neon", one >> 12 & 1);
  add("vfp3", one >> 13 & 1);
  add("vfp4", one >> 16 & 1);
  add("fullfp16", (one >> 22 & 1) && (one >> 23 & 1));
  add("dotprod", one >> 24 & 1);
  add("fp16fml", one >> 25 & 1);
  add("bf16", one >> 26 & 1);
  add("i8mm", one >> 27 & 1);
}

#else

/* The kernel tells single letters only, and not every kernel the rest: an instruction that the CPU lacks traps. */
static sigjmp_buf trapped;
static void on_trap(int signal) { siglongjmp(trapped, signal); }

#define R_TYPE(opcode, f3, f7, rd, rs1, rs2) \
  ((uint32_t)(f7) << 25 | (rs2) << 20 | (rs1) << 15 | (f3) << 12 | (rd) << 7 | (opcode))
#define EXECUTE(word, ...) __asm__ volatile(".4byte %0" : : "i"(word) : __VA_ARGS__)
/* vsetivli a0, 1, e<8 << sew>, m1, ta, ma; then one vector instruction. The compiler itself uses no vectors here. */
#define VSETIVLI(sew) (0xC0000057u | (0xC0u | (sew) << 3) << 20 | 1 << 15 | 7 << 12 | 10 << 7)
#define EXECUTE_VECTOR(sew, word) \
  __asm__ volatile(".4byte %0\n.4byte %1" : : "i"(VSETIVLI(sew)), "i"(word) : "a0", "memory")

static void try_zba(void) { EXECUTE(R_TYPE(0x33, 2, 0x10, 10, 10, 10), "a0"); }   /* sh1add a0, a0, a0 */
static void try_zbb(void) { EXECUTE(R_TYPE(0x33, 7, 0x20, 10, 10, 10), "a0"); }   /* andn a0, a0, a0 */
static void try_zbs(void) { EXECUTE(R_TYPE(0x33, 1, 0x14, 10, 10, 10), "a0"); }   /* bset a0, a0, a0 */
static void try_zfhmin(void) { EXECUTE(R_TYPE(0x53, 0, 0x72, 10, 10, 0), "a0"); } /* fmv.x.h a0, fa0 */
static void try_zfh(void) { EXECUTE(R_TYPE(0x53, 7, 0x02, 10, 10, 10), "fa0"); }  /* fadd.h fa0, fa0, fa0 */
static void try_v(void) { EXECUTE(VSETIVLI(0), "a0"); }                           /* not in version 0.7 */
static void try_zvfhmin(void) { EXECUTE_VECTOR(1, 0x4AC61457u); }                 /* vfwcvt.f.f.v v8, v12 */
static void try_zvfh(void) { EXECUTE_VECTOR(1, 0x02861457u); }                    /* vfadd.vv v8, v8, v12 */
static void try_zvfbfmin(void) { EXECUTE_VECTOR(1, 0x4AC69457u); }                /* vfwcvtbf16.f.f.v v8, v12 */

static bool works(void (*trial)(void)) {
  struct sigaction action = {.sa_handler = on_trap}, before;
  sigaction(SIGILL, &action, &before);
  volatile bool good = false;
  if (sigsetjmp(trapped, 1) == 0) {
    trial();
    good = true;
  }
  sigaction(SIGILL, &before, NULL);
  return good;
}

static void look(void) {
  static const char* const letters[] = {"m", "a", "f", "d", "c"};
  static const char* const widths[] = {"zvl32b", "zvl64b", "zvl128b", "zvl256b", "zvl512b", "zvl1024b"};
  const unsigned long one = getauxval(AT_HWCAP);
  add("64bit", true);
  for (int i = 0; i < 5; ++i) add(letters[i], one >> (letters[i][0] - 'a') & 1);
  add("zba", works(try_zba));
  add("zbb", works(try_zbb));
  add("zbs", works(try_zbs));
  add("zfhmin", works(try_zfhmin));
  add("zfh", works(try_zfh));
  if (!works(try_v)) return;
  add("v", true);
  add("zvfhmin", works(try_zvfhmin));
  add("zvfh", works(try_zvfh));
  add("zvfbfmin", works(try_zvfbfmin));
  unsigned long vector_bytes;
  __asm__ volatile("csrr %0, 0xC22" : "=r"(vector_bytes)); /* vlenb */
  for (int i = 0; i < 6; ++i) add(widths[i], vector_bytes * 8 >= 32ul << i);
  static char exactly[32]; /* no name of LLVM's: code is for one width */
  snprintf(exactly, sizeof exactly, "vlen%lu", vector_bytes * 8);
  add(exactly, true);
}

#endif

const char* const* cpu_features(void) {
  if (num_found == 0) look();
  return found;
}

void check_cpu(const Model* model) {
  size_t length = strcspn(model->triple, "-");
  if (strncmp(model->triple, cpu_arch, length) != 0 || cpu_arch[length] != '\0') {
    fail(model->path, "compiled for %.*s (%s), and this evo-run is for %s; compile the model for this board",
         (int)length, model->triple, model->target, cpu_arch);
  }
  char missing[512] = "";
  cpu_features();
  for (int i = 0; i < model->num_features; ++i) {
    bool there = false;
    for (int k = 0; k < num_found; ++k) there = there || strcmp(found[k], model->features[i]) == 0;
    if (there) continue;
    const bool width = strncmp(model->features[i], "vlen", 4) == 0;
    const size_t used = strlen(missing);
    snprintf(missing + used, sizeof missing - used, "%s%s%s%s", used > 0 ? ", " : "",
             width ? "vectors of exactly " : "", model->features[i] + (width ? 4 : 0), width ? " bits" : "");
  }
  if (missing[0] != '\0') {
    fail(model->path, "compiled for %s, and this CPU lacks %s; compile the model for this board (evo-run --cpu)",
         model->target, missing);
  }
}
