/* How gates decide: what the generated model.c of a model with gates calls. */
#ifndef EVO_TVM_EXECUTOR_GATES_H_
#define EVO_TVM_EXECUTOR_GATES_H_

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Infinite thresholds force a decision, whatever the score. */
static inline int32_t gate_exceeds(float score, float threshold) {
  if (threshold == -INFINITY) return 1;
  if (threshold == INFINITY) return 0;
  return score > threshold;
}

/* One decision for each logit, which is its score, by a threshold of its own. counts: decisions so far, and those that
 * were 1. */
static inline void gate_each(const float* logits, int32_t count, const float* thresholds, float* scores,
                             int32_t* decisions, uint64_t* counts) {
  for (int32_t i = 0; i < count; ++i) {
    scores[i] = logits[i];
    counts[1] += (uint64_t)(decisions[i] = gate_exceeds(logits[i], thresholds[i]));
  }
  counts[0] += (uint64_t)count;
}

/* Spreads `count` decisions over channels, of each 1 or 0. */
static inline void gate_mask(const int32_t* decisions, int32_t count, float* mask, int32_t channels) {
  const int32_t block = (channels + count - 1) / count;
  for (int32_t i = 0; i < channels; ++i) mask[i] = decisions[i / block] ? 1.0f : 0.0f;
}

/* One decision: its score is the greatest softmax of the logits. */
static inline void gate_exit(const float* logits, int32_t count, const float* threshold, float* score,
                             int32_t* decision, uint64_t* counts) {
  float largest = logits[0], sum = 0;
  for (int32_t i = 1; i < count; ++i) {
    if (logits[i] > largest) largest = logits[i];
  }
  for (int32_t i = 0; i < count; ++i) sum += expf(logits[i] - largest);
  *score = 1 / sum;
  counts[1] += (uint64_t)(*decision = gate_exceeds(*score, *threshold));
  ++counts[0];
}

/* `down` by `across` tiles. */
typedef struct {
  int32_t down, across;
} GateShape;

/* Tiles from one on, of the shape that has this number. */
typedef struct {
  int32_t row, column, shape;
} GateRectangle;

static inline int32_t gate_all(const int32_t* on, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    if (!on[i]) return 0;
  }
  return 1;
}

/* Covers the tiles that are on with rectangles, each tile once: of each shape in turn as many as there is room for, so
 * the largest shall come first and a single tile last. How many they are. */
static inline int32_t gate_rectangles(const int32_t* on, int32_t rows, int32_t columns, const GateShape* shapes,
                                      int32_t count, GateRectangle* found) {
  int32_t many = 0;
  int32_t left[rows * columns];
  memcpy(left, on, sizeof left);
  for (int32_t s = 0; s < count; ++s) {
    for (int32_t r = 0; r + shapes[s].down <= rows; ++r) {
      for (int32_t c = 0; c + shapes[s].across <= columns; ++c) {
        int32_t* at = left + r * columns + c;
        int32_t free = 1;
        for (int32_t i = 0; i < shapes[s].down && free; ++i) free = gate_all(at + i * columns, shapes[s].across);
        if (!free) continue;
        for (int32_t i = 0; i < shapes[s].down; ++i) memset(at + i * columns, 0, (size_t)shapes[s].across * sizeof *at);
        found[many++] = (GateRectangle){r, c, s};
      }
    }
  }
  return many;
}

/* Where a rectangle of `size` pixels begins that holds tile `tile` with its margin and lies within `whole` pixels. */
static inline int64_t gate_origin(int32_t tile, int32_t side, int32_t margin, int32_t size, int32_t whole) {
  int32_t at = tile * side - margin;
  if (at > whole - size) at = whole - size;
  return at < 0 ? 0 : at;
}

/* Zeros in the tiles that are off, those beside each other at once. */
static inline void gate_clear(uint8_t* image, int32_t planes, int64_t plane, int64_t row, int64_t pixel,
                              const int32_t* on, int32_t rows, int32_t columns, int32_t side) {
  for (int32_t p = 0; p < planes; ++p, image += plane) {
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t begin = 0, end; begin < columns; begin = end + 1) {
        for (end = begin; end < columns && !on[r * columns + end]; ++end) continue;
        uint8_t* at = image + r * side * row + begin * side * pixel;
        const size_t bytes = (size_t)((end - begin) * side * pixel);
        for (int32_t y = 0; y < side && end > begin; ++y) memset(at + y * row, 0, bytes);
      }
    }
  }
}

#endif
