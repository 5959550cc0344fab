/* simt.cpp - the fibers under simt.h. */
#include "simt.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

struct simt_index threadIdx, blockIdx, blockDim, gridDim;

namespace {

enum { MOST = 1024, STACK = 1 << 18, WARP = 32 };

/* ---- switching ----------------------------------------------------------------------------- */

/* A stack that can be gone back to. On x86-64 by a few instructions, since swapcontext makes a
 * system call each time, which takes most of the time there is. */
struct stack {
    void *pointer;
    ucontext_t context;
    void *fake; /* of the address sanitizer */
    const void *bottom;
    size_t bytes;
};

#ifdef __x86_64__
extern "C" void simt_switch(void **save, void *load);
asm(".text\n.p2align 4\n.local simt_switch\nsimt_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
#endif

void go(stack *from, stack *to) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from->fake, to->bottom, to->bytes);
#endif
#ifdef __x86_64__
    simt_switch(&from->pointer, to->pointer);
#else
    swapcontext(&from->context, &to->context);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(from->fake, NULL, NULL);
#endif
}

/* ---- fibers -------------------------------------------------------------------------------- */

struct fiber {
    stack own;
    bool done;
    uint64_t warp_turn, block_turn; /* exchanges and barriers that it has been through */
    const char *at;                 /* where it waits, NULL where it does not */
    int line;
};

/* Two buffers: a lane may leave the value of the next exchange while others still read this one's.
 */
struct warp {
    uint64_t values[2][WARP], turn;
    int came, line;
    const char *name;
};

fiber fibers[MOST];
warp warps[MOST / WARP];
stack scheduler;
fiber *current;
unsigned count, came;
uint64_t turn;
void (*entry)(void *);
void *argument;

[[noreturn]] void wrong(const char *what, const char *name, int line) {
    printf("FAIL simt: block %u, %u, thread %u: %s %s, line %d\n", blockIdx.x, blockIdx.y,
           threadIdx.x, what, name, line);
    for (unsigned i = 0; i < count; i++)
        if (fibers[i].at && i / WARP == threadIdx.x / WARP)
            printf("  thread %u waits at %s, line %d\n", i, fibers[i].at, fibers[i].line);
        else if (fibers[i].done && i / WARP == threadIdx.x / WARP)
            printf("  thread %u has ended\n", i);
    fflush(stdout);
    _exit(1);
}

void back() {
    go(&current->own, &scheduler);
}

/* A fiber's life: one thread of block after block. */
void live() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(NULL, &scheduler.bottom, &scheduler.bytes);
#endif
    for (;;) {
        entry(argument);
        current->done = true;
        back();
    }
}

void make(fiber *f) {
    char *memory = (char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    f->own.bottom = memory;
    f->own.bytes = STACK;
#ifdef __x86_64__
    void **top = (void **)(memory + STACK) - 8; /* at the entry the stack is 8 off 16 bytes */
    top[6] = (void *)live;
    f->own.pointer = top;
#else
    getcontext(&f->own.context);
    f->own.context.uc_stack.ss_sp = memory;
    f->own.context.uc_stack.ss_size = STACK;
    makecontext(&f->own.context, live, 0);
#endif
}

bool ready(const fiber *f, const warp *w) {
    return !f->done && f->warp_turn <= w->turn && f->block_turn <= turn;
}

void run_block() {
    memset(warps, 0, sizeof warps);
    came = 0;
    turn = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!fibers[i].own.bottom)
            make(&fibers[i]);
        fibers[i].done = false;
        fibers[i].at = NULL;
        fibers[i].warp_turn = fibers[i].block_turn = 0;
    }
    for (;;) {
        unsigned left = 0, ran = 0;
        for (unsigned i = 0; i < count; i++) {
            current = &fibers[i];
            if (ready(current, &warps[i / WARP])) {
                current->at = NULL;
                threadIdx.x = i;
                ran++;
                go(&scheduler, &current->own);
            }
            left += !fibers[i].done;
        }
        if (!left)
            return;
        if (!ran) {
            for (threadIdx.x = 0; !fibers[threadIdx.x].at;)
                threadIdx.x++;
            wrong("not all threads come to", fibers[threadIdx.x].at, fibers[threadIdx.x].line);
        }
    }
}

} // namespace

const uint64_t *simt_exchange(uint64_t value, unsigned mask, const char *name, int line) {
    unsigned lane = threadIdx.x % WARP;
    warp *w = &warps[threadIdx.x / WARP];
    if (mask != 0xffffffffu)
        wrong("a part of the warp at", name, line);
    if (w->came > 0 && (w->line != line || w->name != name))
        wrong("the others do not come to", name, line);
    uint64_t now = current->warp_turn++;
    w->values[now % 2][lane] = value;
    w->name = name;
    w->line = line;
    current->at = name;
    current->line = line;
    if (++w->came == WARP) {
        w->came = 0;
        w->turn++;
        current->at = NULL;
    } else {
        back();
    }
    return w->values[now % 2];
}

void simt_barrier(int line) {
    current->block_turn++;
    current->at = "__syncthreads";
    current->line = line;
    if (++came == count) {
        came = 0;
        turn++;
        current->at = NULL;
    } else {
        back();
    }
}

void simt_run(dim3 grid, unsigned threads, void (*thread)(void *), void *context) {
    if (threads > MOST || threads % WARP != 0)
        abort();
    entry = thread;
    argument = context;
    count = threads;
    gridDim = {grid.x, grid.y, grid.z};
    blockDim = {threads, 1, 1};
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
            run_block();
}
