-- A router of 64 experts with top-6, softmax before selection, scaled weights, a per-sequence
-- balancing loss and dropping beyond a capacity. Any even number of ranks.
return {
  parallel = { tp = 1, cp = 2, ep = 2 },
  model = { hidden = 256, ffn = 512, seq_len = 509, micro_batch = 2 },
  moe = {
    experts = 64,
    topk = 6,
    pre_softmax = true,
    scaling = 2.5,
    capacity_factor = 1.25,
    aux_loss_type = "seq_aux_loss",
    aux_loss_coeff = 0.001,
    z_loss_coeff = 0.001,
  },
  run = { workloads = { "router" } },
}
