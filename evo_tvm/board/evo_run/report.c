/* What was measured, for people and as JSON. */
#include "report.h"

#include <stdlib.h>
#include <string.h>

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

/* The value at `percent` of sorted values, interpolated between neighbours. */
static double percentile(const double* sorted, int number, double percent) {
  const double position = (number - 1) * percent / 100;
  const int below = (int)position, above = below + 1 < number ? below + 1 : below;
  return sorted[below] + (sorted[above] - sorted[below]) * (position - below);
}

Summary summarize(const double* samples_ms, int number) {
  double* sorted = allocate((size_t)number * sizeof(double));
  memcpy(sorted, samples_ms, (size_t)number * sizeof(double));
  qsort(sorted, (size_t)number, sizeof(double), ascending);
  Summary result = {sorted[0], percentile(sorted, number, 50), percentile(sorted, number, 90),
                    percentile(sorted, number, 99)};
  free(sorted);
  return result;
}

static void print_shape(FILE* file, const Tensor* tensor, const char* between) {
  for (int i = 0; i < tensor->rank; ++i) {
    fprintf(file, "%s%llu", i > 0 ? between : "", (unsigned long long)tensor->shape[i]);
  }
}

static void print_tensor(const char* role, const Tensor* tensor, const char* source) {
  printf("%-7s %s  %s ", role, tensor->name, tensor->dtype);
  print_shape(stdout, tensor, "x");
  printf("  %s", source);
}

void print_text(const Report* report) {
  const Model* model = report->model;
  printf("%s: for %s (%s), compiled by evo_tvm %s\n", model->path, model->target, model->triple, model->compiler);
  for (int i = 0; i < model->num_inputs; ++i) {
    print_tensor("input", &model->inputs[i], report->input_files[i] != NULL ? report->input_files[i] : "made up");
    putchar('\n');
  }
  for (int i = 0; i < model->num_outputs; ++i) {
    print_tensor("output", &model->outputs[i], "crc32 ");
    printf("%08x", report->output_crcs[i]);
    if (report->output_files[i] != NULL) printf("  %s", report->output_files[i]);
    putchar('\n');
  }
  if (report->point != NULL) {
    printf("gates   for %.3f of the time without gates, accuracy %.4f\n", report->point->latency,
           report->point->accuracy);
  }
  if (report->repeat == 0) return;
  const Summary whole = report->whole;
  printf("latency %.3f ms median, %.3f min, %.3f p90, %.3f p99 (%d runs after %d, %d thread%s)\n", whole.median_ms,
         whole.min_ms, whole.p90_ms, whole.p99_ms, report->repeat, report->warmup, report->threads,
         report->threads > 1 ? "s" : "");
  if (report->kernels == NULL) return;
  printf("\n%10s %10s  %s\n", "min ms", "median ms", "kernel");
  for (int i = 0; i < model->num_kernels; ++i) {
    const Kernel* kernel = &model->kernels[i];
    printf("%10.4f %10.4f  %s  %s  %s\n", report->kernels[i].min_ms, report->kernels[i].median_ms, kernel->layer,
           kernel->operator, kernel->algorithm);
  }
}

static void json_field(const char* name, const char* text, const char* after) {
  printf("\"%s\": ", name);
  if (text != NULL) {
    json_write_text(stdout, text);
  } else {
    printf("null");
  }
  printf("%s", after);
}

static void json_tensor(const Tensor* tensor, const char* file) {
  printf("\n  {");
  json_field("name", tensor->name, ", ");
  json_field("dtype", tensor->dtype, ", \"shape\": [");
  print_shape(stdout, tensor, ", ");
  printf("], ");
  json_field("file", file, "");
}

static void json_summary(Summary summary) {
  printf("\"min_ms\": %.6f, \"median_ms\": %.6f, \"p90_ms\": %.6f, \"p99_ms\": %.6f", summary.min_ms, summary.median_ms,
         summary.p90_ms, summary.p99_ms);
}

void print_json(const Report* report) {
  const Model* model = report->model;
  printf("{");
  json_field("model", model->path, ",\n ");
  json_field("evo_tvm", model->compiler, ",\n ");
  json_field("target", model->target, ",\n ");
  json_field("triple", model->triple, ",\n ");
  printf("\"threads\": %d,\n \"inputs\": [", report->threads);
  for (int i = 0; i < model->num_inputs; ++i) {
    json_tensor(&model->inputs[i], report->input_files[i]);
    printf("}%s", i + 1 < model->num_inputs ? "," : "");
  }
  printf("],\n \"outputs\": [");
  for (int i = 0; i < model->num_outputs; ++i) {
    json_tensor(&model->outputs[i], report->output_files[i]);
    printf(", \"crc32\": \"%08x\"}%s", report->output_crcs[i], i + 1 < model->num_outputs ? "," : "");
  }
  printf("]");
  if (report->point != NULL) {
    printf(",\n \"gates\": {\"latency\": %.6g, \"accuracy\": %.6g}", report->point->latency, report->point->accuracy);
  }
  if (report->repeat > 0) {
    printf(",\n \"warmup\": %d,\n ", report->warmup);
    json_summary(report->whole);
    printf(",\n \"samples_ms\": [");
    for (int i = 0; i < report->repeat; ++i) printf("%s%.6f", i > 0 ? ", " : "", report->samples_ms[i]);
    printf("]");
  }
  if (report->kernels != NULL) {
    printf(",\n \"kernels\": [");
    for (int i = 0; i < model->num_kernels; ++i) {
      printf("\n  {");
      json_field("layer", model->kernels[i].layer, ", ");
      json_field("operator", model->kernels[i].operator, ", ");
      json_field("algorithm", model->kernels[i].algorithm, ", ");
      json_summary(report->kernels[i]);
      printf("}%s", i + 1 < model->num_kernels ? "," : "");
    }
    printf("]");
  }
  printf("}\n");
}
