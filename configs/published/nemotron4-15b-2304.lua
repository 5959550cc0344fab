-- Nemotron-4 15B on 2,304 H100, the last of three stages of its batch ramp.
-- Source: Parmar et al., "Nemotron-4 15B Technical Report", 2024, arXiv 2402.16819, Table 1 (shapes), section
-- 2 (8-way tensor and data parallelism, 8 GPUs in a node, no biases, untied embeddings) and Table 2
-- (data-parallel size 288, 2,304 GPUs, batch 1,152).
-- Not given, left out: ffn, micro batch, sequence parallelism. Squared ReLU is no value of activation; it is
-- not gated, as gelu.
return {
  world_size = 2304,
  parallel = { tp = 8, dp = 288, expert_view = false },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 6144,
    heads = 48,
    kv_heads = 8,
    layers = 32,
    vocab = 256000,
    tie_embeddings = false,
    bias = false,
    seq_len = 4096,
    global_batch = 1152,
    dtype = "bf16",
  },
}
