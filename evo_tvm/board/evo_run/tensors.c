/* Inputs from files or at random, outputs to files, checksums. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "evo_run.h"

/* ---- CRC-32 as in zip archives, eight bytes at a time ----------------------------------------------------------- */

uint32_t crc32(const uint8_t* data, size_t bytes) {
  static uint32_t table[8][256];
  for (uint32_t i = 0; table[0][255] == 0 && i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
    table[0][i] = value;
  }
  for (uint32_t i = 0; table[7][255] == 0 && i < 256; ++i) {
    for (int k = 1; k < 8; ++k) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xFF];
  }
  uint32_t crc = 0xFFFFFFFFu;
  for (; bytes >= 8; bytes -= 8, data += 8) {
    const uint32_t low =
        crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
    crc = table[7][low & 0xFF] ^ table[6][low >> 8 & 0xFF] ^ table[5][low >> 16 & 0xFF] ^ table[4][low >> 24] ^
          table[3][data[4]] ^ table[2][data[5]] ^ table[1][data[6]] ^ table[0][data[7]];
  }
  while (bytes-- > 0) crc = crc >> 8 ^ table[0][(crc ^ *data++) & 0xFF];
  return ~crc;
}

/* ---- Types ------------------------------------------------------------------------------------------------------ */

/* The model's name of a type, numpy's in a .npy file, bytes. */
static const struct {
  const char *dtype, *descr;
  size_t bytes;
} kTypes[] = {
    {"float32", "<f4", 4}, {"float64", "<f8", 8}, {"float16", "<f2", 2},  {"int8", "|i1", 1},   {"uint8", "|u1", 1},
    {"int16", "<i2", 2},   {"uint16", "<u2", 2},  {"int32", "<i4", 4},    {"uint32", "<u4", 4}, {"int64", "<i8", 8},
    {"uint64", "<u8", 8},  {"bool", "|b1", 1},    {"bfloat16", "<V2", 2},
};

static int type_of(const char* dtype) {
  for (int i = 0; i < (int)(sizeof kTypes / sizeof *kTypes); ++i) {
    if (strcmp(kTypes[i].dtype, dtype) == 0) return i;
  }
  return -1;
}

size_t dtype_bytes(const char* dtype) {
  const int type = type_of(dtype);
  return type < 0 ? 0 : kTypes[type].bytes;
}

/* "(1,3,224,224)": a tuple of Python. */
static void write_shape(const Tensor* tensor, char* out, size_t size) {
  size_t used = (size_t)snprintf(out, size, "(");
  for (int i = 0; i < tensor->rank; ++i) {
    used += (size_t)snprintf(out + used, size - used, i > 0 ? ",%llu" : "%llu", (unsigned long long)tensor->shape[i]);
  }
  snprintf(out + used, size - used, tensor->rank == 1 ? ",)" : ")");
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

/* Reads past the header of a .npy file that fits the tensor; fails where it does not. */
static void skip_header(const Tensor* tensor, FILE* file, const uint8_t* start, const char* path) {
  static char header[1 << 16];
  char shape[kMaxRank * 24], wanted[3][kMaxRank * 24 + 16];
  size_t bytes = (size_t)start[8] | (size_t)start[9] << 8, have = 0;
  if (start[6] > 1) { /* versions 2 and 3 have four bytes of length */
    uint8_t more[2];
    if (fread(more, 1, 2, file) != 2) fail(path, "the file is truncated");
    bytes |= (size_t)more[0] << 16 | (size_t)more[1] << 24;
  }
  if (bytes < sizeof header) have = fread(header, 1, bytes, file);
  if (have != bytes) fail(path, "the .npy file is truncated, or its header is too long");
  size_t kept = 0;
  for (size_t i = 0; i < bytes; ++i) {
    if (header[i] != ' ' && header[i] != '\n') header[kept++] = header[i];
  }
  header[kept] = '\0';
  write_shape(tensor, shape, sizeof shape);
  snprintf(wanted[0], sizeof wanted[0], "'descr':'%s'", kTypes[type_of(tensor->dtype)].descr);
  snprintf(wanted[1], sizeof wanted[1], "'shape':%s", shape);
  snprintf(wanted[2], sizeof wanted[2], "'fortran_order':False");
  for (int i = 0; i < 3; ++i) {
    if (strstr(header, wanted[i]) == NULL) {
      fail(path, "input %s wants %s of shape %s in C order, and the file holds %s", tensor->name, tensor->dtype, shape,
           header);
    }
  }
}

void* read_tensor(const Tensor* tensor, const char* path) {
  uint8_t start[10];
  FILE* file = fopen(path, "rb");
  if (file == NULL) fail(path, "cannot be read: %s", strerror(errno));
  if (fread(start, 1, sizeof start, file) == sizeof start && memcmp(start, "\x93NUMPY", 6) == 0) {
    skip_header(tensor, file, start, path);
  } else {
    rewind(file);
  }
  uint8_t* data = allocate((size_t)tensor->bytes + 1);
  const size_t read = fread(data, 1, (size_t)tensor->bytes + 1, file);
  if (ferror(file)) fail(path, "cannot be read: %s", strerror(errno));
  fclose(file);
  if (read != tensor->bytes) {
    fail(path, "input %s has %llu bytes, and the file holds %s", tensor->name, (unsigned long long)tensor->bytes,
         read < tensor->bytes ? "fewer" : "more");
  }
  return data;
}

void* random_tensor(const Tensor* tensor, uint64_t seed) {
  void* data = allocate((size_t)tensor->bytes);
  const bool single = strcmp(tensor->dtype, "float32") == 0, whole = strcmp(tensor->dtype, "float64") == 0;
  for (uint64_t i = 0; (single || whole) && i < tensor->bytes / (single ? 4 : 8); ++i) {
    uint64_t bits = (seed << 32) + (i + 1) * 0x9E3779B97F4A7C15u; /* splitmix64 */
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9u;
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EBu;
    const double value = (double)(bits >> 40) / (1 << 23) - 1.0; /* 24 bits: exact in float32, too */
    if (single) {
      ((float*)data)[i] = (float)value;
    } else {
      ((double*)data)[i] = value;
    }
  }
  return data;
}

void write_tensor(const Tensor* tensor, const void* data, const char* path) {
  char shape[kMaxRank * 24], header[512];
  write_shape(tensor, shape, sizeof shape);
  int used = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                      kTypes[type_of(tensor->dtype)].descr, shape);
  const int padded = (10 + used + 1 + 63) / 64 * 64 - 10;
  while (used < padded - 1) header[used++] = ' ';
  header[used] = '\n';
  const uint8_t start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)padded, (uint8_t)(padded >> 8)};
  FILE* file = fopen(path, "wb");
  if (file == NULL) fail(path, "cannot be written: %s", strerror(errno));
  bool good = fwrite(start, 1, sizeof start, file) == sizeof start &&
              fwrite(header, 1, (size_t)padded, file) == (size_t)padded &&
              fwrite(data, 1, (size_t)tensor->bytes, file) == tensor->bytes;
  int reason = errno;
  if (fclose(file) != 0 && good) good = false, reason = errno;
  if (!good) {
    unlink(path);
    fail(path, "cannot be written: %s", strerror(reason));
  }
}
