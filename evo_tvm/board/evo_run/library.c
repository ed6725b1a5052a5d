/* The model's code, loaded from memory, and the memory that it runs in. */
#define _GNU_SOURCE
#include "library.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void* symbol(const Library* library, const char* name) {
  void* found = dlsym(library->handle, name);
  if (found == NULL) fail(library->path, "its library is not a model's: it has no %s", name);
  return found;
}

/* A name of the library's code that the loader can open: of a file in memory, or of a temporary one. */
static void place(const Model* model, char* path, size_t size, bool* temporary) {
  int fd = memfd_create("evo-run", MFD_CLOEXEC);
  *temporary = fd < 0;
  if (*temporary) { /* an old kernel, or a policy that forbids it */
    const char* folder = getenv("TMPDIR");
    snprintf(path, size, "%s/evo-run-XXXXXX", folder != NULL ? folder : "/tmp");
    if ((fd = mkstemp(path)) < 0) fail(path, "cannot be written: %s", strerror(errno));
  } else {
    snprintf(path, size, "/proc/self/fd/%d", fd);
  }
  for (uint64_t done = 0; done < model->library_bytes;) {
    const ssize_t step = write(fd, model->library + done, (size_t)(model->library_bytes - done));
    if (step < 0 && errno == EINTR) continue;
    if (step <= 0) {
      const int reason = errno;
      if (*temporary) unlink(path);
      fail(model->path, "its library cannot be written to memory: %s", strerror(reason));
    }
    done += (uint64_t)step;
  }
  if (*temporary) close(fd); /* that of a file in memory stays open: its number is its name */
}

static void same(const Model* model, const char* what, uint64_t in_library, uint64_t elsewhere) {
  if (in_library == elsewhere) return;
  fail(model->path, "its parts do not belong together: they differ in %s (%llu and %llu)", what,
       (unsigned long long)in_library, (unsigned long long)elsewhere);
}

static void check(const Model* model, const Library* library) {
  const int32_t version = ((int32_t (*)(void))symbol(library, "evo_abi_version"))();
  if (version != kAbiVersion) {
    fail(model->path, "its library has interface %d, and this evo-run calls interface %d; compile the model again",
         version, kAbiVersion);
  }
  same(model, "the number of inputs", (uint64_t)*(int32_t*)symbol(library, "evo_num_inputs"),
       (uint64_t)model->num_inputs);
  same(model, "the number of outputs", (uint64_t)*(int32_t*)symbol(library, "evo_num_outputs"),
       (uint64_t)model->num_outputs);
  same(model, "the number of kernels", (uint64_t)*(int32_t*)symbol(library, "evo_num_kernels"),
       (uint64_t)model->num_kernels);
  same(model, "the size of the weights", *(uint64_t*)symbol(library, "evo_weights_bytes"), model->weights_bytes);
  same(model, "the size of the prepared weights", *(uint64_t*)symbol(library, "evo_prepared_bytes"),
       model->prepared_bytes);
  same(model, "the size of the arena", *(uint64_t*)symbol(library, "evo_arena_bytes"), model->arena_bytes);
  const uint64_t* bytes = symbol(library, "evo_tensor_bytes");
  for (int i = 0; i < model->num_inputs; ++i) same(model, model->inputs[i].name, *bytes++, model->inputs[i].bytes);
  for (int i = 0; i < model->num_outputs; ++i) same(model, model->outputs[i].name, *bytes++, model->outputs[i].bytes);
}

Library open_library(const Model* model, int threads) {
  char path[4096];
  bool temporary;
  Library library = {.path = model->path};
  place(model, path, sizeof path, &temporary);
  library.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (temporary) unlink(path);
  if (library.handle == NULL) fail(model->path, "its library cannot be loaded: %s", dlerror());
  check(model, &library);
  void* (*create)(int32_t) = (void* (*)(int32_t))symbol(&library, "evo_pool_create");
  library.pool = create(threads);
  if (library.pool == NULL) fail(model->path, "the system cannot give %d threads", threads);
  library.weights = model->weights;
  library.prepared = allocate((size_t)model->prepared_bytes);
  library.arena = allocate((size_t)model->arena_bytes);
  library.run = (RunModel*)symbol(&library, "evo_run");
  if (model->prepared_bytes > 0) {
    int32_t (*prepare)(void*, const uint8_t*, uint8_t*) =
        (int32_t (*)(void*, const uint8_t*, uint8_t*))symbol(&library, "evo_prepare");
    const int32_t code = prepare(library.pool, library.weights, library.prepared);
    if (code != 0) fail(model->path, "its weights could not be prepared: code %d", code);
  }
  return library;
}

const CurvePoint* set_budget(const Library* library, const Model* model, double budget) {
  if (model->num_points == 0) fail(model->path, "it has no curve of gates to keep a budget with; see evo-tvm gate");
  same(model, "the number of gates", (uint64_t)*(int32_t*)symbol(library, "evo_num_gates"), (uint64_t)model->num_gates);
  const CurvePoint *best = NULL, *fastest = model->curve;
  for (const CurvePoint* point = model->curve; point < model->curve + model->num_points; ++point) {
    if (point->latency < fastest->latency) fastest = point;
    if (point->latency > budget) continue;
    const bool better = best == NULL || point->accuracy > best->accuracy ||
                        (point->accuracy == best->accuracy && point->latency < best->latency);
    if (better) best = point;
  }
  if (best == NULL) best = fastest;
  uint64_t decisions = 0;
  for (int gate = 0; gate < model->num_gates; ++gate) decisions += model->gate_decisions[gate];
  same(model, "the decisions of gates", (uint64_t)*(int32_t*)symbol(library, "evo_num_decisions"), decisions);
  float* threshold = symbol(library, "evo_gate_thresholds");
  for (int gate = 0; gate < model->num_gates; ++gate) {
    for (uint64_t i = 0; i < model->gate_decisions[gate]; ++i) *threshold++ = (float)best->thresholds[gate];
  }
  return best;
}

void run_library(const Library* library, void* const* inputs, void* const* outputs, uint64_t* ticks) {
  const int32_t code =
      library->run(library->pool, inputs, outputs, library->weights, library->prepared, library->arena, ticks);
  if (code != 0) fail(library->path, "a kernel failed with code %d; this is a bug of evo_tvm: please report it", code);
}
