-- Llama 3 70B on 64 H100, BF16.
-- Source: github.com/NVIDIA/dgxc-benchmarking (841f546), llama3.1/README.md, "H100, BF16", row 70b (layers,
-- sequence, tp, pp, cp, vp, micro and global batch); github.com/NVIDIA-NeMo/Megatron-Bridge (067f987),
-- src/megatron/bridge/perf_recipes/llama/h100/llama3.py, llama3_70b_pretrain_64gpu_h100_bf16_config (the
-- same, and sequence_parallel). Shapes: "The Llama 3 Herd of Models", 2024, Table 3.
-- Not given, left out: GPUs of a node, biases, tied embeddings.
return {
  world_size = 64,
  parallel = { tp = 4, cp = 2, pp = 4, vpp = 5, sequence_parallel = true, expert_view = false },
  model = {
    hidden = 8192,
    ffn = 28672,
    heads = 64,
    kv_heads = 8,
    layers = 80,
    vocab = 128000,
    activation = "swiglu",
    seq_len = 8192,
    micro_batch = 1,
    global_batch = 256,
    dtype = "bf16",
  },
}
