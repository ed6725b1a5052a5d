/*
 * evo-run: loads, runs and times a compiled model on a machine that has neither Python nor TVM. C11, with libc, libm
 * and pthread on Linux only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "library.h"
#include "report.h"

static const char kUsage[] =
    "Usage: evo-run [OPTIONS] MODEL.evo\n"
    "       evo-run --cpu\n"
    "\n"
    "Runs a model that evo-tvm compiled for this machine, and times it.\n"
    "\n"
    "  --input [NAME=]FILE  an input: .npy, or its bare bytes; in the model's order where no names are given.\n"
    "                       Without one: numbers from -1 to 1, always the same; zeros where they are not floats.\n"
    "  --output DIR         write every output to DIR/NAME.npy\n"
    "  --budget SHARE       gates take at most this share of the time without gates, by the model's own curve\n"
    "  --threads N          threads that run the model [as it was compiled for]\n"
    "  --repeat N           timed runs; 0 runs the model once and times nothing [10]\n"
    "  --warmup N           runs before those [3]\n"
    "  --profile            the time of each kernel, too\n"
    "  --json               print JSON\n"
    "  --cpu                print what to compile for, as evo-tvm --target takes it\n";

typedef struct {
  const char *model, *output;
  const char** inputs;
  int num_inputs, threads, repeat, warmup;
  double budget; /* 0: none */
  bool profile, json, cpu;
} Options;

/* ---- The command line ------------------------------------------------------------------------------------------- */

_Noreturn static void misuse(const char* what, const char* argument) {
  fprintf(stderr, "evo-run: %s%s\nTry: evo-run --help\n", what, argument);
  exit(2);
}

static int number_of(const char* option, const char* text, long least, long most) {
  char* end;
  errno = 0;
  const long value = strtol(text, &end, 10);
  if (end == text || *end != '\0' || errno != 0 || value < least || value > most) {
    fprintf(stderr, "evo-run: %s takes a number from %ld to %ld, not '%s'\n", option, least, most, text);
    exit(2);
  }
  return (int)value;
}

static double share_of(const char* option, const char* text) {
  char* end;
  const double value = strtod(text, &end);
  if (end == text || *end != '\0' || !(value > 0)) {
    fprintf(stderr, "evo-run: %s takes a number above 0, not '%s'\n", option, text);
    exit(2);
  }
  return value;
}

static Options read_options(int count, char** arguments) {
  Options options = {.repeat = 10, .warmup = 3, .inputs = allocate((size_t)count * sizeof(char*))};
  for (int i = 1; i < count; ++i) {
    const char *option = arguments[i], *value = arguments[i + 1]; /* the last is NULL */
    if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0) {
      fputs(kUsage, stdout);
      exit(0);
    }
    bool* const flag = strcmp(option, "--profile") == 0 ? &options.profile
                       : strcmp(option, "--json") == 0  ? &options.json
                       : strcmp(option, "--cpu") == 0   ? &options.cpu
                                                        : NULL;
    if (flag != NULL) {
      *flag = true;
    } else if (option[0] != '-') {
      if (options.model != NULL) misuse("one model at a time, not also ", option);
      options.model = option;
    } else if (value == NULL) {
      misuse("unknown option, or its value is missing: ", option);
    } else if (++i, strcmp(option, "--input") == 0) {
      options.inputs[options.num_inputs++] = value;
    } else if (strcmp(option, "--output") == 0) {
      options.output = value;
    } else if (strcmp(option, "--budget") == 0) {
      options.budget = share_of(option, value);
    } else if (strcmp(option, "--threads") == 0) {
      options.threads = number_of(option, value, 1, kMaxThreads);
    } else if (strcmp(option, "--repeat") == 0) {
      options.repeat = number_of(option, value, 0, 1000000);
    } else if (strcmp(option, "--warmup") == 0) {
      options.warmup = number_of(option, value, 0, 1000000);
    } else {
      misuse("unknown option: ", option);
    }
  }
  if (options.model == NULL && !options.cpu) misuse("which model?", "");
  return options;
}

/* The target that fits this CPU best, as far as the CPU says: "aarch64-linux-gnu+dotprod". */
static void print_cpu(void) {
  static const char* const base[] = {"fp-armv8", "neon", "64bit", "m", "a", "f", "d", "c", "zvl32b", "zvl64b"};
  printf("%s-linux-gnu%s", cpu_arch, strcmp(cpu_arch, "armv7a") == 0 ? "eabihf" : "");
  for (const char* const* feature = cpu_features(); *feature != NULL; ++feature) {
    bool implied = strncmp(*feature, "vlen", 4) == 0; /* what a model needs, and no target's feature */
    for (size_t i = 0; i < sizeof base / sizeof *base; ++i) implied = implied || strcmp(base[i], *feature) == 0;
    if (!implied) printf("+%s", *feature);
  }
  putchar('\n');
}

/* ---- Inputs and outputs ----------------------------------------------------------------------------------------- */

/* The file of each input of the model; NULL where none was given. */
static const char** input_files(const Options* options, const Model* model) {
  const char** files = allocate(((size_t)model->num_inputs + 1) * sizeof(char*));
  int next = 0;
  for (int i = 0; i < options->num_inputs; ++i) {
    int which = -1;
    const char* file = options->inputs[i];
    for (int k = 0; k < model->num_inputs && which < 0; ++k) {
      const size_t length = strlen(model->inputs[k].name);
      if (strncmp(file, model->inputs[k].name, length) == 0 && file[length] == '=') which = k, file += length + 1;
    }
    if (which < 0) which = next++;
    if (which >= model->num_inputs) fail(model->path, "it has %d inputs, so not also %s", model->num_inputs, file);
    if (files[which] != NULL) fail(model->path, "input %s is given twice", model->inputs[which].name);
    files[which] = file;
  }
  for (int k = 0; k < model->num_inputs && options->num_inputs > 0; ++k) {
    if (files[k] == NULL) fail(model->path, "input %s is missing", model->inputs[k].name);
  }
  return files;
}

/* FOLDER/NAME.npy, with what a file's name cannot have replaced. */
static char* output_file(const char* folder, const char* name) {
  const size_t size = strlen(folder) + strlen(name) + 8;
  char* path = allocate(size);
  snprintf(path, size, "%s/%s.npy", folder, name);
  for (char* at = path + strlen(folder) + 1; *at != '\0'; ++at) {
    if (*at == '/') *at = '_';
  }
  return path;
}

static const char** write_outputs(const char* folder, const Model* model, void* const* outputs) {
  const char** files = allocate(((size_t)model->num_outputs + 1) * sizeof(char*));
  if (folder == NULL) return files;
  if (mkdir(folder, 0777) != 0 && errno != EEXIST) fail(folder, "cannot be made: %s", strerror(errno));
  for (int i = 0; i < model->num_outputs; ++i) {
    files[i] = output_file(folder, model->outputs[i].name);
    write_tensor(&model->outputs[i], outputs[i], files[i]);
  }
  return files;
}

/* ---- Measuring -------------------------------------------------------------------------------------------------- */

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void measure(Report* report, const Library* library, void* const* inputs, void* const* outputs, bool profile) {
  const int kernels = report->model->num_kernels, repeat = report->repeat;
  double* samples = allocate((size_t)repeat * sizeof(double));
  uint64_t* ticks = profile ? allocate((size_t)repeat * ((size_t)kernels + 1) * sizeof(uint64_t)) : NULL;
  for (int i = 0; i < report->warmup; ++i) run_library(library, inputs, outputs, NULL);
  for (int i = 0; i < repeat; ++i) {
    const double before = now_ms();
    run_library(library, inputs, outputs, profile ? ticks + (size_t)i * ((size_t)kernels + 1) : NULL);
    samples[i] = now_ms() - before;
  }
  report->samples_ms = samples;
  report->whole = summarize(samples, repeat);
  if (!profile) return;
  Summary* summaries = allocate(((size_t)kernels + 1) * sizeof(Summary));
  double* times = allocate((size_t)repeat * sizeof(double));
  for (int k = 0; k < kernels; ++k) {
    for (int i = 0; i < repeat; ++i) {
      const uint64_t* at = ticks + (size_t)i * ((size_t)kernels + 1) + k;
      times[i] = (double)(at[1] - at[0]) / 1e6;
    }
    summaries[k] = summarize(times, repeat);
  }
  report->kernels = summaries;
}

int main(int count, char** arguments) {
  const Options options = read_options(count, arguments);
  if (options.cpu) {
    print_cpu();
    return 0;
  }
  const Model model = read_model(options.model);
  check_cpu(&model);
  Report report = {.model = &model, .repeat = options.repeat, .warmup = options.warmup};
  report.threads = options.threads > 0 ? options.threads : (int)model.num_threads;
  report.input_files = input_files(&options, &model);
  void** inputs = allocate(((size_t)model.num_inputs + 1) * sizeof(void*));
  void** outputs = allocate(((size_t)model.num_outputs + 1) * sizeof(void*));
  for (int i = 0; i < model.num_inputs; ++i) {
    const char* file = report.input_files[i];
    inputs[i] = file != NULL ? read_tensor(&model.inputs[i], file) : random_tensor(&model.inputs[i], (uint64_t)i);
  }
  for (int i = 0; i < model.num_outputs; ++i) outputs[i] = allocate((size_t)model.outputs[i].bytes);
  const Library library = open_library(&model, report.threads);
  if (options.budget > 0) report.point = set_budget(&library, &model, options.budget);
  run_library(&library, inputs, outputs, NULL);
  uint32_t* crcs = allocate(((size_t)model.num_outputs + 1) * sizeof(uint32_t));
  for (int i = 0; i < model.num_outputs; ++i) crcs[i] = crc32(outputs[i], (size_t)model.outputs[i].bytes);
  report.output_crcs = crcs;
  report.output_files = write_outputs(options.output, &model, outputs);
  if (report.repeat > 0) measure(&report, &library, inputs, outputs, options.profile);
  (options.json ? print_json : print_text)(&report);
  if (fflush(stdout) != 0 || ferror(stdout)) fail(NULL, "the output could not be written: %s", strerror(errno));
  return 0;
}
