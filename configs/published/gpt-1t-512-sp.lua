-- GPT, 1 trillion parameters, on 512 A100, with sequence parallelism.
-- Source: Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022, arXiv
-- 2205.05198, Table 3 (heads, hidden, layers, tp, pp, GPUs, batches) and section 6 (vocabulary, sequence, 8
-- GPUs in a node; no interleaving at this size). ffn is the paper's 4h.
-- Not given, left out: biases, tied embeddings, the 16-bit type.
return {
  world_size = 512,
  parallel = {
    tp = 8,
    pp = 64,
    sequence_parallel = true,
    expert_view = false,
  },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 25600,
    ffn = 102400,
    heads = 160,
    layers = 128,
    vocab = 51200,
    seq_len = 2048,
    micro_batch = 1,
    global_batch = 512,
  },
}
