/*
 * What this CPU does at most, for profiles to compare kernels with: multiply-adds, and reading memory.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "abi.h"

#pragma weak evo_model_peak /* a library that is made to run one kernel does without */
#pragma weak evo_model_integer_peak /* so does a model that has no integer kernels */

/* Short samples, of which the best counts: what else the machine does then disturbs some of them only. */
enum { kSamples = 40, kSampleNs = 500000, kPasses = 2, kPartBytes = 4 << 20, kHugePage = 2 << 20 };

typedef struct {
  int64_t (*peak)(void);
  int64_t calls, operations; /* of each thread */
  uint8_t* memory;      /* of all: parts of kPartBytes, that of thread t at step s being number s * threads + t */
  int64_t steps, step;
} Work;

static int compute(int task_id, TVMParallelGroupEnv* env, void* data) {
  Work* work = data;
  int64_t operations = 0;
  (void)env;
  for (int64_t i = 0; i < work->calls; ++i) operations += work->peak();
  if (task_id == 0) work->operations = operations;
  return 0;
}

static uint8_t* part_of(const Work* work, int64_t step, int task_id, const TVMParallelGroupEnv* env) {
  return work->memory + (step * env->num_task + task_id) * kPartBytes;
}

/* Without this there would be no memory behind the addresses. */
static int fill_memory(int task_id, TVMParallelGroupEnv* env, void* data) {
  Work* work = data;
  for (int64_t step = 0; step < work->steps; ++step) memset(part_of(work, step, task_id, env), 1, kPartBytes);
  return 0;
}

static int read_memory(int task_id, TVMParallelGroupEnv* env, void* data) {
  Work* work = data;
  const uint64_t* at = (const uint64_t*)part_of(work, work->step, task_id, env);
  const uint64_t* end = at + kPartBytes / sizeof *at;
  uint64_t a = 0, b = 0, c = 0, d = 0;
  for (; at < end; at += 8) {
    a += at[0] ^ at[4];
    b += at[1] ^ at[5];
    c += at[2] ^ at[6];
    d += at[3] ^ at[7];
  }
  __asm__ volatile("" ::"r"(a + b + c + d)); /* somebody may want the sum */
  return 0;
}

/* The time of one parallel loop over all threads, in nanoseconds, at least 1. */
static uint64_t timed(ParallelLambda lambda, Work* work) {
  uint64_t before = evo_now_ns();
  TVMBackendParallelLaunch(lambda, work, 0);
  uint64_t spent = evo_now_ns() - before;
  return spent == 0 ? 1 : spent;
}

static double arithmetic(int64_t (*peak)(void), int32_t threads) {
  double best = 0;
  Work work = {.peak = peak, .calls = 1};
  if (peak == NULL) return 0;
  while (timed(compute, &work) < kSampleNs) work.calls *= 2;
  for (int i = 0; i < kSamples; ++i) {
    double rate = (double)threads * (double)work.operations / (double)timed(compute, &work);
    if (rate > best) best = rate;
  }
  return best;
}

static double reading(int32_t threads, uint64_t bytes) {
  double best = 0;
  const uint64_t step_bytes = (uint64_t)threads * kPartBytes;
  Work work = {.steps = (int64_t)((bytes + step_bytes - 1) / step_bytes)};
  bytes = (uint64_t)work.steps * step_bytes;
  if ((work.memory = aligned_alloc(kHugePage, bytes)) == NULL) return 0;
  madvise(work.memory, bytes, MADV_HUGEPAGE);
  timed(fill_memory, &work);
  for (int pass = 0; pass < kPasses; ++pass) {
    for (work.step = 0; work.step < work.steps; ++work.step) {
      double rate = (double)step_bytes / (double)timed(read_memory, &work);
      if (rate > best) best = rate;
    }
  }
  free(work.memory);
  return best;
}

/* Measures on all threads of `pool` (NULL: on this thread alone). rates[0]: float32 arithmetic in GFLOP/s; rates[1]:
 * that of bytes in GOP/s; rates[2]: reading `bytes` of memory, of which the caches must hold a small part only, in GB/s.
 * 0 is what could not be measured. Returns 0, or kErrorNoThreads as evo_run does. */
int32_t evo_measure(void* pool, uint64_t bytes, double rates[3]) {
  int32_t code = evo_enter(pool), threads = evo_pool_threads(pool);
  if (code != 0) return code;
  rates[0] = arithmetic(evo_model_peak, threads);
  rates[1] = arithmetic(evo_model_integer_peak, threads);
  rates[2] = reading(threads, bytes);
  return evo_leave(pool, 0);
}
