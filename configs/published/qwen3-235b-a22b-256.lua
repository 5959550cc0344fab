-- Qwen3-235B-A22B on 256 H100.
-- Source: github.com/NVIDIA-NeMo/Megatron-Bridge (067f987),
-- src/megatron/bridge/recipes/qwen/h100/qwen3_moe.py, qwen3_235b_a22b_pretrain_256gpu_h100_bf16_config (tp,
-- cp, pp, ep, etp, sequence parallelism, sequence, micro batch; the embedding and the loss count as a layer
-- each: 5, 6, ..., 6, 5), recipes/common.py (global batch 32). Shapes:
-- github.com/yanring/Megatron-MoE-ModelZoo (e865051), model_configs/benchmarking/Qwen3-235B-A22B.yaml.
-- Not given, left out: GPUs of a node, vocabulary.
return {
  world_size = 256,
  parallel = {
    tp = 4,
    cp = 2,
    pp = 16,
    ep = 8,
    etp = 1,
    first_stage_layers = 5,
    last_stage_layers = 5,
    sequence_parallel = true,
  },
  model = {
    hidden = 4096,
    ffn = 12288,
    heads = 64,
    kv_heads = 4,
    head_dim = 128,
    layers = 94,
    tie_embeddings = false,
    bias = false,
    activation = "swiglu",
    seq_len = 4096,
    micro_batch = 1,
    global_batch = 32,
    dtype = "bf16",
  },
  moe = {
    experts = 128,
    topk = 8,
    ffn = 1536,
    pre_softmax = false,
    aux_loss_type = "aux_loss",
    aux_loss_coeff = 0.001,
  },
}
