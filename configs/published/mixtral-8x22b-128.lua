-- Mixtral 8x22B on 128 GPUs in Megatron-LM.
-- Source: github.com/yanring/Megatron-MoE-ModelZoo (e865051; Megatron-LM's MoE README points to it),
-- runtime_configs/benchmarking/runtime.conf, line Mixtral-8x22B (tp, pp, ep, cp, vpp, batches, 16 nodes),
-- model_configs/benchmarking/Mixtral-8x22B.yaml (shapes, router, etp, sequence_parallel),
-- sbatch_benchmarking.sh (8 tasks in a node). The same tp, pp, ep and batches: github.com/NVIDIA/Megatron-LM
-- (d98e8a6), tests/functional_tests/test_cases/mixtral/mixtral_8x22b_tp2pp8ep8vpp1_release/model_config.yaml.
-- Not given, left out: vocabulary.
return {
  world_size = 128,
  parallel = { tp = 2, pp = 8, ep = 8, etp = 1, vpp = 7, sequence_parallel = true },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 6144,
    ffn = 16384,
    heads = 48,
    kv_heads = 8,
    layers = 56,
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
