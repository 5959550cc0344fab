-- GPT-3 175B on 64 A100, with sequence parallelism.
-- Source: Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022, arXiv
-- 2205.05198, Table 3 (heads, hidden, layers, tp, pp, GPUs, batches) and section 6 (three interleaving
-- stages, vocabulary, sequence, 8 GPUs in a node). ffn is the paper's 4h.
-- Not given, left out: biases, tied embeddings, the 16-bit type.
return {
  world_size = 64,
  parallel = {
    tp = 8,
    pp = 8,
    vpp = 3,
    sequence_parallel = true,
    expert_view = false,
  },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 12288,
    ffn = 49152,
    heads = 96,
    layers = 96,
    vocab = 51200,
    seq_len = 2048,
    micro_batch = 1,
    global_batch = 64,
  },
}
