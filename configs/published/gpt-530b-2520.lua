-- GPT, 529.6 billion parameters, on 2,520 A100.
-- Source: Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using
-- Megatron-LM", SC 2021, arXiv 2104.04473, Table 1 (heads, hidden, layers, tp, pp, GPUs, batch) and section 5
-- (vocabulary 51,200, sequence 2,048, DGX A100 nodes); github.com/NVIDIA/Megatron-LM,
-- examples/academic_paper_scripts/sc21/run_table_1.sh (micro batch, layers of a virtual stage). ffn is the
-- paper's 4 * hidden.
-- Not given, left out: biases, tied embeddings. fp16 is no value of model.dtype.
return {
  world_size = 2520,
  parallel = { tp = 8, pp = 35, vpp = 3, expert_view = false },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 20480,
    ffn = 81920,
    heads = 128,
    layers = 105,
    vocab = 51200,
    seq_len = 2048,
    micro_batch = 1,
    global_batch = 2520,
  },
}
