/* count_one FILE RUNS: calls one kernel. FILE: how many operands, then of each its size, and 1 before its bytes where
 * what they are matters (a table of places), else 0; all numbers are of 8 bytes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { kMost = 24 };

typedef int (*Lambda)(int, void*, void*);

static int launch(Lambda lambda, void* data, int tasks) {
  struct {
    void* sync_handle;
    int32_t num_task;
  } env = {NULL, 1};
  (void)tasks;
  return lambda(0, &env, data);
}

static void* allocate(int type, int id, uint64_t bytes, int code, int bits) {
  (void)type, (void)id, (void)code, (void)bits;
  return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static int release(int type, int id, void* data) {
  (void)type, (void)id;
  free(data);
  return 0;
}

int (*__TVMBackendParallelLaunch)(Lambda, void*, int) = launch;
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = release;

/* It takes as many as it has; more in registers and on the stack do no harm where the caller clears them away. */
extern int32_t kernel(void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*,
                      void*, void*, void*, void*, void*, void*, void*, void*, void*, void*);

int main(int argc, char** argv) {
  uint64_t count = 0, head[2];
  void* p[kMost] = {NULL};
  FILE* file = argc == 3 ? fopen(argv[1], "rb") : NULL;
  if (file == NULL || fread(&count, 8, 1, file) != 1 || count > kMost) return 2;
  for (uint64_t i = 0; i < count; ++i) {
    if (fread(head, 8, 2, file) != 2) return 3;
    p[i] = aligned_alloc(64, (head[0] + 127) / 64 * 64);
    if (p[i] == NULL) return 4;
    for (uint64_t at = 0; at < head[0] / 8 + 1; ++at) ((uint64_t*)p[i])[at] = 0;
    if (head[1] && fread(p[i], 1, head[0], file) != head[0]) return 5;
  }
  for (int run = atoi(argv[2]); run > 0; --run) {
    int32_t code = kernel(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13], p[14],
                          p[15], p[16], p[17], p[18], p[19], p[20], p[21], p[22], p[23]);
    if (code != 0) return 6;
  }
  return 0;
}
