-- Megatron-Turing NLG 530B on 420 DGX A100 (3,360 A100), the largest job of its section on throughput.
-- Source: Smith et al., "Using DeepSpeed and Megatron to Train Megatron-Turing NLG 530B, A Large-Scale
-- Generative Language Model", 2022, arXiv 2201.11990, section 2.2 (8-way tensor within a node, 35-way
-- pipeline across nodes, 280 GPUs a replica), 2.4 (280, 350 and 420 servers at batch 1,920), 3.2 (105 layers,
-- hidden 20,480, 128 heads, sequence 2,048, batch 1,920).
-- Not given, left out: micro batch, ffn, vocabulary, biases, tied embeddings.
return {
  world_size = 3360,
  parallel = { tp = 8, pp = 35, expert_view = false },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 20480,
    heads = 128,
    layers = 105,
    seq_len = 2048,
    global_batch = 1920,
    dtype = "bf16",
  },
}
