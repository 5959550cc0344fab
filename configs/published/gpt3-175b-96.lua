-- GPT-3 175B on 96 A100, interleaved pipeline.
-- Source: Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using
-- Megatron-LM", SC 2021, arXiv 2104.04473, section 5.3.2 and Figure 12 (layers, heads, hidden, GPUs);
-- github.com/NVIDIA/Megatron-LM, examples/academic_paper_scripts/sc21/run_figure_12.sh (tp, pp, layers of a
-- virtual stage, micro batch; batches 12 to 60, the last here). Vocabulary and sequence: section 5. ffn is
-- the paper's 4 * hidden.
-- Not given, left out: biases, tied embeddings. fp16 is no value of model.dtype.
return {
  world_size = 96,
  parallel = { tp = 8, pp = 12, vpp = 4, expert_view = false },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 12288,
    ffn = 49152,
    heads = 96,
    layers = 96,
    vocab = 51200,
    seq_len = 2048,
    micro_batch = 1,
    global_batch = 60,
  },
}
