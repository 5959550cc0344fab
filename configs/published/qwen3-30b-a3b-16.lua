-- Qwen3-30B-A3B on 16 H100, experts over all of them.
-- Source: github.com/NVIDIA-NeMo/Megatron-Bridge (067f987),
-- src/megatron/bridge/recipes/qwen/h100/qwen3_moe.py, qwen3_30b_a3b_pretrain_16gpu_h100_bf16_config (tp, cp,
-- pp, ep, etp, sequence parallelism off, sequence, batches). Shapes: github.com/yanring/Megatron-MoE-ModelZoo
-- (e865051), model_configs/benchmarking/Qwen3-30B-A3B.yaml.
-- Not given, left out: GPUs of a node, vocabulary.
return {
  world_size = 16,
  parallel = { tp = 1, cp = 1, pp = 1, ep = 16, etp = 1, sequence_parallel = false },
  model = {
    hidden = 2048,
    ffn = 6144,
    heads = 32,
    kv_heads = 4,
    head_dim = 128,
    layers = 48,
    tie_embeddings = false,
    bias = false,
    activation = "swiglu",
    seq_len = 4096,
    micro_batch = 1,
    global_batch = 1024,
    dtype = "bf16",
  },
  moe = {
    experts = 128,
    topk = 8,
    ffn = 768,
    pre_softmax = false,
    aux_loss_type = "aux_loss",
    aux_loss_coeff = 0.001,
  },
}
