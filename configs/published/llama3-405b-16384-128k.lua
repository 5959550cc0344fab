-- Llama 3 405B on 16,384 H100: long-context pre-training at 128K tokens, cp = 16.
-- Source: Llama Team, Meta, "The Llama 3 Herd of Models", 2024, arXiv 2407.21783, Table 3 (shapes), Table 4
-- (this is its third row: GPUs, tp, cp, pp, sequence, batch per dp), section 3.3.1 (8 GPUs in a server) and
-- 3.3.2 (order [TP, CP, PP, DP]; one layer fewer on the first and on the last stage).
-- An early version of the table prints dp = 4 in this row; 8 (later versions) is what the GPUs and the 16M
-- tokens of a batch give.
-- Not given, left out: micro batch, the number of interleaved stages (V), sequence parallelism, biases, tied
-- embeddings.
return {
  world_size = 16384,
  parallel = {
    tp = 8,
    cp = 16,
    pp = 16,
    order = "tp-cp-pp-dp",
    first_stage_layers = 7,
    last_stage_layers = 7,
    expert_view = false, -- dense: the order with pp before dp is then legal
  },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 16384,
    ffn = 53248,
    heads = 128,
    kv_heads = 8,
    layers = 126,
    vocab = 128000,
    activation = "swiglu",
    seq_len = 131072,
    global_batch = 128, -- 16Mi tokens
    dtype = "bf16",
  },
}
