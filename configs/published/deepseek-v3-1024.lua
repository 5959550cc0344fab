-- DeepSeek-V3 on 1,024 GPUs in Megatron-LM.
-- Source: github.com/yanring/Megatron-MoE-ModelZoo (e865051; Megatron-LM's MoE README points to it),
-- runtime_configs/benchmarking/runtime.conf, line DeepSeek-V3 (tp, pp, ep, cp, batches, 128 nodes, 4 layers
-- on the first and 1 on the last stage), model_configs/benchmarking/DeepSeek-V3.yaml (shapes, router, etp,
-- sequence_parallel), sbatch_benchmarking.sh (8 tasks in a node).
-- Left out: vocabulary (not given); MLA and multi-token prediction, which no key says. sequence_parallel is
-- set there and has no effect at tp = 1.
local layers, dense = 61, 3
local pattern = {}
for i = 1, layers do pattern[i] = i > dense and 1 or 0 end

return {
  world_size = 1024,
  parallel = {
    tp = 1,
    pp = 16,
    ep = 64,
    etp = 1,
    first_stage_layers = 4,
    last_stage_layers = 1,
    sequence_parallel = true,
  },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 7168,
    ffn = 18432,
    heads = 128,
    head_dim = 128,
    layers = layers,
    tie_embeddings = false,
    bias = false,
    activation = "swiglu",
    seq_len = 4096,
    micro_batch = 1,
    global_batch = 8192,
    dtype = "bf16",
  },
  moe = {
    experts = 256,
    topk = 8,
    ffn = 2048,
    shared_ffn = 2048,
    layer_pattern = pattern,
    score = "sigmoid",
    groups = 8,
    group_topk = 4,
    scaling = 2.5,
    expert_bias = true,
    aux_loss_type = "seq_aux_loss",
    aux_loss_coeff = 0.0001,
  },
}
