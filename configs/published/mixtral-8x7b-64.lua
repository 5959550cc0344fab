-- Mixtral 8x7B on 64 GPUs in Megatron-LM.
-- Source: github.com/yanring/Megatron-MoE-ModelZoo (e865051; Megatron-LM's MoE README points to it),
-- runtime_configs/benchmarking/runtime.conf, line Mixtral-8x7B (tp, pp, ep, cp, vpp, batches, 8 nodes),
-- model_configs/benchmarking/Mixtral-8x7B.yaml (shapes, router, etp, sequence_parallel),
-- sbatch_benchmarking.sh (8 tasks in a node). sequence_parallel is set there and has no effect at tp = 1.
-- Not given, left out: vocabulary.
return {
  world_size = 64,
  parallel = { tp = 1, pp = 4, ep = 8, etp = 1, vpp = 8, sequence_parallel = true },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 4096,
    ffn = 14336,
    heads = 32,
    kv_heads = 8,
    layers = 32,
    tie_embeddings = false,
    bias = false,
    activation = "swiglu",
    seq_len = 4096,
    micro_batch = 1,
    global_batch = 256,
    dtype = "bf16",
  },
  moe = { experts = 8, topk = 2, aux_loss_type = "aux_loss", aux_loss_coeff = 0.01 },
}
