/* comm_mpi_worker.c - the thread in which MPI's blocking calls run. */
#include "comm_mpi.h"
#include "deadline.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct pgr_mpi_task {
    pgr_mpi_task *next;
    pgr_status (*run)(void *context, pgr_error *error);
    void *context;
    void (*drop)(void *context);
    bool done, abandoned;
    pgr_status status;
    pgr_error error;
};

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a task was queued or done, or the worker is to stop */
    pgr_mpi_task *first, **last;
    bool running, stop;
} worker;

static void task_free(pgr_mpi_task *task) {
    if (task->drop && task->abandoned)
        task->drop(task->context);
    free(task);
}

static void *worker_main(void *unused) {
    (void)unused;
    pthread_mutex_lock(&worker.lock);
    for (;;) {
        while (!worker.first && !worker.stop)
            pthread_cond_wait(&worker.changed, &worker.lock);
        if (!worker.first)
            break;
        pgr_mpi_task *task = worker.first;
        pthread_mutex_unlock(&worker.lock);
        pgr_status status = task->run(task->context, &task->error);
        pthread_mutex_lock(&worker.lock);
        worker.first = task->next;
        if (!worker.first)
            worker.last = &worker.first;
        task->status = status;
        task->done = true;
        if (task->abandoned)
            task_free(task);
        pthread_cond_broadcast(&worker.changed);
    }
    pthread_mutex_unlock(&worker.lock);
    return NULL;
}

pgr_status pgr_mpi_worker_start(pgr_error *error) {
    if (worker.running)
        return PGR_OK;
    pthread_condattr_t attributes;
    pthread_mutex_init(&worker.lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&worker.changed, &attributes);
    pthread_condattr_destroy(&attributes);
    worker.first = NULL;
    worker.last = &worker.first;
    worker.stop = false;
    int code = pthread_create(&worker.thread, NULL, worker_main, NULL);
    if (code != 0) {
        return pgr_error_set(error, PGR_SYSTEM, "cannot start the MPI worker thread: %s",
                             strerror(code));
    }
    worker.running = true;
    return PGR_OK;
}

void pgr_mpi_worker_stop(void) {
    if (!worker.running)
        return;
    pthread_mutex_lock(&worker.lock);
    worker.stop = true;
    pthread_cond_broadcast(&worker.changed);
    pthread_mutex_unlock(&worker.lock);
    pthread_join(worker.thread, NULL);
    pthread_cond_destroy(&worker.changed);
    pthread_mutex_destroy(&worker.lock);
    worker.running = false;
}

pgr_status pgr_mpi_task_post(pgr_status (*run)(void *context, pgr_error *error), void *context,
                             void (*drop)(void *context), pgr_mpi_task **task, pgr_error *error) {
    pgr_mpi_task *posted = calloc(1, sizeof *posted);
    if (!posted) {
        return pgr_error_set(error, PGR_LIMIT, "out of memory for a task of %zu bytes",
                             sizeof *posted);
    }
    posted->run = run;
    posted->context = context;
    posted->drop = drop;
    pthread_mutex_lock(&worker.lock);
    *worker.last = posted;
    worker.last = &posted->next;
    pthread_cond_broadcast(&worker.changed);
    pthread_mutex_unlock(&worker.lock);
    *task = posted;
    return PGR_OK;
}

/* Passes the result on and frees the task, which is done. */
static pgr_status task_take(pgr_mpi_task *task, pgr_error *error) {
    pgr_status status = task->status;
    if (status != PGR_OK && error)
        *error = task->error;
    task_free(task);
    return status;
}

pgr_status pgr_mpi_task_poll(pgr_mpi_task *task, bool *done, pgr_error *error) {
    pthread_mutex_lock(&worker.lock);
    bool is_done = task->done;
    pthread_mutex_unlock(&worker.lock);
    *done = is_done;
    return is_done ? task_take(task, error) : PGR_OK;
}

pgr_status pgr_mpi_task_wait(pgr_mpi_task *task, double seconds, const char *what,
                             pgr_error *error) {
    pgr_deadline deadline = pgr_deadline_start(seconds);
    double slice = seconds / 8 < 0.1 ? seconds / 8 : 0.1;
    bool passed = false;
    pthread_mutex_lock(&worker.lock);
    while (!task->done && !passed) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        long nanoseconds = until.tv_nsec + (long)(slice * 1e9);
        until.tv_sec += nanoseconds / 1000000000;
        until.tv_nsec = nanoseconds % 1000000000;
        pthread_cond_timedwait(&worker.changed, &worker.lock, &until);
        passed = pgr_deadline_passed(&deadline);
    }
    bool done = task->done;
    task->abandoned = !done;
    pthread_mutex_unlock(&worker.lock);
    if (done)
        return task_take(task, error);
    return pgr_error_set(error, PGR_TIMEOUT, "%s: not done within %g seconds", what, seconds);
}

void pgr_mpi_task_abandon(pgr_mpi_task *task) {
    pthread_mutex_lock(&worker.lock);
    bool done = task->done;
    task->abandoned = true;
    pthread_mutex_unlock(&worker.lock);
    if (done)
        task_free(task);
}
