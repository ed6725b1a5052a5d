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

/* Leaves the bytes in the caches as if they had just been written. */
EXPORT void evo_touch(volatile uint8_t* data, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; i += kAlign) data[i] = data[i];
}

typedef struct {
  uint8_t* data;
  uint64_t bytes;
} Range;

static int touch_own(int task_id, TVMParallelGroupEnv* env, void* data) {
  const Range* range = data;
  (void)env;
  evo_touch(range->data + (uint64_t)task_id * range->bytes, range->bytes);
  return 0;
}

/* The same on each thread of the pool, of its own so many bytes. */
EXPORT int32_t evo_touch_all(void* pool, uint8_t* data, uint64_t bytes) {
  Range range = {data, bytes};
  int32_t code = evo_enter(pool);
  return code != 0 ? code : evo_leave(pool, TVMBackendParallelLaunch(touch_own, &range, 0));
}

enum { kChains = 8, kRead = 8 * kChains, kSteps = 480, kAdds = 3, kMostThreads = 256 };

/* Multiplies, adds, reads and counts, all that a core can begin in a cycle, from the smallest cache: whoever else uses
 * the other half of the core, in whatever way, makes it take longer. (Multiply-adds alone do not show a neighbour that
 * does integer work.) Vectors of this size: where these are wide, the clock is what it is while kernels compute. */
#define FIXED_WORK(NAME, BYTES, ...)                                                                      \
  __VA_ARGS__ static uint64_t NAME(void) {                                                                \
    typedef float Vector __attribute__((vector_size(BYTES)));                                             \
    volatile Vector read[kRead] = {{0}};                                                                     \
    const Vector scale = {0.5f};                                                                          \
    Vector x[kChains] = {{0}};                                                                            \
    uint64_t a = 0, b = 0, c = 0, d = 0, begin = evo_now_ns();                                            \
    for (int step = 0; step < kSteps; ++step)                                                             \
      for (volatile Vector* from = read; from < read + kRead; from += kChains) {                          \
        _Pragma("GCC unroll 8") for (int k = 0; k < kChains; ++k) x[k] = x[k] * scale + from[k];          \
        _Pragma("GCC unroll 8") for (int k = 0; k < kAdds; ++k) {                                         \
          ++a, ++b, ++c, ++d;                                                                             \
          __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d)); /* each addition is carried out */   \
        }                                                                                                 \
      }                                                                                                   \
    uint64_t spent = evo_now_ns() - begin;                                                                \
    _Pragma("GCC unroll 8") for (int k = 0; k < kChains; ++k) read[k] = x[k];                             \
    return spent;                                                                                         \
  }

FIXED_WORK(narrow_work, 16, )
#if defined(__x86_64__)
FIXED_WORK(avx2_work, 32, __attribute__((target("avx2,fma"))))
FIXED_WORK(avx512_work, 64, __attribute__((target("avx512f"))))
#endif

typedef struct {
  int32_t vector_bytes;
  uint64_t spent[kMostThreads];
} Work;

static int work(int task_id, TVMParallelGroupEnv* env, void* data) {
  Work* work = data;
  (void)env;
  uint64_t* spent = &work->spent[task_id % kMostThreads];
#if defined(__x86_64__)
  if (work->vector_bytes == 64) return *spent = avx512_work(), 0;
  if (work->vector_bytes == 32) return *spent = avx2_work(), 0;
#endif
  return *spent = narrow_work(), 0;
}

/* The time of fixed work, some 5 us, on the thread of the pool that takes longest. vector_bytes: 64 (AVX-512), 32 (AVX2
 * and FMA), which the CPU must have, or 16. */
EXPORT uint64_t evo_fixed_work(void* pool, int32_t vector_bytes) {
  Work done = {vector_bytes, {0}};
  if (evo_enter(pool) != 0) return 0;
  evo_leave(pool, TVMBackendParallelLaunch(work, &done, 0));
  uint64_t longest = 0;
  for (int i = 0; i < kMostThreads; ++i)
    if (done.spent[i] > longest) longest = done.spent[i];
  return longest;
}

/* Runs the kernel once. Returns 0 and nanoseconds: its time, and those of the fixed work right before and after it; or
 * the code of what failed. */
EXPORT int32_t evo_time(void* pool, void* kernel, void* const a[kMostArguments], int32_t vector_bytes, uint64_t ns[3]) {
  ns[1] = evo_fixed_work(pool, vector_bytes);
  int32_t code = evo_enter(pool);
  if (code != 0) return code;
  uint64_t begin = evo_now_ns();
  code = ((Kernel)kernel)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14],
                          a[15], a[16], a[17], a[18], a[19], a[20], a[21], a[22], a[23]);
  ns[0] = evo_now_ns() - begin;
  code = evo_leave(pool, code);
  ns[2] = evo_fixed_work(pool, vector_bytes);
  return code;
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
