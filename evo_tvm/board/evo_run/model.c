/* The .evo file: a zip archive of three stored members, mapped and checked before anything of it is used. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "evo_run.h"

enum { kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kMembers = 3, kMaxTensors = 4096 };
static const char* const kNames[kMembers] = {"manifest.json", "model.so", "weights.bin"};
static const char kRemedy[] = "copy it again, or compile the model again";

typedef struct {
  const uint8_t* data;
  uint64_t bytes;
} Bytes;

static uint32_t u16(const uint8_t* at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }
static uint32_t u32(const uint8_t* at) { return u16(at) | u16(at + 2) << 16; }

static Bytes map_file(const char* path) {
  struct stat info;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &info) != 0) fail(path, "cannot be read: %s", strerror(errno));
  if (!S_ISREG(info.st_mode)) fail(path, "not a file");
  if (info.st_size == 0) fail(path, "the file is empty; %s", kRemedy);
  if ((uint64_t)info.st_size > SIZE_MAX / 2) fail(path, "too large for this machine");
  void* data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) fail(path, "cannot be mapped: %s", strerror(errno));
  close(fd);
  return (Bytes){data, (uint64_t)info.st_size};
}

/* The members' contents. The writer's layout has no freedom, so whatever differs from it is an error. */
static void find_members(const char* path, Bytes file, Bytes members[kMembers]) {
  const char* broken = "the file is truncated or altered; %s";
  if (file.bytes < 4 || memcmp(file.data, "PK\3\4", 4) != 0) fail(path, "not an .evo file");
  if (file.bytes < kEndBytes) fail(path, broken, kRemedy);
  const uint8_t* end = file.data + file.bytes - kEndBytes;
  if (memcmp(end, "PK\5\6", 4) != 0) fail(path, broken, kRemedy);
  uint64_t start = u32(end + 16), size = u32(end + 12);
  if (u16(end + 10) != kMembers || start + size + kEndBytes != file.bytes) fail(path, broken, kRemedy);
  uint64_t at = start, next = 0; /* `next`: where the header of the member must be */
  for (int i = 0; i < kMembers; ++i) {
    const size_t length = strlen(kNames[i]);
    const uint8_t* entry = file.data + at;
    if (at + kCentralBytes + length > start + size) fail(path, broken, kRemedy);
    if (u16(entry + 28) != length || memcmp(entry + kCentralBytes, kNames[i], length) != 0) {
      fail(path, "not an .evo file: member %d is not %s", i + 1, kNames[i]);
    }
    if (u16(entry + 10) != 0 || u32(entry + 20) != u32(entry + 24)) fail(path, "member %s is compressed", kNames[i]);
    const uint64_t header = u32(entry + 42), bytes = u32(entry + 24);
    const uint8_t* local = file.data + header;
    if (header != next || header + kLocalBytes > start || memcmp(local, "PK\3\4", 4) != 0) fail(path, broken, kRemedy);
    const uint64_t data = header + kLocalBytes + u16(local + 26) + u16(local + 28);
    if (data + bytes > start) fail(path, broken, kRemedy);
    members[i] = (Bytes){file.data + data, bytes};
    if (crc32(members[i].data, bytes) != u32(entry + 16)) {
      fail(path, "the file was altered: %s does not match its CRC; %s", kNames[i], kRemedy);
    }
    next = data + bytes;
    at += kCentralBytes + length;
  }
}

/* ---- The manifest ----------------------------------------------------------------------------------------------- */

static Json member_of(const char* path, Json object, const char* name) {
  Json value = json_member(object, name);
  if (value.at == NULL) fail(path, "its manifest has no %s; %s", name, kRemedy);
  return value;
}

static char* text_of(const char* path, Json object, const char* name) {
  char* text = json_text(member_of(path, object, name));
  if (text == NULL) fail(path, "its manifest's %s is not text; %s", name, kRemedy);
  return text;
}

static uint64_t natural_of(const char* path, Json object, const char* name) {
  uint64_t value;
  if (!json_natural(member_of(path, object, name), &value)) {
    fail(path, "its manifest's %s is not a natural number; %s", name, kRemedy);
  }
  return value;
}

static double number_of(const char* path, Json value, const char* name) {
  double number;
  if (!json_number(value, &number)) fail(path, "its manifest's %s is not a number; %s", name, kRemedy);
  return number;
}

static int count(Json array) {
  int found = 0;
  for (Json at = json_first(array); at.at != NULL; at = json_next(at)) ++found;
  return found;
}

static Tensor read_spec(const char* path, Json spec) {
  Tensor tensor = {.name = text_of(path, spec, "name"), .dtype = text_of(path, spec, "dtype")};
  tensor.bytes = dtype_bytes(tensor.dtype);
  if (tensor.bytes == 0) fail(path, "tensor %s is of a type that evo-run does not know: %s", tensor.name, tensor.dtype);
  Json extent = json_first(member_of(path, spec, "shape"));
  for (; extent.at != NULL; extent = json_next(extent)) {
    uint64_t value;
    if (tensor.rank == kMaxRank || !json_natural(extent, &value) || value > UINT32_MAX || tensor.bytes > UINT32_MAX) {
      fail(path, "the shape of tensor %s is wrong; %s", tensor.name, kRemedy);
    }
    tensor.shape[tensor.rank++] = value;
    tensor.bytes *= value;
  }
  return tensor;
}

static Tensor* read_specs(const char* path, Json array, int* number) {
  *number = count(array);
  if (*number > kMaxTensors) fail(path, "it has more than %d inputs or outputs", kMaxTensors);
  Tensor *tensors = allocate(((size_t)*number + 1) * sizeof(Tensor)), *out = tensors;
  for (Json at = json_first(array); at.at != NULL; at = json_next(at)) *out++ = read_spec(path, at);
  return tensors;
}

static void read_gates(Model* model, Json manifest) {
  const char* path = model->path;
  Json gates = json_member(manifest, "gates"), curve = json_member(manifest, "curve");
  model->gate_decisions = allocate(((size_t)count(gates) + 1) * sizeof(uint64_t));
  for (Json at = json_first(gates); at.at != NULL; at = json_next(at)) {
    const uint64_t decisions = natural_of(path, at, "decisions");
    if (decisions > UINT32_MAX) fail(path, "its manifest's gates are wrong; %s", kRemedy);
    model->gate_decisions[model->num_gates++] = decisions;
  }
  model->curve = allocate(((size_t)count(curve) + 1) * sizeof(CurvePoint));
  for (Json at = json_first(curve); at.at != NULL; at = json_next(at)) {
    CurvePoint* point = &model->curve[model->num_points++];
    point->latency = number_of(path, json_member(at, "latency"), "latency");
    point->accuracy = number_of(path, json_member(at, "accuracy"), "accuracy");
    Json thresholds = json_member(at, "thresholds");
    if (count(thresholds) != model->num_gates) fail(path, "its manifest's curve is not one of its gates; %s", kRemedy);
    point->thresholds = allocate(((size_t)model->num_gates + 1) * sizeof(double));
    double* out = point->thresholds;
    for (Json one = json_first(thresholds); one.at != NULL; one = json_next(one)) {
      *out++ = number_of(path, one, "threshold");
    }
  }
}

static void read_manifest(Model* model, Bytes text) {
  const char* path = model->path;
  Json manifest = json_parse((const char*)text.data, (size_t)text.bytes);
  if (manifest.at == NULL) fail(path, "its manifest is not JSON; %s", kRemedy);
  const uint64_t format = natural_of(path, manifest, "format");
  if (format > kFormat) {
    fail(path, "written in format %d, and this evo-run reads format %d; build evo-run again with a newer evo_tvm",
         (int)format, kFormat);
  }
  Json target = member_of(path, manifest, "target");
  model->compiler = text_of(path, manifest, "evo_tvm");
  model->target = text_of(path, target, "name");
  model->triple = text_of(path, target, "triple");
  model->num_threads = natural_of(path, manifest, "num_threads");
  model->arena_bytes = natural_of(path, manifest, "arena_bytes");
  model->prepared_bytes = natural_of(path, manifest, "prepared_bytes");
  model->inputs = read_specs(path, member_of(path, manifest, "inputs"), &model->num_inputs);
  model->outputs = read_specs(path, member_of(path, manifest, "outputs"), &model->num_outputs);
  Json features = member_of(path, target, "features"), kernels = member_of(path, manifest, "kernels");
  model->features = allocate(((size_t)count(features) + 1) * sizeof(char*));
  for (Json at = json_first(features); at.at != NULL; at = json_next(at)) {
    char* feature = json_text(at);
    if (feature == NULL) fail(path, "its manifest's features are not texts; %s", kRemedy);
    model->features[model->num_features++] = feature;
  }
  model->kernels = allocate(((size_t)count(kernels) + 1) * sizeof(Kernel));
  for (Json at = json_first(kernels); at.at != NULL; at = json_next(at)) {
    char* layer = json_text(json_first(member_of(path, at, "layers")));
    model->kernels[model->num_kernels++] =
        (Kernel){text_of(path, at, "operator"), text_of(path, at, "algorithm"), layer != NULL ? layer : ""};
  }
  read_gates(model, manifest);
}

Model read_model(const char* path) {
  Bytes members[kMembers];
  Model model = {.path = path};
  find_members(path, map_file(path), members);
  read_manifest(&model, members[0]);
  model.library = members[1].data;
  model.library_bytes = members[1].bytes;
  model.weights = members[2].data;
  model.weights_bytes = members[2].bytes;
  return model;
}
