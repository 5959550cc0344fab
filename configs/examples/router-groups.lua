-- DeepSeek-V3's router: 256 experts in 8 groups, of which the best 4 take part; sigmoid scores with a
-- bias per expert that acts on the choice alone; the 8 chosen weights sum to 2.5. The hidden size is a
-- fourteenth of the model's, so that CPUs are soon done. Any multiple of 4 ranks; 8 have two micro
-- batches at a time.
return {
  parallel = { tp = 2, cp = 2, ep = 4, etp = 1, sequence_parallel = true },
  model = { hidden = 512, seq_len = 2041, micro_batch = 1, dtype = "bf16", bias = false },
  moe = {
    experts = 256,
    topk = 8,
    score = "sigmoid",
    groups = 8,
    group_topk = 4,
    scaling = 2.5,
    expert_bias = true,
    aux_loss_type = "seq_aux_loss",
    aux_loss_coeff = 0.0001,
  },
  run = { workloads = { "router" } },
}
