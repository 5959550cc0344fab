/* gpu_bench.c - speed on a GPU as ratios, measured in one run: the router against its floor, linear
 * layers against bare cuBLASLt, padding and split against a device copy. scripts/gpu-bench runs it.
 *
 *   gpu_bench [--only router,linear,context] [--quick] [--tiny] [--rounds N] [--json FILE]
 *             [--torch FILE] [--limit SECONDS] [--list]
 *
 * --list prints the cases that PyTorch is asked for, a key a line; --torch reads such keys, each
 * with the microseconds that PyTorch took (gpu_torch.py); --tiny has shapes for the stand-in for a
 * GPU. Exit status 0 whatever the ratios are, 77 where there is no GPU, 3 after an error. */
#include "gpu_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgrun.h"

enum { NO_GPU = 77, COPY_BYTES = 1 << 30 };

#ifdef PGR_BENCH_LINKED
/* The stand-in's module is in this program, so that its cuBLASLt is the one that a bare call gets.
 */
extern const pgr_module linked_module __asm__("pgr_module");
static pgr_status find_module(const pgr_module **module, pgr_error *error) {
    (void)error;
    *module = &linked_module;
    return PGR_OK;
}
#else
static pgr_status find_module(const pgr_module **module, pgr_error *error) {
    return pgr_module_open("cuda", module, error);
}
#endif

/* ---- the device ---------------------------------------------------------------------------- */

/* False, and a line that says why, where there is no GPU. */
static bool open_device(gpu_bench *bench) {
    const pgr_module *module;
    pgr_error error;
    pgr_device_open_args args = {.local_size = 1, .threads = 1, .host = "this host"};
    pgr_status status = find_module(&module, &error);
    if (status == PGR_OK)
        status = module->device->open(&args, &bench->device, &error);
    if (status != PGR_OK) {
        printf("# skip: no GPU here: %s\n", error.message);
        return false;
    }
    gpu_must(gpu_facts_read(&bench->facts, &error), &error);
    bench->stand_in = strstr(bench->facts.name, "Stand-in") != NULL;
    gpu_must(bench->device->ops->stream_create(bench->device, 0, &bench->stream, &error), &error);
    return true;
}

typedef struct copy_run {
    char *src, *dst;
    int64_t bytes;
} copy_run;

static pgr_status enqueue_copy(gpu_bench *bench, void *context, int64_t i, pgr_error *error) {
    const copy_run *run = context;
    (void)i;
    return bench->device->ops->copy(bench->device, run->dst, run->src, run->bytes, bench->stream,
                                    error);
}

/* The rates that floors are made of. */
static void measure_rates(gpu_bench *bench) {
    pgr_error error;
    copy_run run = {.bytes = bench->tiny ? 4096 : COPY_BYTES};
    gpu_action action = {enqueue_copy, &run, 0};
    gpu_must(gpu_alloc(bench, run.bytes, &run.src, &error), &error);
    gpu_must(gpu_alloc(bench, run.bytes, &run.dst, &error), &error);
    gpu_must(gpu_fill(bench, run.src, "x", 1, run.bytes / 4, PGR_F32, &error), &error);
    gpu_must(gpu_measure(bench, &action, 1, &error), &error);
    gpu_free(bench, run.src);
    gpu_free(bench, run.dst);
    bench->copy_rate = 2e6 * (double)run.bytes / action.us;
    bench->issue_rate = 4.0 * bench->facts.sms * (double)bench->facts.clock_hz;
}

static void print_header(const gpu_bench *bench) {
    const gpu_facts *f = &bench->facts;
    char date[32];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime(&now));
    printf("# gpu_bench of pgrun " PGRUN_VERSION ", %s\n", date);
    if (bench->stand_in)
        printf("# THE DEVICE IS A STAND-IN: there is no GPU, and no number below means anything\n");
    printf("# device   %s, compute capability %d.%d, %d SMs, at most %.0f MHz, L2 %.1f MiB, %.1f "
           "GiB\n",
           f->name, f->major, f->minor, f->sms, 1e-6 * (double)f->clock_hz,
           (double)f->l2_bytes / 1048576, (double)f->memory_bytes / 1073741824);
    printf("# module   %s, cuBLASLt %d, CUDA runtime %d, driver's CUDA %d\n", bench->device->name,
           f->cublaslt, f->runtime, f->driver);
    printf("# method   median of %d rounds by device events, operands rotated through %dx the L2, "
           "ours "
           "and baseline in turns\n",
           bench->rounds, GPU_POOL_OF_L2);
    printf("# rates    copy %.0f GB/s (read and written, %d MiB each), issue %.0f G warp "
           "instructions/s (SMs x 4 x clock)\n",
           1e-9 * bench->copy_rate, COPY_BYTES >> 20, 1e-9 * bench->issue_rate);
    if (bench->json)
        fprintf(bench->json,
                "{\"bench\": \"header\", \"version\": \"" PGRUN_VERSION "\", \"date\": \"%s\", "
                "\"device\": \"%s\", \"stand_in\": %s, \"sms\": %d, \"clock_mhz\": %.0f, "
                "\"l2_bytes\": %lld, \"module\": \"%s\", \"cublaslt\": %d, \"runtime\": %d, "
                "\"driver\": %d, \"rounds\": %d, \"copy_gb_per_s\": %s, \"issue_g_per_s\": %s}\n",
                date, f->name, bench->stand_in ? "true" : "false", f->sms,
                1e-6 * (double)f->clock_hz, (long long)f->l2_bytes, bench->device->name,
                f->cublaslt, f->runtime, f->driver, bench->rounds,
                gpu_json(1e-9 * bench->copy_rate), gpu_json(1e-9 * bench->issue_rate));
}

static void print_footer(const gpu_bench *bench) {
    printf("#\n# aims: %d met, %d missed; %d rows skipped; in %d rounds the host came late\n",
           bench->met, bench->missed, bench->skipped, bench->late);
    if (bench->json)
        fprintf(bench->json,
                "{\"bench\": \"footer\", \"met\": %d, \"missed\": %d, \"skipped\": %d, "
                "\"late_rounds\": %d}\n",
                bench->met, bench->missed, bench->skipped, bench->late);
}

/* ---- the command line ---------------------------------------------------------------------- */

static _Noreturn void wrong(const char *what, const char *value) {
    fprintf(stderr,
            "gpu_bench: %s%s\nusage: gpu_bench [--only router,linear,context] [--quick] [--tiny] "
            "[--rounds N] [--json FILE] [--torch FILE] [--limit SECONDS] [--list]\n",
            what, value);
    exit(2);
}

static FILE *open_file(const char *path, const char *mode) {
    FILE *file = fopen(path, mode);
    if (!file)
        wrong("cannot open ", path);
    return file;
}

static void read_torch(gpu_bench *bench, const char *path) {
    FILE *file = open_file(path, "r");
    char line[256];
    while (bench->torch_count < GPU_TORCH_MAX && fgets(line, sizeof line, file)) {
        gpu_torch *entry = &bench->torch[bench->torch_count];
        /* Other lines are PyTorch's own, or say why there is no number. */
        if (sscanf(line, "%79s %lf", entry->key, &entry->us) == 2 && entry->us > 0)
            bench->torch_count++;
    }
    fclose(file);
}

static const struct part {
    const char *name;
    void (*run)(gpu_bench *bench);
} parts[] = {
    {"router", gpu_bench_router}, {"linear", gpu_bench_linear}, {"context", gpu_bench_context}};

enum { PARTS = sizeof parts / sizeof *parts };

/* "router,linear" as which parts are run. */
static void read_only(const char *names, bool *wanted) {
    memset(wanted, 0, PARTS * sizeof *wanted);
    while (*names) {
        size_t length = strcspn(names, ",");
        int found = -1;
        for (int i = 0; i < PARTS; i++)
            if (strlen(parts[i].name) == length && strncmp(parts[i].name, names, length) == 0)
                found = i;
        if (found < 0)
            wrong("--only takes router, linear and context, not ", names);
        wanted[found] = true;
        names += length + (names[length] == ',');
    }
}

static void read_words(gpu_bench *bench, char **words, bool *wanted) {
    for (; *words; words++) {
        const char *word = *words, *value = words[1];
        if (strcmp(word, "--quick") == 0)
            bench->quick = true;
        else if (strcmp(word, "--tiny") == 0)
            bench->tiny = true;
        else if (strcmp(word, "--list") == 0)
            bench->list = true;
        else if (!value)
            wrong("unknown, or without its value: ", word);
        else if (strcmp(word, "--only") == 0)
            read_only(value, wanted), words++;
        else if (strcmp(word, "--limit") == 0)
            bench->limit = atof(value), words++;
        else if (strcmp(word, "--rounds") == 0)
            bench->rounds = atoi(value), words++;
        else if (strcmp(word, "--json") == 0)
            bench->json = open_file(value, "w"), words++;
        else if (strcmp(word, "--torch") == 0)
            read_torch(bench, value), words++;
        else
            wrong("unknown: ", word);
    }
    if (bench->rounds < 1 || bench->rounds > GPU_ROUNDS_MAX)
        wrong("--rounds takes 1 to 64", "");
}

int main(int count, char **words) {
    static gpu_bench bench = {.rounds = 31, .limit = -1};
    double started = pgr_clock_seconds();
    bool wanted[PARTS] = {true, true, true};
    (void)count;
    read_words(&bench, words + 1, wanted);
    if (!bench.list) {
        if (!open_device(&bench))
            return NO_GPU;
        gpu_measure_open(&bench);
        measure_rates(&bench);
        print_header(&bench);
        if (bench.limit >= 0)
            bench.end = started + bench.limit;
    }
    for (int i = 0; i < PARTS; i++)
        if (wanted[i])
            parts[i].run(&bench);
    if (!bench.list) {
        print_footer(&bench);
        gpu_measure_close(&bench);
        bench.device->ops->stream_free(bench.device, bench.stream);
        bench.device->ops->close(bench.device);
    }
    return bench.json && fclose(bench.json) != 0 ? 3 : 0;
}
