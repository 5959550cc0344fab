-- Nemotron-4 340B on 6,144 H100, the largest stage of its pre-training.
-- Source: NVIDIA, "Nemotron-4 340B Technical Report", 2024, arXiv 2406.11704, section 2 (shapes; 768 DGX
-- H100; 8-way tensor and 12-way pipeline parallelism) and Table 2 (6,144 GPUs, batch 2,304); the batch and
-- the sequence are also in the model card of Nemotron-4-340B-Base.
-- Not given or not confirmed, left out: virtual stages, ffn, micro batch, sequence parallelism. Squared ReLU
-- is no value of activation; it is not gated, as gelu.
return {
  world_size = 6144,
  parallel = { tp = 8, pp = 12, expert_view = false },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 18432,
    heads = 96,
    kv_heads = 8,
    layers = 96,
    vocab = 256000,
    tie_embeddings = false,
    bias = false,
    seq_len = 4096,
    global_batch = 2304,
    dtype = "bf16",
  },
}
