/*
 * What a compiled model needs at run time, and nothing else: a thread pool that the kernels' parallel loops fork and
 * join on, scratch memory, a clock, and `evo_run`, the door for C and ctypes. C11, with libc and pthread on Linux only.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "abi.h"

enum { kCachedBlocks = 16 };
/* How long a thread spins before it sleeps. A worker waits for the next parallel loop, which may never come; a caller
 * waits for work that is being done, and to be woken would cost it more than most imbalances. */
enum { kWorkerSpinNs = 50000, kCallerSpinNs = 1000000 };

/* ---- Clock ------------------------------------------------------------------------------------------------------ */

uint64_t evo_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- Scratch memory: each thread of a pool keeps the blocks it was given, so a warm run never calls malloc -------- */

typedef struct {
  struct {
    void* data;
    size_t bytes;
    bool used;
  } blocks[kCachedBlocks];
} Workspace;

static void workspace_release(Workspace* ws) {
  for (int i = 0; i < kCachedBlocks; ++i) {
    free(ws->blocks[i].data);
    ws->blocks[i].data = NULL;
    ws->blocks[i].bytes = 0;
  }
}

/* ---- Thread pool ------------------------------------------------------------------------------------------------ */

typedef struct {
  alignas(kAlign) atomic_int arrived;
  alignas(kAlign) atomic_uint phase;
} Barrier;

typedef struct Pool Pool;
typedef struct {
  Pool* pool;
  int32_t task_id;
  pthread_t thread;
  Workspace workspace;
} Member; /* members[0] stands for whichever thread calls evo_run */

struct Pool {
  alignas(kAlign) atomic_uint epoch; /* counts launches; workers wait for it to change (futex word) */
  atomic_int sleepers;               /* workers that sleep, or are about to, on `epoch` */
  atomic_bool stop;
  ParallelLambda lambda; /* the job; written before `epoch`, read after it */
  void* cdata;
  TVMParallelGroupEnv env;
  alignas(kAlign) atomic_uint pending; /* workers still at the job (futex word) */
  atomic_bool caller_sleeps;
  atomic_int error; /* the first non-zero code that a task returned */
  Barrier barrier;
  uint64_t worker_spin_ns, caller_spin_ns;
  pthread_mutex_t lock; /* held for one whole evo_run */
  pid_t pid;            /* the process that owns the threads: they do not survive a fork */
  int32_t size;
  Member members[];
};

/* What a TVMBackend* call finds on its thread. `pool` is set only where a launch may fork: in the caller of evo_run and
 * outside any parallel loop. Everywhere else a launch runs serially. */
static _Thread_local struct {
  Pool* pool;
  Workspace* workspace;
} here;

static void futex(atomic_uint* word, int operation, uint32_t value) {
  syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#elif defined(__riscv)
  __asm__ volatile(".word 0x0100000f" ::: "memory"); /* pause; a no-op where Zihintpause is missing */
#endif
}

/* Spins until *word differs from `old`, at most `spin_ns`; false when it still is `old`. */
static bool spin_while_equal(atomic_uint* word, uint32_t old, uint64_t spin_ns) {
  for (uint64_t start = 0, now = 0; now - start <= spin_ns; now = evo_now_ns()) {
    if (start == 0) start = now = evo_now_ns();
    for (int i = 0; i < 16; ++i) {
      if (atomic_load_explicit(word, memory_order_acquire) != old) return true;
      relax();
    }
  }
  return false;
}

static void run_task(Pool* pool, int32_t task_id) {
  if (task_id >= pool->env.num_task) return;
  int code = pool->lambda(task_id, &pool->env, pool->cdata), none = 0;
  if (code != 0) atomic_compare_exchange_strong(&pool->error, &none, code);
}

static void* worker_main(void* argument) {
  Member* self = argument;
  Pool* pool = self->pool;
  here.workspace = &self->workspace;
  /* Every launch waits for every worker, so a worker is never more than one epoch behind, and starts at 0. */
  for (uint32_t seen = 0;; ++seen) {
    if (!spin_while_equal(&pool->epoch, seen, pool->worker_spin_ns)) {
      /* Count ourselves first, look again after: the launcher moves `epoch` first and looks at `sleepers` after. */
      atomic_fetch_add(&pool->sleepers, 1);
      while (atomic_load(&pool->epoch) == seen) futex(&pool->epoch, FUTEX_WAIT, seen);
      atomic_fetch_sub(&pool->sleepers, 1);
    }
    if (atomic_load(&pool->stop)) return NULL;
    run_task(pool, self->task_id);
    if (atomic_fetch_sub(&pool->pending, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
      futex(&pool->pending, FUTEX_WAKE, 1);
    }
  }
}

static void wake_workers(Pool* pool) {
  atomic_fetch_add(&pool->epoch, 1);
  if (atomic_load(&pool->sleepers) > 0) futex(&pool->epoch, FUTEX_WAKE, kMaxThreads);
}

static void stop_workers(Pool* pool, int32_t running) {
  atomic_store(&pool->stop, true);
  wake_workers(pool);
  for (int32_t i = 1; i < running; ++i) pthread_join(pool->members[i].thread, NULL);
}

/* Makes size - 1 threads, all or none. Signals are left to the process's own threads. */
static bool start_workers(Pool* pool) {
  sigset_t all, before;
  cpu_set_t cpus;
  /* Where the threads share fewer CPUs than they are, a spinning one only keeps another from its work. */
  bool crowded = sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) < pool->size;
  pool->worker_spin_ns = crowded ? 0 : kWorkerSpinNs;
  pool->caller_spin_ns = crowded ? 0 : kCallerSpinNs;
  pool->pid = getpid();
  pthread_mutex_init(&pool->lock, NULL);
  atomic_init(&pool->epoch, 0);
  atomic_init(&pool->sleepers, 0);
  atomic_init(&pool->stop, false);
  atomic_init(&pool->pending, 0);
  atomic_init(&pool->caller_sleeps, false);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int32_t running = 1;
  for (; running < pool->size; ++running) {
    Member* member = &pool->members[running];
    member->pool = pool;
    member->task_id = running;
    if (pthread_create(&member->thread, NULL, worker_main, member) != 0) break;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (running == pool->size) return true;
  stop_workers(pool, running);
  return false;
}

int32_t evo_abi_version(void) { return kAbiVersion; }

/* A pool on which evo_run uses exactly `threads` threads, the caller among them. NULL where they cannot be had. */
void* evo_pool_create(int32_t threads) {
  if (threads < 1 || threads > kMaxThreads) return NULL;
  size_t bytes = (sizeof(Pool) + (size_t)threads * sizeof(Member) + kAlign - 1) / kAlign * kAlign;
  Pool* pool = aligned_alloc(kAlign, bytes);
  if (pool == NULL) return NULL;
  __builtin_memset(pool, 0, bytes);
  pool->size = threads;
  if (start_workers(pool)) return pool;
  free(pool);
  return NULL;
}

/* Waits for a run in progress, then ends the threads and frees their memory. */
void evo_pool_destroy(void* handle) {
  Pool* pool = handle;
  if (pool == NULL) return;
  if (pool->pid == getpid()) {
    pthread_mutex_lock(&pool->lock);
    stop_workers(pool, pool->size);
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_destroy(&pool->lock);
  }
  for (int32_t i = 0; i < pool->size; ++i) workspace_release(&pool->members[i].workspace);
  free(pool);
}

int32_t evo_pool_threads(void* pool) { return pool == NULL ? 1 : ((Pool*)pool)->size; }

/* ---- What the kernels call -------------------------------------------------------------------------------------- */

HIDDEN int TVMBackendParallelLaunch(ParallelLambda lambda, void* cdata, int num_task) {
  Pool* pool = here.pool;
  if (pool == NULL || pool->size == 1 || num_task == 1) {
    TVMParallelGroupEnv serial = {NULL, 1};
    return lambda(0, &serial, cdata);
  }
  here.pool = NULL; /* a launch inside a parallel loop runs serially */
  pool->lambda = lambda;
  pool->cdata = cdata;
  pool->env.sync_handle = &pool->barrier;
  pool->env.num_task = num_task <= 0 || num_task > pool->size ? pool->size : num_task;
  atomic_store_explicit(&pool->barrier.arrived, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->error, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->pending, (uint32_t)pool->size - 1, memory_order_relaxed);
  wake_workers(pool);
  run_task(pool, 0);
  for (uint32_t left; (left = atomic_load_explicit(&pool->pending, memory_order_acquire)) != 0;) {
    if (spin_while_equal(&pool->pending, left, pool->caller_spin_ns)) continue;
    atomic_store(&pool->caller_sleeps, true);
    while ((left = atomic_load(&pool->pending)) != 0) futex(&pool->pending, FUTEX_WAIT, left);
    atomic_store(&pool->caller_sleeps, false);
  }
  here.pool = pool;
  return atomic_load_explicit(&pool->error, memory_order_relaxed);
}

HIDDEN int32_t evo_threads_here(void) { return here.pool == NULL ? 1 : here.pool->size; }

HIDDEN int TVMBackendParallelBarrier(int task_id, TVMParallelGroupEnv* env) {
  (void)task_id;
  Barrier* barrier = env->sync_handle;
  if (env->num_task == 1) return 0;
  uint32_t phase = atomic_load(&barrier->phase);
  if (atomic_fetch_add(&barrier->arrived, 1) == env->num_task - 1) {
    atomic_store(&barrier->arrived, 0);
    atomic_fetch_add(&barrier->phase, 1);
  } else {
    while (!spin_while_equal(&barrier->phase, phase, kWorkerSpinNs)) sched_yield();
  }
  return 0;
}

HIDDEN void* TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t nbytes, int code_hint, int bits_hint) {
  (void)device_type, (void)device_id, (void)code_hint, (void)bits_hint;
  if (nbytes > SIZE_MAX / 2) return NULL;
  size_t bytes = ((size_t)nbytes + kAlign - 1) / kAlign * kAlign;
  if (bytes == 0) bytes = kAlign;
  Workspace* ws = here.workspace;
  if (ws == NULL) return aligned_alloc(kAlign, bytes);
  /* The smallest idle block that fits; else the largest idle one makes way for a larger, so that the memory kept is
   * bounded by what one kernel holds at a time; else a new one. */
  int best = -1, largest = -1, empty = -1;
  for (int i = 0; i < kCachedBlocks; ++i) {
    if (ws->blocks[i].used) continue;
    size_t have = ws->blocks[i].bytes;
    if (have == 0) {
      empty = i;
    } else if (have >= bytes) {
      if (best < 0 || have < ws->blocks[best].bytes) best = i;
    } else if (largest < 0 || have > ws->blocks[largest].bytes) {
      largest = i;
    }
  }
  if (best < 0) {
    best = largest >= 0 ? largest : empty;
    void* data = aligned_alloc(kAlign, bytes);
    if (data == NULL || best < 0) return data;
    free(ws->blocks[best].data);
    ws->blocks[best].data = data;
    ws->blocks[best].bytes = bytes;
  }
  ws->blocks[best].used = true;
  return ws->blocks[best].data;
}

HIDDEN int TVMBackendFreeWorkspace(int device_type, int device_id, void* data) {
  (void)device_type, (void)device_id;
  for (int i = 0; here.workspace != NULL && i < kCachedBlocks; ++i) {
    if (here.workspace->blocks[i].used && here.workspace->blocks[i].data == data) {
      here.workspace->blocks[i].used = false;
      return 0;
    }
  }
  free(data);
  return 0;
}

/* TVM's objects carry weak, null definitions of these and call through them; the strong ones here win at link time. */
HIDDEN int (*__TVMBackendParallelLaunch)(ParallelLambda, void*, int) = TVMBackendParallelLaunch;
HIDDEN int (*__TVMBackendParallelBarrier)(int, TVMParallelGroupEnv*) = TVMBackendParallelBarrier;
HIDDEN void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = TVMBackendAllocWorkspace;
HIDDEN int (*__TVMBackendFreeWorkspace)(int, int, void*) = TVMBackendFreeWorkspace;

/* ---- The door for C and ctypes ---------------------------------------------------------------------------------- */

/* Takes the pool for this thread. Returns 0, or kErrorNoThreads where a forked child cannot have its threads again. */
HIDDEN int32_t evo_enter(void* handle) {
  Pool* pool = handle;
  if (pool == NULL) return 0;
  if (pool->pid != getpid() && !start_workers(pool)) {
    pool->pid = 0; /* tries again at the next run */
    return kErrorNoThreads;
  }
  pthread_mutex_lock(&pool->lock);
  here.pool = pool;
  here.workspace = &pool->members[0].workspace;
  return 0;
}

/* Gives the pool back after work that ended with `code`, and returns that. */
HIDDEN int32_t evo_leave(void* handle, int32_t code) {
  Pool* pool = handle;
  if (pool == NULL) return code;
  here.pool = NULL;
  here.workspace = NULL;
  if (code != 0) { /* a kernel that fails does not give back what it took */
    for (int32_t i = 0; i < pool->size; ++i) {
      for (int k = 0; k < kCachedBlocks; ++k) pool->members[i].workspace.blocks[k].used = false;
    }
  }
  pthread_mutex_unlock(&pool->lock);
  return code;
}

/* Fills `prepared`, on `pool` (NULL: on this thread alone): once, before the first run. Pointers and codes as below. */
int32_t evo_prepare(void* pool, const uint8_t* weights, uint8_t* prepared) {
  int32_t code = evo_enter(pool);
  return code != 0 ? code : evo_leave(pool, evo_model_prepare(weights, prepared));
}

/* Runs the model on `pool` (NULL: on this thread alone). Every pointer is 64-byte aligned and of the size that the
 * model's data says. Runs on one pool take turns; runs on different pools go on at once. Returns 0, a kernel's code, or
 * kErrorNoThreads where a forked child cannot have the pool's threads again. */
int32_t evo_run(void* pool, void* const* inputs, void* const* outputs, const uint8_t* weights, const uint8_t* prepared,
                uint8_t* arena, uint64_t* ticks) {
  int32_t code = evo_enter(pool);
  return code != 0 ? code : evo_leave(pool, evo_model_main(inputs, outputs, weights, prepared, arena, ticks));
}
