/* The parts of evo-run, the program that runs an .evo file on a board without Python and without TVM. */
#ifndef EVO_TVM_BOARD_EVO_RUN_H_
#define EVO_TVM_BOARD_EVO_RUN_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { kMaxRank = 16, kFormat = 1 };

/* ---- fail.c ------------------------------------------------------------------------------------------------------ */

/* Prints one line, "evo-run: WHERE: what", and ends the program with status 1. `where` may be NULL. */
_Noreturn void fail(const char* where, const char* what, ...) __attribute__((format(printf, 2, 3)));
/* `bytes` of zeroed memory at a multiple of 64; fails where there is none. */
void* allocate(size_t bytes);

/* ---- json.c: reads values where they lie in a text -------------------------------------------------------------- */

typedef struct {
  const char *at, *end; /* `at` is NULL where there is no value */
} Json;

/* The one value that the text holds, or none where it is not JSON. All that follows takes parts of such a value. */
Json json_parse(const char* text, size_t bytes);
/* The member of an object; none where it is no object, or has no such member. */
Json json_member(Json object, const char* name);
/* The elements of an array, one after the other; none after the last, or where it is no array. */
Json json_first(Json array);
Json json_next(Json element);
/* The text of a string, in memory of its own; NULL where it is none. */
char* json_text(Json value);
/* Whether the value is an integer from 0 to 2^53. */
bool json_natural(Json value, uint64_t* result);
/* Whether the value is a number, Infinity and -Infinity among them. */
bool json_number(Json value, double* result);
void json_write_text(FILE* file, const char* text);

/* ---- model.c: the .evo file ------------------------------------------------------------------------------------- */

typedef struct {
  char *name, *dtype;
  int rank;
  uint64_t shape[kMaxRank], bytes;
} Tensor;

typedef struct {
  char* operator, * algorithm, *layer;
} Kernel;

/* Thresholds of all gates, and what they cost: latency in parts of the model's without gates, and accuracy. */
typedef struct {
  double latency, accuracy, *thresholds;
} CurvePoint;

typedef struct {
  const char* path;
  char *compiler, *target, *triple;
  uint64_t num_threads, prepared_bytes, arena_bytes, library_bytes, weights_bytes;
  int num_inputs, num_outputs, num_kernels, num_features, num_gates, num_points;
  Tensor *inputs, *outputs;
  Kernel* kernels;
  char** features;
  uint64_t* gate_decisions; /* of each gate, how many it makes a run */
  CurvePoint* curve;
  const uint8_t *library, *weights; /* in the mapped file */
} Model;

/* Maps and checks the file: its layout, its checksums and its manifest. Fails with what is wrong. */
Model read_model(const char* path);

/* ---- cpu.c: what this machine can do ---------------------------------------------------------------------------- */

extern const char* const cpu_arch; /* as a triple spells it */
/* Features of this CPU that compiled code may need, under LLVM's names, NULL after the last. */
const char* const* cpu_features(void);
/* Fails where this CPU cannot run the model. */
void check_cpu(const Model* model);

/* ---- tensors.c -------------------------------------------------------------------------------------------------- */

uint32_t crc32(const uint8_t* data, size_t bytes);
/* Bytes of one element; 0 where the type is not known. */
size_t dtype_bytes(const char* dtype);
/* The content of a file: .npy of the tensor's shape and type, or its bare bytes. */
void* read_tensor(const Tensor* tensor, const char* path);
/* Numbers from -1 to 1, the same at every call, for floats; zeros for all else. */
void* random_tensor(const Tensor* tensor, uint64_t seed);
/* Writes a .npy file, whole or not at all. */
void write_tensor(const Tensor* tensor, const void* data, const char* path);

#endif
