/*
 * The door for TVM's packed calling convention, for tvm_ffi and TVM's RPC: `read`, `prepare`, `set_num_threads`, `main`,
 * `time` and `limits`. The few types of that convention are declared here (tvm/ffi/c_api.h and dlpack.h define them), so
 * no TVM header is needed.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

#include "abi.h"

typedef struct {
  int32_t type_index;
  uint32_t zero_padding;
  union {
    int64_t v_int64;
    void* v_ptr;
  };
} TVMFFIAny;
enum { kFFINone = 0, kFFIInt = 1, kFFIDLTensorPtr = 7, kFFIRawStr = 8, kFFIStr = 65, kFFITensor = 70 };
enum { kFFIObjectHeaderBytes = 24, kDLCPU = 1 };

typedef struct {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t dtype_code, dtype_bits;
  uint16_t dtype_lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} DLTensor;

typedef void (*SetRaised)(const char* kind, const char* message);
extern void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) __attribute__((weak));
extern void* dlsym(void* handle, const char* name) __attribute__((weak));

static pthread_mutex_t default_lock = PTHREAD_MUTEX_INITIALIZER;
static void* default_pool; /* of __tvm_ffi_main; made at its first call */
static int32_t default_threads = 1;

static int raise_error(const char* kind, const char* message) {
  SetRaised set = TVMFFIErrorSetRaisedFromCStr;
  if (set == NULL && dlsym != NULL) { /* this library was loaded before tvm_ffi was */
    void* symbol = dlsym(NULL, "TVMFFIErrorSetRaisedFromCStr");
    __builtin_memcpy(&set, &symbol, sizeof set);
  }
  if (set != NULL) set(kind, message);
  return -1;
}

static const char* role_of(int32_t i, int32_t* number) {
  *number = i < evo_num_inputs ? i : i - evo_num_inputs;
  if (i < evo_num_inputs) return "input";
  if (*number < evo_num_outputs) return "output";
  *number -= evo_num_outputs;
  const char* const memory[] = {"weights", "prepared", "arena"};
  const char* role = memory[*number];
  *number = 0;
  return role;
}

/* The tensor of an argument, or NULL where it is something else. */
static const DLTensor* as_tensor(const TVMFFIAny* arg) {
  if (arg->type_index == kFFIDLTensorPtr) return arg->v_ptr;
  if (arg->type_index != kFFITensor) return NULL;
  return (const DLTensor*)((const char*)arg->v_ptr + kFFIObjectHeaderBytes);
}

/* The data of argument i, or NULL with the error set: not a contiguous CPU tensor, wrong size, not 64-byte aligned. */
static void* tensor_data(const TVMFFIAny* arg, int32_t i, uint64_t expected, bool exact) {
  int32_t number;
  const char* role = role_of(i, &number);
  char message[256];
  const DLTensor* tensor = as_tensor(arg);
  if (tensor == NULL) {
    snprintf(message, sizeof message, "argument %d (%s %d): expected a tensor, got type index %d", i, role, number,
             arg->type_index);
    raise_error("TypeError", message);
    return NULL;
  }
  uint64_t elements = 1;
  bool contiguous = tensor->device_type == kDLCPU;
  for (int32_t d = tensor->ndim - 1; d >= 0; --d) {
    if (tensor->strides != NULL && tensor->shape[d] != 1 && tensor->strides[d] != (int64_t)elements) contiguous = false;
    elements *= (uint64_t)tensor->shape[d];
  }
  uint64_t bytes = elements * (((uint64_t)tensor->dtype_bits * tensor->dtype_lanes + 7) / 8);
  char* data = (char*)tensor->data + tensor->byte_offset;
  if (exact ? bytes != expected : bytes < expected) {
    snprintf(message, sizeof message, "argument %d (%s %d): expected %s%llu bytes, got %llu", i, role, number,
             exact ? "" : "at least ", (unsigned long long)expected, (unsigned long long)bytes);
  } else if (bytes != 0 && !contiguous) {
    snprintf(message, sizeof message, "argument %d (%s %d): expected a contiguous tensor in CPU memory", i, role,
             number);
  } else if (bytes != 0 && (uintptr_t)data % kAlign != 0) {
    snprintf(message, sizeof message, "argument %d (%s %d): expected data aligned to %d bytes, got address %p", i, role,
             number, kAlign, (void*)data);
  } else {
    return data == NULL ? (void*)(uintptr_t)kAlign : data; /* an empty tensor may have no data */
  }
  raise_error("ValueError", message);
  return NULL;
}

static pthread_mutex_t* lock_default_pool(void) {
  pthread_mutex_lock(&default_lock);
  if (default_pool == NULL) default_pool = evo_pool_create(default_threads);
  return &default_lock;
}

/* What a packed function returns for `code`, its result set to nothing. */
static int finish(const char* name, int32_t code, TVMFFIAny* result) {
  result->type_index = kFFINone;
  result->zero_padding = 0;
  result->v_int64 = 0;
  if (code == 0) return 0;
  char message[96];
  if (code == kErrorNoThreads) {
    snprintf(message, sizeof message, "%s: the system has no threads left for the pool", name);
  } else {
    snprintf(message, sizeof message, "%s: a kernel failed with code %d", name, code);
  }
  return raise_error("RuntimeError", message);
}

/* read(path, weights): fills the tensor from a file of exactly as many bytes. */
EXPORT int __tvm_ffi_read(void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result) {
  (void)self;
  const char* path = NULL;
  if (num_args == 2 && args[0].type_index == kFFIRawStr) path = args[0].v_ptr;
  if (num_args == 2 && args[0].type_index == kFFIStr) { /* behind its header: where its characters are */
    __builtin_memcpy(&path, (const char*)args[0].v_ptr + kFFIObjectHeaderBytes, sizeof path);
  }
  if (path == NULL) return raise_error("TypeError", "read: expected 2 arguments (path, weights)");
  void* weights = tensor_data(&args[1], evo_num_inputs + evo_num_outputs, evo_weights_bytes, true);
  if (weights == NULL) return -1;
  FILE* file = fopen(path, "rb");
  const bool whole =
      file != NULL && fread(weights, 1, evo_weights_bytes, file) == evo_weights_bytes && fgetc(file) == EOF;
  if (file != NULL) fclose(file);
  return whole ? finish("read", 0, result) : raise_error("RuntimeError", "read: no such file, or of another size");
}

/* prepare(weights, prepared): fills `prepared`, once, before the first run; nothing to do where it has no bytes. */
EXPORT int __tvm_ffi_prepare(void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result) {
  (void)self;
  const int32_t tensors = evo_num_inputs + evo_num_outputs;
  if (num_args != 2) return raise_error("TypeError", "prepare: expected 2 arguments (weights, prepared)");
  void* weights = tensor_data(&args[0], tensors, evo_weights_bytes, false);
  void* prepared = weights == NULL ? NULL : tensor_data(&args[1], tensors + 1, evo_prepared_bytes, false);
  if (prepared == NULL) return -1;
  pthread_mutex_t* lock = lock_default_pool();
  int32_t code = default_pool == NULL ? kErrorNoThreads : evo_prepare(default_pool, weights, prepared);
  pthread_mutex_unlock(lock);
  return finish("prepare", code, result);
}

/* The data of inputs, outputs, weights, prepared and arena, in this order; false with the error set. */
static bool all_data(const char* name, const TVMFFIAny* args, int32_t num_args, int32_t expected, void** data) {
  const int32_t tensors = evo_num_inputs + evo_num_outputs;
  if (num_args != expected) {
    char message[160];
    snprintf(message, sizeof message,
             "%s: expected %d arguments (%d inputs, %d outputs, weights, prepared, arena%s), got %d", name, expected,
             evo_num_inputs, evo_num_outputs, expected > tensors + 3 ? ", ticks" : "", num_args);
    raise_error("TypeError", message);
    return false;
  }
  const uint64_t memory[] = {evo_weights_bytes, evo_prepared_bytes, evo_arena_bytes};
  for (int32_t i = 0; i < tensors + 3; ++i) {
    uint64_t bytes = i < tensors ? evo_tensor_bytes[i] : memory[i - tensors];
    if ((data[i] = tensor_data(&args[i], i, bytes, i < tensors)) == NULL) return false;
  }
  return true;
}

/* evo_run on the default pool, which is locked. */
static int32_t run_default(void** data, uint64_t* ticks) {
  void** at = data + evo_num_inputs + evo_num_outputs;
  return evo_run(default_pool, data, data + evo_num_inputs, at[0], at[1], at[2], ticks);
}

/* main(inputs..., outputs..., weights, prepared, arena): runs the model on the default pool. */
EXPORT int __tvm_ffi_main(void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result) {
  (void)self;
  const int32_t tensors = evo_num_inputs + evo_num_outputs;
  void* data[tensors + 3];
  if (!all_data("main", args, num_args, tensors + 3, data)) return -1;
  pthread_mutex_t* lock = lock_default_pool();
  int32_t code = default_pool == NULL ? kErrorNoThreads : run_default(data, NULL);
  pthread_mutex_unlock(lock);
  return finish("main", code, result);
}

/* time(inputs..., outputs..., weights, prepared, arena, ticks): runs the model once for each row of `ticks`, uint64.
 * Rows of 1 + kernels get what evo_run gives; rows of 2 get evo_now_ns() before and after a whole run. */
EXPORT int __tvm_ffi_time(void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result) {
  (void)self;
  const int32_t tensors = evo_num_inputs + evo_num_outputs;
  void* data[tensors + 3];
  if (!all_data("time", args, num_args, tensors + 4, data)) return -1;
  const DLTensor* ticks = as_tensor(&args[tensors + 3]);
  if (ticks == NULL || ticks->device_type != kDLCPU || ticks->ndim != 2 || ticks->dtype_bits != 64 ||
      (ticks->shape[1] != 2 && ticks->shape[1] != evo_num_kernels + 1)) {
    return raise_error("ValueError", "time: ticks are uint64 of (runs, 2) or (runs, 1 + kernels)");
  }
  const int64_t rows = ticks->shape[0], columns = ticks->shape[1];
  uint64_t* row = (uint64_t*)((char*)ticks->data + ticks->byte_offset);
  pthread_mutex_t* lock = lock_default_pool();
  int32_t code = default_pool == NULL ? kErrorNoThreads : 0;
  for (int64_t i = 0; i < rows && code == 0; ++i, row += columns) {
    const bool whole = columns == 2;
    if (whole) row[0] = evo_now_ns();
    code = run_default(data, whole ? NULL : row);
    if (whole) row[1] = evo_now_ns();
  }
  pthread_mutex_unlock(lock);
  return finish("time", code, result);
}

/* limits(bytes, rates): what evo_measure finds on the default pool, in a tensor of 3 float64. */
EXPORT int __tvm_ffi_limits(void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result) {
  (void)self;
  const DLTensor* rates = num_args == 2 ? as_tensor(&args[1]) : NULL;
  if (rates == NULL || args[0].type_index != kFFIInt || rates->device_type != kDLCPU || rates->ndim != 1 ||
      rates->shape[0] != 3 || rates->dtype_bits != 64) {
    return raise_error("TypeError", "limits: expected 2 arguments (bytes, rates: 3 float64)");
  }
  pthread_mutex_t* lock = lock_default_pool();
  int32_t code = kErrorNoThreads;
  if (default_pool != NULL) {
    code = evo_measure(default_pool, (uint64_t)args[0].v_int64, (double*)((char*)rates->data + rates->byte_offset));
  }
  pthread_mutex_unlock(lock);
  return finish("limits", code, result);
}

/* set_num_threads(n): how many threads main uses from now on. */
EXPORT int __tvm_ffi_set_num_threads(void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result) {
  (void)self;
  if (num_args != 1 || args[0].type_index != kFFIInt || args[0].v_int64 < 1 || args[0].v_int64 > kMaxThreads) {
    return raise_error("ValueError", "set_num_threads: expected one integer from 1 to 512");
  }
  pthread_mutex_lock(&default_lock);
  default_threads = (int32_t)args[0].v_int64;
  if (default_pool != NULL && evo_pool_threads(default_pool) != default_threads) {
    evo_pool_destroy(default_pool);
    default_pool = NULL;
  }
  pthread_mutex_unlock(&default_lock);
  result->type_index = kFFINone;
  result->zero_padding = 0;
  result->v_int64 = 0;
  return 0;
}

/* Threads must not outlive the code they run: ends them before the library is unloaded. */
__attribute__((destructor)) static void unload(void) {
  evo_pool_destroy(default_pool);
  default_pool = NULL;
}
