-- BLOOM 176B on 384 A100.
-- Source: github.com/bigscience-workshop/bigscience (9e64ede), train/tr11-176B-ml/README.md (384 GPUs, 48
-- nodes of 8; TP=4, PP=12, DP=8, MBS=2; the first and the last stage have 5 blocks, the others 6; tied
-- embedding) and train/tr11-176B-ml/tr11-176B-ml.slurm (shapes, sequence, batch, vocabulary padded to
-- 250,880, bf16).
-- Not given, left out: ffn, activation, sequence parallelism, the order of the ranks. Its micro batch was 1
-- up to a batch of 784.
return {
  world_size = 384,
  parallel = {
    tp = 4,
    pp = 12,
    dp = 8,
    first_stage_layers = 5,
    last_stage_layers = 5,
    expert_view = false,
  },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 14336,
    heads = 112,
    layers = 70,
    vocab = 250880,
    tie_embeddings = true,
    seq_len = 2048,
    micro_batch = 2,
    global_batch = 2048,
    dtype = "bf16",
  },
}
