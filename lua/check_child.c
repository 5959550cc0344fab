/* check_child.c - evaluates one config in a child process. A config comes from a pull request: it
 * may loop where no count sees it, or break the interpreter, and the parent must report that and go
 * on. So the child has limits that the kernel enforces and no files, and what it says is read as
 * bytes. */
#include "check_report.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILD_CPU_SECONDS 2            /* of processor time */
#define CHILD_CPU_US 1800000           /* the timer that comes first, so that 2 s are kept */
#define CHILD_WALL_SECONDS 30.0        /* for a machine that gives the child no time */
#define CHILD_MEMORY ((rlim_t)1 << 30) /* bytes of address space */
#define CHILD_FINDINGS 256             /* told of one config: the worst */
#define HELP_LIMIT "a config is a table and a little arithmetic; take out what loops or grows"
#define HELP_MEMORY "the config was not checked; check it again where more memory is free"
#define CHILD_MAGIC UINT64_C(0x50475243484b3031)

/* What the child sends: one header, then `count` records. The same program wrote it, so the layout
 * is ours; its content is not trusted. */
typedef struct child_header {
    uint64_t magic;
    int64_t world_size;
    int64_t count;
    int32_t status; /* a pgr_status; not PGR_OK: `message` says why and no records follow */
    char message[1024];
} child_header;

typedef struct child_record {
    char code[8];
    int32_t place_count;
    char message[sizeof((pgr_diagnostic *)0)->message];
    char help[sizeof((pgr_diagnostic *)0)->help];
    pgr_check_location places[PGR_DIAGNOSTIC_PATHS];
} child_record;

typedef struct child_task {
    const pgr_check_choice *choice;
    const char *name, *text;
    size_t bytes;
    int64_t world_size;
} child_task;

/* ---- the child ---- */

static void limit(int resource, rlim_t soft, rlim_t hard) {
    struct rlimit now;
    if (getrlimit(resource, &now) != 0)
        return;
    now.rlim_max = now.rlim_max < hard ? now.rlim_max : hard;
    now.rlim_cur = now.rlim_max < soft ? now.rlim_max : soft;
    setrlimit(resource, &now);
}

/* Ends this process by SIGPROF after so much processor time. The clock is the exact one of the
 * scheduler; an interval timer counts ticks, of which a loaded machine loses some. */
static void start_timer(int64_t us) {
    struct sigevent ends = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
    struct itimerspec after = {.it_value = {us / 1000000, us % 1000000 * 1000}};
    timer_t timer;
    signal(SIGPROF, SIG_DFL);
    if (timer_create(CLOCK_PROCESS_CPUTIME_ID, &ends, &timer) == 0)
        timer_settime(timer, 0, &after, NULL);
}

static void limit_child(void) {
    signal(SIGXCPU, SIG_DFL);
    start_timer(CHILD_CPU_US);
    limit(RLIMIT_CPU, CHILD_CPU_SECONDS, CHILD_CPU_SECONDS + 1);
    limit(RLIMIT_CORE, 0, 0);
    limit(RLIMIT_FSIZE, 0, 0);
    limit(RLIMIT_NOFILE, 0, 0);    /* nothing more can be opened */
#if !defined(__SANITIZE_ADDRESS__) /* which maps terabytes that it never uses */
    limit(RLIMIT_AS, CHILD_MEMORY, CHILD_MEMORY);
#endif
}

static bool send_bytes(int pipe, const void *bytes, size_t count) {
    const char *at = bytes;
    while (count > 0) {
        ssize_t sent = write(pipe, at, count);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        count -= (size_t)sent;
    }
    return true;
}

/* The value comes from --set: what the file says there is not what is meant. */
static bool given_by_set(const pgr_check_choice *choice, const char *path) {
    for (int i = 0; i < choice->set_count; i++) {
        size_t length = strcspn(choice->sets[i], "=");
        if (strncmp(choice->sets[i], path, length) == 0 &&
            (path[length] == '\0' || path[length] == '[' || path[length] == '.'))
            return true;
    }
    return false;
}

/* What gives the value instead of the file, or 0. --world-size rules over --set, but where the
 * file's own value cannot be read, it is that which is meant. */
static int32_t given_by(const child_task *task, const char *code, const char *path) {
    if (task->world_size != PGR_NIL && strcmp(code, "PG010") >= 0 &&
        strcmp(path, "world_size") == 0)
        return PGR_SET_BY_WORLD_SIZE;
    return given_by_set(task->choice, path) ? PGR_SET_BY_SET : 0;
}

static void fill_place(const child_task *task, const char *code, const pgr_location *at,
                       pgr_check_location *place) {
    memcpy(place->path, at->path, sizeof place->path);
    place->set = given_by(task, code, at->path);
    bool in_file = at->line > 0 && at->column > 0 && !place->set;
    place->line = in_file ? at->line : 0;
    place->column = in_file ? at->column : 0;
    place->written = at->written;
    place->computed = at->computed;
    /* Here and not in the parent: what a long file costs counts against the child's limits. */
    pgr_check_source(place, task->text, task->bytes);
}

/* Findings of `list` as records, with the places that the reader of the file knows. */
static bool send_findings(int pipe, const child_task *task, const pgr_diagnostics *list,
                          const pgr_locations *places, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const pgr_diagnostic *found = &list->items[i];
        const pgr_finding_locations *at = i < places->count ? &places->items[i] : NULL;
        child_record record;
        memset(&record, 0, sizeof record);
        snprintf(record.code, sizeof record.code, "%s", found->rule ? found->rule->code : "");
        memcpy(record.message, found->message, sizeof record.message);
        memcpy(record.help, found->help, sizeof record.help);
        record.place_count = at ? at->count : 0;
        for (int32_t k = 0; k < record.place_count; k++)
            fill_place(task, record.code, &at->items[k], &record.places[k]);
        if (!send_bytes(pipe, &record, sizeof record))
            return false;
    }
    return true;
}

/* Reads, plans and checks the config; the answer goes into the pipe. */
static bool run_child(int pipe, const child_task *task) {
    static pgr_error error;
    static child_header header = {.magic = CHILD_MAGIC, .world_size = PGR_NIL};
    pgr_diagnostics found = {0};
    pgr_locations places = {0};
    pgr_status status = pgr_config_diagnose(task->name, task->text, task->bytes, task->choice->sets,
                                            task->choice->set_count, task->world_size,
                                            &header.world_size, &found, &places, &error);
    header.status = (int32_t)status;
    header.count = status != PGR_OK               ? 0
                   : found.count < CHILD_FINDINGS ? found.count
                                                  : CHILD_FINDINGS;
    if (status != PGR_OK)
        snprintf(header.message, sizeof header.message, "%.1000s",
                 status == PGR_LIMIT ? pgr_check_reason(error.message, task->name) : error.message);
    return send_bytes(pipe, &header, sizeof header) &&
           send_findings(pipe, task, &found, &places, header.count);
}

/* ---- the parent ---- */

/* Everything that the child says, up to the size of the longest true answer. */
typedef struct answer {
    char *bytes;
    size_t count;
} answer;

/* Reads until the child closes the pipe. PGR_LIMIT where memory is short, PGR_TIMEOUT where the
 * child takes too long, says too much or cannot be heard. */
static pgr_status read_answer(int pipe, answer *said) {
    const size_t most = sizeof(child_header) + CHILD_FINDINGS * sizeof(child_record);
    size_t room = 16 * 1024;
    double end = pgr_clock_seconds() + CHILD_WALL_SECONDS;
    said->bytes = malloc(room);
    said->count = 0;
    while (said->bytes) {
        if (said->count > most)
            return PGR_TIMEOUT;
        if (said->count == room) {
            room = 4 * room > most ? most + 1 : 4 * room;
            void *grown = realloc(said->bytes, room);
            if (!grown)
                return PGR_LIMIT;
            said->bytes = grown;
        }
        struct pollfd wait = {.fd = pipe, .events = POLLIN};
        double left = end - pgr_clock_seconds();
        int ready = left <= 0 ? 0 : poll(&wait, 1, (int)(left * 1000) + 1);
        if (ready == 0)
            return PGR_TIMEOUT;
        ssize_t got = ready < 0 ? -1 : read(pipe, said->bytes + said->count, room - said->count);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? PGR_OK : PGR_TIMEOUT;
        said->count += (size_t)got;
    }
    return PGR_LIMIT;
}

/* A place as it may be printed, whatever the bytes say. */
static void take_place(pgr_check_location *place) {
    place->path[sizeof place->path - 1] = '\0';
    place->source[sizeof place->source - 1] = '\0';
    pgr_check_clean(place->path);
    pgr_check_clean(place->source);
    bool known = place->line > 0 && place->column > 0 && place->text_column > 0;
    if (!known)
        place->line = place->column = place->text_column = 0;
    if (place->caret < 0 || place->caret >= PGR_SOURCE_BYTES)
        place->caret = 0;
    if (place->caret_width < 0 || place->caret_width >= PGR_SOURCE_BYTES)
        place->caret_width = 0;
}

/* The record as a finding. PGR_INVALID where it is none, PGR_LIMIT where memory is short. */
static pgr_status take_record(child_record *record, pgr_check_entry *entry) {
    record->code[sizeof record->code - 1] = '\0';
    record->message[sizeof record->message - 1] = '\0';
    record->help[sizeof record->help - 1] = '\0';
    if (record->place_count < 0 || record->place_count > PGR_DIAGNOSTIC_PATHS ||
        !pgr_rule_find(record->code))
        return PGR_INVALID;
    pgr_check_finding *finding = pgr_check_add(entry, record->code, record->message, record->help);
    if (!finding)
        return PGR_LIMIT;
    finding->location_count = record->place_count;
    for (int32_t i = 0; i < record->place_count; i++) {
        take_place(&record->places[i]);
        finding->locations[i] = record->places[i];
    }
    return PGR_OK;
}

/* The same for all that the child said. */
static pgr_status take_answer(const child_task *task, const answer *said, child_header *header,
                              pgr_check_entry *entry) {
    pgr_status status = PGR_OK;
    if (said->count < sizeof *header)
        return PGR_INVALID;
    memcpy(header, said->bytes, sizeof *header);
    header->message[sizeof header->message - 1] = '\0';
    if (header->magic != CHILD_MAGIC || header->count < 0 || header->count > CHILD_FINDINGS ||
        header->status < PGR_OK || header->status > PGR_INTERNAL ||
        said->count != sizeof *header + (size_t)header->count * sizeof(child_record))
        return PGR_INVALID;
    for (int64_t i = 0; i < header->count && status == PGR_OK; i++) {
        child_record record;
        memcpy(&record, said->bytes + sizeof *header + (size_t)i * sizeof record, sizeof record);
        status = take_record(&record, entry);
    }
    bool chosen = header->status == PGR_OK && header->world_size != PGR_NIL;
    entry->world_size = chosen ? header->world_size : task->world_size;
    return status;
}

static pgr_status no_memory(const pgr_check_entry *entry, pgr_error *error) {
    return pgr_error_set(error, PGR_LIMIT, "%s: out of memory", entry->file);
}

static pgr_status add_limit(pgr_check_entry *entry, const char *why, const char *help,
                            pgr_error *error) {
    return pgr_check_add(entry, "PG003", why, help) ? PGR_OK : no_memory(entry, error);
}

/* Says how a child ended that gave no answer. */
static pgr_status add_ended(pgr_check_entry *entry, int ended, bool finished, pgr_error *error) {
    char why[160];
    int by = WIFSIGNALED(ended) ? WTERMSIG(ended) : 0;
    if (by == SIGPROF || by == SIGXCPU || (!finished && by == SIGKILL))
        snprintf(why, sizeof why, "the config ran for more than %d s of processor time",
                 CHILD_CPU_SECONDS);
    else if (by != 0)
        snprintf(why, sizeof why, "the process that read the config was ended by signal %d (%s)",
                 by, strsignal(by));
    else
        snprintf(why, sizeof why, "the process that read the config gave no answer");
    return add_limit(entry, why, HELP_LIMIT, error);
}

static pgr_status conclude(const child_task *task, const answer *said, int ended, bool finished,
                           pgr_check_entry *entry, pgr_error *error) {
    child_header header;
    bool good = finished && WIFEXITED(ended) && WEXITSTATUS(ended) == 0;
    pgr_status taken = good ? take_answer(task, said, &header, entry) : PGR_INVALID;
    if (taken == PGR_LIMIT)
        return no_memory(entry, error);
    if (taken != PGR_OK) {
        entry->count = 0;
        return add_ended(entry, ended, finished, error);
    }
    if (header.status == PGR_OK)
        return PGR_OK;
    pgr_check_clean(header.message);
    if (header.status == PGR_LIMIT)
        return add_limit(entry, header.message, HELP_MEMORY, error);
    if (header.status == PGR_INVALID)
        return add_limit(entry, header.message, HELP_LIMIT, error);
    return pgr_error_set(error, (pgr_status)header.status, "%s", header.message);
}

static pgr_status collect(pid_t child, int pipe, const child_task *task, pgr_check_entry *entry,
                          pgr_error *error) {
    answer said;
    int ended = 0;
    pgr_status heard = read_answer(pipe, &said);
    if (heard != PGR_OK)
        kill(child, SIGKILL);
    while (waitpid(child, &ended, 0) < 0 && errno == EINTR)
        ;
    pgr_status status = heard == PGR_LIMIT
                            ? no_memory(entry, error)
                            : conclude(task, &said, ended, heard == PGR_OK, entry, error);
    free(said.bytes);
    return status;
}

pgr_status pgr_check_in_child(const char *text, size_t bytes, pgr_check_entry *entry,
                              pgr_error *error) {
    child_task task = {entry->choice, entry->file, text, bytes, entry->world_size};
    int ends[2];
    if (pipe(ends) != 0)
        return pgr_error_set(error, PGR_SYSTEM, "%s: cannot open a pipe: %s", entry->file,
                             strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        limit_child();
        _exit(run_child(ends[1], &task) ? 0 : 1);
    }
    close(ends[1]);
    pgr_status status = child < 0
                            ? pgr_error_set(error, PGR_SYSTEM, "%s: cannot start a process: %s",
                                            entry->file, strerror(errno))
                            : collect(child, ends[0], &task, entry, error);
    close(ends[0]);
    return status;
}
