-- MT-NLG 530B on 2,240 A100, with sequence parallelism.
-- Source: Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022, arXiv
-- 2205.05198, Table 3 (heads, hidden, layers, tp, pp, GPUs, batches) and section 6 (three interleaving
-- stages, vocabulary, sequence, 8 GPUs in a node) and 6.3 (8-way data parallelism, 2,240 GPUs, the batch of
-- 280 times 8). ffn is the paper's 4h.
-- Not given, left out: biases, tied embeddings, the 16-bit type.
return {
  world_size = 2240,
  parallel = {
    tp = 8,
    pp = 35,
    vpp = 3,
    sequence_parallel = true,
    expert_view = false,
  },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 20480,
    ffn = 81920,
    heads = 128,
    layers = 105,
    vocab = 51200,
    seq_len = 2048,
    micro_batch = 1,
    global_batch = 2240,
  },
}
