-- Kimi K2 (1T) on 512 H100.
-- Source: github.com/NVIDIA-NeMo/Megatron-Bridge (067f987), src/megatron/bridge/recipes/kimi/h100/kimi_k2.py,
-- kimi_k2_pretrain_512gpu_h100_bf16_config (tp, pp, ep, etp, sequence parallelism, sequence, batches; the
-- layout of (16, 1): four layers on each stage and one on the last). Shapes and router:
-- github.com/yanring/Megatron-MoE-ModelZoo (e865051), model_configs/benchmarking/Kimi-K2.yaml (head_dim is
-- its qk-head-dim and v-head-dim).
-- Not given, left out: GPUs of a node, vocabulary. Attention is MLA, which no key says.
local layers, dense = 61, 1
local pattern = {}
for i = 1, layers do pattern[i] = i > dense and 1 or 0 end

return {
  world_size = 512,
  parallel = { tp = 2, cp = 1, pp = 16, ep = 32, etp = 1, last_stage_layers = 1, sequence_parallel = true },
  model = {
    hidden = 7168,
    ffn = 18432,
    heads = 64,
    head_dim = 128,
    layers = layers,
    tie_embeddings = false,
    bias = false,
    activation = "swiglu",
    seq_len = 4096,
    micro_batch = 1,
    global_batch = 4096,
    dtype = "bf16",
  },
  moe = {
    experts = 384,
    topk = 8,
    ffn = 2048,
    shared_ffn = 2048,
    layer_pattern = pattern,
    score = "sigmoid",
    groups = 1,
    group_topk = 1,
    scaling = 2.827,
    expert_bias = true,
    aux_loss_type = "seq_aux_loss",
    aux_loss_coeff = 0,
  },
}
