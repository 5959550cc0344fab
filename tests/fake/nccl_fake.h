/* nccl_fake.h - what the stand-in for NCCL keeps: see nccl_fake.c. */
#ifndef NCCL_FAKE_H
#define NCCL_FAKE_H

#include <nccl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { RANKS = 8, SPLITS = 11, CHANNELS = 1 + SPLITS * RANKS, SLOT = 65536, BOX = 4096 };

typedef struct channel {
    atomic_int arrived[RANKS];
    atomic_ulong published[RANKS], taken[RANKS];
    struct {
        atomic_int arrived[RANKS];
        int colour[RANKS], key[RANKS];
    } splits[SPLITS];
    struct {
        atomic_int full;
        char data[BOX];
    } boxes[RANKS][RANKS];
    char slots[RANKS][SLOT];
} channel;

struct ncclComm {
    struct ncclComm *next; /* of all: none is freed, tasks still look at them */
    channel *channels;     /* of the file */
    channel *own;
    int rank, size, parts[RANKS]; /* parts: ranks in the world's channel */
    bool ready, aborted, finalized, absent, launched;
    char name[64];
    int busy, splits;
    long bytes; /* of the device */
    unsigned long sequence;
    struct ncclComm **splitting; /* where a split under way puts its result */
    struct task *waiting;        /* called, but not launched */
};

typedef enum kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, SEND, RECV } kind;

typedef struct op {
    kind kind;
    struct ncclComm *comm;
    const void *send;
    void *receive;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t reduce;
    int peer;
    unsigned long sequence;
    int state; /* 0: to publish, 1: published, 2: done */
    bool never;
} op;

/* What is one task of the stream: a collective, or a group of messages. */
typedef struct task {
    struct task *next;
    cudaStream_t stream;
    int count;
    op ops[4 * RANKS];
} task;

/* Bytes of an element. */
size_t fake_width(ncclDataType_t type);

/* A task, as far as it goes now; true, and freed, where it is done. nccl_fake_data.c */
bool fake_task_step(void *context);

#endif
