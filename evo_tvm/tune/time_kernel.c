/* One kernel at a time, timed, on a pool of support.c: what the process that measures calls. */
#include "abi.h"

/* A kernel takes as many of these as it has parameters: by the calling conventions of all our CPUs the caller puts
 * arguments in place and takes them away, and those that nobody reads do no harm. */
enum { kMostArguments = 24 };
typedef int32_t (*Kernel)(void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*,
                          void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*);

/* support.c asks for these; there is no model here, and nobody runs it. */
int32_t evo_model_main(void* const* inputs, void* const* outputs, const uint8_t* weights, const uint8_t* prepared,
                       uint8_t* arena, uint64_t* ticks) {
  (void)inputs, (void)outputs, (void)weights, (void)prepared, (void)arena, (void)ticks;
  return -1;
}
int32_t evo_model_prepare(const uint8_t* weights, uint8_t* prepared) {
  (void)weights, (void)prepared;
  return -1;
}

/* Runs the kernel once. Returns 0 and its time, or the code of what failed. */
EXPORT int32_t evo_time(void* pool, void* kernel, void* const a[kMostArguments], uint64_t* ns) {
  int32_t code = evo_enter(pool);
  if (code != 0) return code;
  uint64_t begin = evo_now_ns();
  code = ((Kernel)kernel)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14],
                          a[15], a[16], a[17], a[18], a[19], a[20], a[21], a[22], a[23]);
  *ns = evo_now_ns() - begin;
  return evo_leave(pool, code);
}

/* Leaves the bytes in the caches as if they had just been written. */
EXPORT void evo_touch(volatile uint8_t* data, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; i += kAlign) data[i] = data[i];
}

enum { kChains = 12, kSteps = 3000, kMostThreads = 256 };

#if defined(__x86_64__)
typedef float Wide __attribute__((vector_size(64)));

/* Multiplies and adds whole AVX-512 registers: the clock is then what it is while kernels compute, and stays so for the
 * one that follows. */
__attribute__((target("avx512f"))) static uint64_t wide_work(void) {
  static const Wide scale = {0.999f}, step = {1e-3f};
  volatile Wide sink;
  Wide x[kChains] = {{0}};
  uint64_t begin = evo_now_ns();
  for (int i = 0; i < kSteps; ++i)
    for (int k = 0; k < kChains; ++k) x[k] = x[k] * scale + step;
  uint64_t spent = evo_now_ns() - begin;
  for (int k = 0; k < kChains; ++k) sink = x[k];
  (void)sink;
  return spent;
}
#endif

static uint64_t narrow_work(void) {
  volatile double sink;
  double x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, scale = 0.999, step = 1e-3;
  uint64_t begin = evo_now_ns();
  for (int i = 0; i < kSteps; ++i)
    for (int k = 0; k < 8; ++k) x[k] = x[k] * scale + step;
  uint64_t spent = evo_now_ns() - begin;
  for (int k = 0; k < 8; ++k) sink = x[k];
  (void)sink;
  return spent;
}

typedef struct {
  int32_t wide;
  uint64_t spent[kMostThreads];
} Work;

static int work(int task_id, TVMParallelGroupEnv* env, void* data) {
  Work* work = data;
  (void)env;
#if defined(__x86_64__)
  if (work->wide) return work->spent[task_id % kMostThreads] = wide_work(), 0;
#endif
  return work->spent[task_id % kMostThreads] = narrow_work(), 0;
}

/* The time of fixed arithmetic in registers, some 20 us, on the thread of the pool that takes longest: it is longer
 * while others use the same core. wide: with AVX-512, which the CPU must have. */
EXPORT uint64_t evo_fixed_work(void* pool, int32_t wide) {
  Work done = {wide, {0}};
  if (evo_enter(pool) != 0) return 0;
  evo_leave(pool, TVMBackendParallelLaunch(work, &done, 0));
  uint64_t longest = 0;
  for (int i = 0; i < kMostThreads; ++i)
    if (done.spent[i] > longest) longest = done.spent[i];
  return longest;
}

/* Has a core, and leaves it as idle as may be, until `go_on` is zero. */
EXPORT void evo_hold(const volatile int32_t* go_on) {
  while (*go_on) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
  }
}
