-- Nemotron-4 340B on 2,048 H100, NVIDIA's benchmark recipe.
-- Source: github.com/NVIDIA/dgxc-benchmarking (80634ad), nemotron4-340b/README.md, "H100", last row (layers,
-- sequence, tp, pp, cp, dp, vp, batches). Shapes: "Nemotron-4 340B Technical Report", 2024, section 2.
-- Not given, left out: GPUs of a node, ffn, sequence parallelism. Squared ReLU is no value of activation.
return {
  world_size = 2048,
  parallel = { tp = 8, cp = 1, pp = 8, vpp = 12, dp = 32, expert_view = false },
  model = {
    hidden = 18432,
    heads = 96,
    kv_heads = 8,
    layers = 96,
    vocab = 256000,
    tie_embeddings = false,
    bias = false,
    seq_len = 4096,
    micro_batch = 1,
    global_batch = 512,
    dtype = "bf16",
  },
}
