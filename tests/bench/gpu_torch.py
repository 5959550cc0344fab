#!/usr/bin/env python3
"""What PyTorch takes for the cases of gpu_bench: `gpu_bench --list | gpu_torch.py` prints a line
"KEY MICROSECONDS" for each key, for `gpu_bench --torch`. A baseline of benchmarks, no part of pgrun.

As in gpu_bench: operands rotate through pools of eight times the L2, a round is as many calls as take
100 us between two device events, the median of the rounds counts, and each round starts behind a
kernel that keeps the GPU busy while the host enqueues."""

import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F

ROUNDS = 31
CALLS_MAX = 5  # one call is up to ten launches of the host's
SLEEP_CYCLES = 2_000_000
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def slots(bytes_each):
    pool = 8 * torch.cuda.get_device_properties(0).L2_cache_size
    return max(2, math.ceil(pool / bytes_each))


def median_us(call):
    """`call(i)` for i = 0, 1, ...: the median of a call in microseconds."""
    number = 0

    def timed(calls):
        nonlocal number
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(SLEEP_CYCLES)
        begin.record()
        for _ in range(calls):
            call(number)
            number += 1
        end.record()
        return begin, end

    for _ in range(3):
        begin, end = timed(1)
        torch.cuda.synchronize()
    once = 1e3 * begin.elapsed_time(end)
    calls = min(CALLS_MAX, max(1, math.ceil(100 / max(once, 1))))
    pairs = [timed(calls) for _ in range(ROUNDS)]
    torch.cuda.synchronize()
    return statistics.median(1e3 * b.elapsed_time(e) / calls for b, e in pairs)


def group_mask(logits, groups, group_topk, topk):
    """Experts outside of the best groups are -inf; a group's score is the sum of its best."""
    tokens, experts = logits.shape
    grouped = logits.view(tokens, groups, experts // groups)
    scores = grouped.topk(topk // group_topk, dim=-1).values.sum(dim=-1)
    best = scores.topk(group_topk, dim=-1, sorted=False).indices
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)
    return grouped.masked_fill(~mask.unsqueeze(-1), float("-inf")).view(tokens, experts)


def router(dtype, experts, topk, groups, group_topk, tokens, losses):
    experts, topk, groups, group_topk, tokens = map(
        int, (experts, topk, groups, group_topk, tokens))
    dtype = DTYPES[dtype]
    each = tokens * experts * torch.finfo(dtype).bits // 8
    pool = torch.rand((slots(each), tokens, experts), device="cuda", dtype=dtype)

    def call(i):
        logits = pool[i % pool.shape[0]]
        scores = group_mask(logits, groups, group_topk, topk) if groups else logits
        values, indices = torch.topk(scores, topk, dim=-1, sorted=False)
        weights = torch.softmax(values.float(), dim=-1)
        if losses == "0":
            return weights, indices
        probs = torch.softmax(logits, dim=-1, dtype=torch.float32)
        ones = torch.ones_like(indices, dtype=torch.float32)
        counts = torch.zeros(experts, device="cuda").scatter_add_(
            0, indices.flatten(), ones.flatten())
        z = torch.logsumexp(logits.float(), dim=-1).square().sum()
        return weights, indices, probs.sum(dim=0), counts, z

    return median_us(call)


def linear(dtype, m, n, k, form):
    m, n, k = int(m), int(n), int(k)
    dtype = DTYPES[dtype]
    count = slots((m * k + n * k) * torch.finfo(dtype).bits // 8)
    xs = torch.rand((count, m, k), device="cuda", dtype=dtype) - 0.5
    ws = torch.rand((count, n, k), device="cuda", dtype=dtype) - 0.5
    bias = torch.rand((n,), device="cuda", dtype=dtype) if form in ("bias", "gelu") else None

    def call(i):
        y = F.linear(xs[i % count], ws[i % count], bias)
        if form == "gelu":
            return F.gelu(y, approximate="tanh")
        if form == "swiglu":
            return F.silu(y[:, : n // 2]) * y[:, n // 2:]
        return y

    return median_us(call)


def main():
    limit = float(sys.argv[1]) if len(sys.argv) > 1 else math.inf
    start = time.monotonic()
    if not torch.cuda.is_available():
        print("# PyTorch finds no GPU")
        return
    print(f"# PyTorch {torch.__version__} on {torch.cuda.get_device_name(0)}")
    with torch.no_grad():
        for line in sys.stdin:
            key = line.strip()
            if time.monotonic() - start > limit:
                print(f"# out of time before {key}")
                return
            kind, *arguments = key.split("/")
            try:
                us = {"router": router, "linear": linear}[kind](*arguments)
                print(f"{key} {us:.3f}", flush=True)
            except (RuntimeError, KeyError) as error:
                print(f"# {key}: {str(error).splitlines()[0]}", flush=True)


if __name__ == "__main__":
    main()
