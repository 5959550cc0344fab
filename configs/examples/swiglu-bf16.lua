-- A gated block in bf16 without biases, as in Llama: bf16 stored, f32 accumulated. Any multiple of 4
-- ranks; without sequence parallelism the row-parallel layer ends in an all-reduce over tp.
return {
  parallel = { tp = 4 },
  model = {
    hidden = 512,
    ffn = 1536,
    seq_len = 512,
    micro_batch = 2,
    dtype = "bf16",
    bias = false,
    activation = "swiglu",
  },
  run = { workloads = { "mlp" } },
}
