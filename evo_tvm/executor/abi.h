/* The C interface of a compiled model's library. */
#ifndef EVO_TVM_EXECUTOR_ABI_H_
#define EVO_TVM_EXECUTOR_ABI_H_

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))

enum { kAbiVersion = 1, kAlign = 64, kMaxThreads = 512 };

/* Codes that evo_run returns of its own; any other is a kernel's. */
enum { kErrorNoThreads = -1001 };

/* What the generated model.c defines. */
extern const char* const evo_target;
extern const int32_t evo_num_inputs, evo_num_outputs, evo_num_kernels;
extern const uint64_t evo_tensor_bytes[]; /* inputs, then outputs */
extern const uint64_t evo_weights_bytes, evo_arena_bytes;
/* Runs the kernels in order on the calling thread. Where `ticks` is given: ticks[0] is evo_now_ns() at the start and
 * ticks[i + 1] after kernel i. Returns 0, or the code of the kernel that failed. */
int32_t evo_model_main(void* const* inputs, void* const* outputs, const uint8_t* weights, uint8_t* arena,
                       uint64_t* ticks);

/* What support.c gives to model.c. */
HIDDEN uint64_t evo_now_ns(void);

/* What the library exports beside the data above. */
EXPORT int32_t evo_abi_version(void);
EXPORT void* evo_pool_create(int32_t threads);
EXPORT void evo_pool_destroy(void* pool);
EXPORT int32_t evo_pool_threads(void* pool);
EXPORT int32_t evo_run(void* pool, void* const* inputs, void* const* outputs, const uint8_t* weights, uint8_t* arena,
                       uint64_t* ticks);

#endif
