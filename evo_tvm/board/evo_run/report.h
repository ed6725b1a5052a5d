/* What was measured, for people and as JSON. */
#ifndef EVO_TVM_BOARD_REPORT_H_
#define EVO_TVM_BOARD_REPORT_H_

#include "evo_run.h"

typedef struct {
  double min_ms, median_ms, p90_ms, p99_ms;
} Summary;

typedef struct {
  const Model* model;
  const CurvePoint* point; /* that gates work at; NULL: as they were compiled */
  int threads, repeat, warmup;
  const char *const *input_files, *const *output_files; /* NULL where there is none */
  const uint32_t* output_crcs;
  const double* samples_ms; /* of whole runs, `repeat` of them */
  Summary whole;
  const Summary* kernels; /* NULL where they were not measured */
} Report;

/* Percentiles are interpolated between neighbours, as numpy does. */
Summary summarize(const double* samples_ms, int number);
void print_text(const Report* report);
void print_json(const Report* report);

#endif
