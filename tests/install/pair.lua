-- Two ranks, one tensor-parallel group.
return {
  parallel = { tp = 2 },
  model = { hidden = 64, ffn = 128, heads = 4, layers = 1, seq_len = 32 },
  run = { workloads = { "mlp" }, warmup = 1, iterations = 2 },
}
