-- The quickstart on one rank: nothing is cut, everything is verified.
--
--   pgrun configs/quickstart-1.lua                (or any number of data-parallel ranks)
--
-- quickstart.lua is the same model with tp = 2, cp = 2, ep = 4.
return {
  parallel = { tp = 1 },        -- every size is 1; data parallel is what remains
  model = {
    hidden = 512,
    ffn = 2048,
    seq_len = 1021,             -- one rank needs no padding
    micro_batch = 1,
    dtype = "f32",
  },
  moe = {
    experts = 8,
    topk = 2,
    aux_loss_coeff = 0.01,
    z_loss_coeff = 0.001,
  },
  run = { workloads = { "mlp", "router", "context" }, warmup = 2, iterations = 10 },
}
