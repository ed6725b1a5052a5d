/*
 * What a model makes of its weights once, before the first run, since the file would be many times larger with it.
 */
#include <string.h>

#include "abi.h"

/* Results are gathered in a buffer of the first cache's size and leave it in runs: their places in memory are apart by
 * powers of two, which would throw one another out of every cache. */
enum { kWide = 8, kNarrow = 4, kMaxSize = 8, kBuffer = 8192 };

/* G g G^T of the filters of `step` output channels and one input channel; in double within. Elements of a filter are
 * `lanes` floats apart, those of a transformed tile `stride`. */
__attribute__((always_inline)) static inline void transform_filters(const float* restrict source,
                                                                    float* restrict result, int64_t stride,
                                                                    const Winograd* w, const int step) {
  const double* m = w->matrix;
  const int64_t size = w->size;
  double g[9][kWide], columns[kMaxSize][3][kWide];
  for (int k = 0; k < 9; ++k) {
    for (int v = 0; v < step; ++v) g[k][v] = source[k * w->lanes + v];
  }
  for (int64_t a = 0; a < size; ++a) {
    const double x = m[3 * a], y = m[3 * a + 1], z = m[3 * a + 2];
    for (int j = 0; j < 3; ++j) {
      for (int v = 0; v < step; ++v) columns[a][j][v] = x * g[j][v] + y * g[3 + j][v] + z * g[6 + j][v];
    }
  }
  for (int64_t a = 0; a < size; ++a) {
    for (int64_t b = 0; b < size; ++b, result += stride) {
      const double x = m[3 * b], y = m[3 * b + 1], z = m[3 * b + 2];
      double(*c)[kWide] = columns[a];
      for (int v = 0; v < step; ++v) result[v] = (float)(x * c[0][v] + y * c[1][v] + z * c[2][v]);
    }
  }
}

static void transform_lanes(const float* source, float* result, int64_t stride, const Winograd* w) {
  int64_t v = 0;
  for (; v + kWide <= w->lanes; v += kWide) transform_filters(source + v, result + v, stride, w, kWide);
  for (; v < w->lanes; v += kNarrow) transform_filters(source + v, result + v, stride, w, kNarrow);
}

typedef struct {
  const float* source;
  float* result;
  const Winograd* winograd;
} Job;

static int winograd_task(int task_id, TVMParallelGroupEnv* env, void* data) {
  const Job* job = data;
  const Winograd* w = job->winograd;
  const int64_t elements = w->size * w->size, room = kBuffer / (elements * w->lanes), tasks = env->num_task;
  const int64_t end = w->blocks * w->channels * (task_id + 1) / tasks;
  float buffer[kBuffer];
  for (int64_t k = w->blocks * w->channels * task_id / tasks, count; k < end; k += count) {
    const int64_t block = k / w->channels, channel = k % w->channels;
    count = w->channels - channel < end - k ? w->channels - channel : end - k;
    if (count > room) count = room;
    for (int64_t i = 0; i < count; ++i) {
      transform_lanes(job->source + (k + i) * 9 * w->lanes, buffer + i * w->lanes, count * w->lanes, w);
    }
    for (int64_t e = 0; e < elements; ++e) {
      float* at = job->result + block * w->block_stride + channel * w->channel_stride + e * w->element_stride;
      for (int64_t i = 0; i < count; ++i) {
        memcpy(at + i * w->channel_stride, buffer + (e * count + i) * w->lanes, (size_t)w->lanes * sizeof(float));
      }
    }
  }
  return 0;
}

int32_t evo_winograd_weights(const float* source, float* result, const Winograd* winograd) {
  if (winograd->size > kMaxSize || winograd->size * winograd->size * winograd->lanes > kBuffer) return kErrorTooLarge;
  Job job = {source, result, winograd};
  return TVMBackendParallelLaunch(winograd_task, &job, 0);
}
