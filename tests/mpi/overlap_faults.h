/* overlap_faults.h - a part of workload_test.c: faults of chunks that communicate beside their
 * product. */
#ifndef PGR_OVERLAP_FAULTS_H
#define PGR_OVERLAP_FAULTS_H

static int64_t wanted_chunks; /* of the layout; 0: the plain order alone */
static int64_t share_rows;    /* that a rank owns */
static int64_t share;         /* their elements, which the plain order communicates at once */

/* What a fault needs of the layout. */
typedef enum overlap_need { NO_OVERLAP, OVERLAP, EVEN_CHUNKS } overlap_need;

static void overlap_declare(pgr_spec *spec) {
    int64_t multiple = 2 * spec->parallel.cp * spec->parallel.tp;
    if (wanted_chunks == 0)
        return;
    spec->parallel.tp_comm_overlap = true;
    spec->model.decoder_seq_len = (spec->model.seq_len + multiple - 1) / multiple * multiple;
    spec->run.overlap_chunks = wanted_chunks;
}

static pgr_status overlap_learn(const pgr_spec *spec, pgr_error *error) {
    pgr_tokens tokens;
    pgr_status status = pgr_tokens_create(spec, plan, job->rank, true, &tokens, error);
    if (status)
        return status;
    share_rows = tokens.rows;
    share = tokens.rows * spec->model.hidden;
    chunks = wanted_chunks < tokens.rows ? wanted_chunks : tokens.rows;
    return PGR_OK;
}

/* Nothing of the other workloads overlaps. */
static bool overlap_applies(pgr_workload workload, overlap_need need) {
    if (chunks > 1 && workload != PGR_MLP)
        return false;
    return need == NO_OVERLAP || (chunks > 1 && (need == OVERLAP || share_rows % chunks == 0));
}

/* What the result says of the comparison with the plain order. */
static bool overlap_good(const pgr_result *result, bool planted, overlap_need need) {
    const pgr_verdict *o = &result->overlap;
    bool good = result->overlap_chunks == chunks && o->checked > 0;
    if (!planted)
        return good && o->ok && strncmp(o->what, "overlap", 7) == 0;
    return good && (need == NO_OVERLAP || (!o->ok && o->max_err >= 10 * o->tolerance));
}

/* Which chunk this call communicates, -1 in the plain order: they come in turn. */
static int64_t chunk_of(int64_t count) {
    return chunks > 1 && count < share ? calls++ % chunks : -1;
}

/* The first two chunks change places. */
static int64_t exchanged_place(int64_t count) {
    int64_t chunk = chunk_of(count);
    return chunk == 0 ? count : chunk == 1 ? -count : 0;
}

static pgr_status gather_exchanged(pgr_comm *comm, const void *send, void *receive, int64_t count,
                                   pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                                   pgr_error *error) {
    const char *from = (const char *)send + exchanged_place(count) * pgr_dtype_bytes(dtype);
    return real_comm->all_gather(comm, from, receive, count, dtype, stream, request, error);
}

static void gathered_chunks_exchanged(void) {
    comm_ops.all_gather = gather_exchanged;
}

static pgr_status reduce_exchanged(pgr_comm *comm, const void *send, void *receive, int64_t count,
                                   pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                                   pgr_request *request, pgr_error *error) {
    char *to = (char *)receive + exchanged_place(count) * pgr_dtype_bytes(dtype);
    return real_comm->reduce_scatter(comm, send, to, count, dtype, reduce, stream, request, error);
}

static void reduced_chunks_exchanged(void) {
    comm_ops.reduce_scatter = reduce_exchanged;
}

/* The last chunk is never communicated. */
static pgr_status gather_without_last(pgr_comm *comm, const void *send, void *receive,
                                      int64_t count, pgr_dtype dtype, pgr_stream *stream,
                                      pgr_request *request, pgr_error *error) {
    if (chunk_of(count) != chunks - 1)
        return real_comm->all_gather(comm, send, receive, count, dtype, stream, request, error);
    *request = (pgr_request){.comm = comm};
    return PGR_OK;
}

static void lost_gathered_chunk(void) {
    comm_ops.all_gather = gather_without_last;
}

static pgr_status reduce_without_last(pgr_comm *comm, const void *send, void *receive,
                                      int64_t count, pgr_dtype dtype, pgr_reduce reduce,
                                      pgr_stream *stream, pgr_request *request, pgr_error *error) {
    if (chunk_of(count) != chunks - 1)
        return real_comm->reduce_scatter(comm, send, receive, count, dtype, reduce, stream, request,
                                         error);
    *request = (pgr_request){.comm = comm};
    return PGR_OK;
}

static void lost_reduced_chunk(void) {
    comm_ops.reduce_scatter = reduce_without_last;
}

/* A chunk is made of neighbouring rows, not of a part of every rank's share, so that the
 * reduce-scatter gives ranks rows that others own. */
static pgr_status neighbouring_rows(pgr_device *device, const pgr_linear_args *args,
                                    pgr_stream *stream, pgr_error *error) {
    static const char *first; /* of the chunk that begins with the first row */
    pgr_linear_args changed = *args;
    if (args->batch > 1 && args->stride_y == args->m * args->ldy) {
        first = calls++ % chunks == 0 ? args->x : first;
        changed.x = first + args->batch * ((const char *)args->x - first);
        changed.stride_x = args->m * args->ldx;
    }
    return real_device->linear(device, &changed, stream, error);
}

static void chunks_of_neighbours(void) {
    device_ops.linear = neighbouring_rows;
}

/* One element of a product of a chunk is off; those of the plain order are right. */
static pgr_status off_chunk(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                            pgr_error *error) {
    return args->batch > 1 ? off_linear(device, args, stream, error)
                           : real_device->linear(device, args, stream, error);
}

static void one_element_of_a_chunk_off(void) {
    device_ops.linear = off_chunk;
}

#define OVERLAP_FAULTS                                                                             \
    {"mlp, two gathered chunks exchanged", PGR_MLP, gathered_chunks_exchanged,                     \
     .overlap = EVEN_CHUNKS},                                                                      \
        {"mlp, two reduced chunks exchanged", PGR_MLP, reduced_chunks_exchanged,                   \
         .overlap = EVEN_CHUNKS},                                                                  \
        {"mlp, a gathered chunk lost", PGR_MLP, lost_gathered_chunk, .overlap = OVERLAP},          \
        {"mlp, a reduced chunk lost", PGR_MLP, lost_reduced_chunk, .overlap = OVERLAP},            \
        {"mlp, chunks of neighbouring rows", PGR_MLP, chunks_of_neighbours, .overlap = OVERLAP},   \
        {"mlp, one element of a chunk off", PGR_MLP, one_element_of_a_chunk_off,                   \
         .overlap = OVERLAP},

#endif
