/* nccl_fake_data.c - what operations of the stand-in for NCCL do with data, once they run. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "nccl_fake.h"

size_t fake_width(ncclDataType_t type) {
    switch (type) {
    case ncclUint8:
        return 1;
    case ncclBfloat16:
        return 2;
    case ncclInt32:
    case ncclFloat32:
        return 4;
    default:
        return 8;
    }
}

static double value(const void *data, size_t at, ncclDataType_t type) {
    if (type == ncclFloat32)
        return ((const float *)data)[at];
    if (type == ncclFloat64)
        return ((const double *)data)[at];
    if (type == ncclInt32)
        return ((const int32_t *)data)[at];
    if (type == ncclUint8)
        return ((const uint8_t *)data)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)data)[at] << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

static void put(void *data, size_t at, ncclDataType_t type, double what) {
    if (type == ncclFloat32)
        ((float *)data)[at] = (float)what;
    if (type == ncclFloat64)
        ((double *)data)[at] = what;
    if (type == ncclInt32)
        ((int32_t *)data)[at] = (int32_t)what;
    if (type == ncclUint8)
        ((uint8_t *)data)[at] = (uint8_t)what;
    if (type == ncclBfloat16) {
        float narrow = (float)what;
        uint32_t bits;
        memcpy(&bits, &narrow, sizeof bits);
        ((uint16_t *)data)[at] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

static void reduce(const op *o, size_t from) {
    for (size_t i = 0; i < o->count; i++) {
        int64_t whole = 0;
        double sum = 0;
        for (int r = 0; r < o->comm->size; r++) {
            const void *slot = o->comm->own->slots[r];
            int64_t w = o->type == ncclInt64 ? ((const int64_t *)slot)[from + i] : 0;
            double v = o->type == ncclInt64 ? 0 : value(slot, from + i, o->type);
            whole =
                r == 0 || (o->reduce == ncclMax && w > whole) || (o->reduce == ncclMin && w < whole)
                    ? w
                : o->reduce == ncclSum ? whole + w
                                       : whole;
            sum = r == 0 || (o->reduce == ncclMax && v > sum) || (o->reduce == ncclMin && v < sum)
                      ? v
                  : o->reduce == ncclSum ? sum + v
                                         : sum;
        }
        if (o->type == ncclInt64)
            ((int64_t *)o->receive)[i] = whole;
        else
            put(o->receive, i, o->type, sum);
    }
}

static bool all_at_least(const atomic_ulong *values, int size, unsigned long least) {
    for (int r = 0; r < size; r++)
        if (atomic_load(&values[r]) < least)
            return false;
    return true;
}

static void collective_step(op *o) {
    struct ncclComm *comm = o->comm;
    channel *own = comm->own;
    size_t bytes = o->count * fake_width(o->type);
    size_t sent = o->kind == REDUCE_SCATTER ? bytes * (size_t)comm->size : bytes;
    if (o->state == 0 && all_at_least(own->taken, comm->size, o->sequence - 1)) {
        memcpy(own->slots[comm->rank], o->send, sent);
        atomic_store(&own->published[comm->rank], o->sequence);
        o->state = 1;
    }
    if (o->state != 1 || !all_at_least(own->published, comm->size, o->sequence))
        return;
    if (o->kind == ALL_REDUCE)
        reduce(o, 0);
    else if (o->kind == REDUCE_SCATTER)
        reduce(o, o->count * (size_t)comm->rank);
    else if (o->kind == BROADCAST)
        memcpy(o->receive, own->slots[o->peer], bytes);
    else
        for (int r = 0; r < comm->size; r++)
            memcpy((char *)o->receive + (size_t)r * bytes, own->slots[r], bytes);
    atomic_store(&own->taken[comm->rank], o->sequence);
    o->state = 2;
}

static void message_step(op *o) {
    struct ncclComm *comm = o->comm;
    int from = o->kind == SEND ? comm->rank : o->peer, to = o->kind == SEND ? o->peer : comm->rank;
    size_t bytes = o->count * fake_width(o->type);
    if (atomic_load(&comm->own->boxes[from][to].full) != (o->kind == RECV))
        return;
    if (o->kind == SEND)
        memcpy(comm->own->boxes[from][to].data, o->send, bytes);
    else
        memcpy(o->receive, comm->own->boxes[from][to].data, bytes);
    atomic_store(&comm->own->boxes[from][to].full, o->kind == SEND);
    o->state = 2;
}

bool fake_task_step(void *context) {
    task *t = context;
    bool done = true;
    for (int i = 0; i < t->count; i++) {
        op *o = &t->ops[i];
        if (o->comm->aborted)
            continue;
        if (o->state != 2 && !o->never && o->kind < SEND)
            collective_step(o);
        else if (o->state != 2 && !o->never)
            message_step(o);
        done = done && o->state == 2;
    }
    if (done)
        free(t);
    return done;
}
