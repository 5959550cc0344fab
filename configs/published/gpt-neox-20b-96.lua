-- GPT-NeoX-20B on 96 A100 (40 GB).
-- Source: github.com/EleutherAI/gpt-neox (252ddc5), configs/20B.yml ("as it was trained on 96x 40GB A100":
-- pipe 4, model 2, shapes, micro batch 4, 32 steps of accumulation, untied weights). The batch is 4 * 32 * 12
-- data-parallel ranks.
-- Not given, left out: ffn, vocabulary, GPUs of a node, the order of the ranks. fp16 is no value of
-- model.dtype.
return {
  world_size = 96,
  parallel = { tp = 2, pp = 4, expert_view = false },
  model = {
    hidden = 6144,
    heads = 64,
    layers = 44,
    tie_embeddings = false,
    seq_len = 2048,
    micro_batch = 4,
    global_batch = 1536,
  },
}
