/* The model's code, loaded, and the memory that it runs in. */
#ifndef EVO_TVM_BOARD_LIBRARY_H_
#define EVO_TVM_BOARD_LIBRARY_H_

#include "abi.h"
#include "evo_run.h"

typedef int32_t RunModel(void* pool, void* const* inputs, void* const* outputs, const uint8_t* weights,
                         const uint8_t* prepared, uint8_t* arena, uint64_t* ticks);

typedef struct {
  const char* path;
  void *handle, *pool;
  const uint8_t* weights;
  uint8_t *prepared, *arena;
  RunModel* run;
} Library;

/* Loads the model's library, checks it against the manifest, and prepares the weights. Fails where they do not fit, or
 * where the system has no memory or threads for it. */
Library open_library(const Model* model, int threads);
/* Sets the thresholds of the model's gates for all runs that follow: those of the most accurate point of its curve that
 * costs at most `budget`, else of the fastest; the point. Fails where the model has none. */
const CurvePoint* set_budget(const Library* library, const Model* model, double budget);
/* One run. Every pointer is 64-byte aligned; `ticks` may be NULL, else it has room for the kernels and one more. */
void run_library(const Library* library, void* const* inputs, void* const* outputs, uint64_t* ticks);

#endif
