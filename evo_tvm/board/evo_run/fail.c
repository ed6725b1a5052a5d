/* How a run ends early, and memory that ends it where there is none. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "evo_run.h"

_Noreturn void fail(const char* where, const char* what, ...) {
  va_list arguments;
  va_start(arguments, what);
  fflush(stdout);
  fprintf(stderr, "evo-run: %s%s", where != NULL ? where : "", where != NULL ? ": " : "");
  vfprintf(stderr, what, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

void* allocate(size_t bytes) {
  void* data = NULL;
  if (bytes > SIZE_MAX - kAlign || posix_memalign(&data, kAlign, bytes + kAlign - bytes % kAlign) != 0) {
    fail(NULL, "this machine has no %llu MB of memory left", (unsigned long long)bytes >> 20);
  }
  return memset(data, 0, bytes);
}
