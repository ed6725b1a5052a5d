/* The C interface of a compiled model's library. */
#ifndef EVO_TVM_EXECUTOR_ABI_H_
#define EVO_TVM_EXECUTOR_ABI_H_

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))

enum { kAbiVersion = 3, kAlign = 64, kMaxThreads = 512 };

/* Codes that evo_run and evo_prepare return of their own; any other is a kernel's. */
enum { kErrorNoThreads = -1001, kErrorTooLarge = -1002 };

/* What the generated model.c defines. */
extern const char* const evo_target;
extern const int32_t evo_num_inputs, evo_num_outputs, evo_num_kernels;
extern const uint64_t evo_tensor_bytes[]; /* inputs, then outputs */
/* Weights are read where the file has them; `prepared` is what is made of some of them once, before the first run. */
extern const uint64_t evo_weights_bytes, evo_prepared_bytes, evo_arena_bytes;
/* Fills `prepared`. Returns 0, or the code of what failed. */
int32_t evo_model_prepare(const uint8_t* weights, uint8_t* prepared);
/* Runs the kernels in order on the calling thread. Where `ticks` is given: ticks[0] is evo_now_ns() at the start and
 * ticks[i + 1] after kernel i. Returns 0, or the code of the kernel that failed. */
int32_t evo_model_main(void* const* inputs, void* const* outputs, const uint8_t* weights, const uint8_t* prepared,
                       uint8_t* arena, uint64_t* ticks);

/* Multiply-adds of float32 and of bytes, for evo_measure: each returns how many operations they were, twice as many. A
 * library may lack them. */
int64_t evo_model_peak(void);
int64_t evo_model_integer_peak(void);

/* Winograd weights G g G^T of 3x3 filters g, in blocks of `lanes` (a multiple of 4) output channels. `matrix` is G,
 * size x 3. Strides, in floats, are of the result, whose innermost axis is the lanes. */
typedef struct {
  const double* matrix;
  int64_t size, blocks, channels, lanes;
  int64_t element_stride, block_stride, channel_stride;
} Winograd;

/* What support.c and prepare.c give to model.c. `source`: (blocks, channels, 3, 3, lanes). */
HIDDEN uint64_t evo_now_ns(void);
HIDDEN int32_t evo_winograd_weights(const float* source, float* result, const Winograd* winograd);

/* What support.c gives to prepare.c and measure.c: TVM's parallel loop, and the pool that it runs on. */
typedef struct {
  void* sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;
typedef int (*ParallelLambda)(int task_id, TVMParallelGroupEnv* env, void* cdata);
HIDDEN int TVMBackendParallelLaunch(ParallelLambda lambda, void* cdata, int num_task);
HIDDEN int32_t evo_threads_here(void); /* that a parallel loop begun on this thread would run on */
HIDDEN int32_t evo_enter(void* pool);
HIDDEN int32_t evo_leave(void* pool, int32_t code);

/* What the library exports beside the data above. */
EXPORT int32_t evo_abi_version(void);
EXPORT void* evo_pool_create(int32_t threads);
EXPORT void evo_pool_destroy(void* pool);
EXPORT int32_t evo_pool_threads(void* pool);
EXPORT int32_t evo_prepare(void* pool, const uint8_t* weights, uint8_t* prepared);
EXPORT int32_t evo_run(void* pool, void* const* inputs, void* const* outputs, const uint8_t* weights,
                       const uint8_t* prepared, uint8_t* arena, uint64_t* ticks);
EXPORT int32_t evo_measure(void* pool, uint64_t bytes, double rates[3]);

#endif
