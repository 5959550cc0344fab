-- The quickstart on two ranks: tensor 2, with 8 experts over 2 ranks.
--
--   mpirun -n 2 pgrun configs/quickstart-2.lua     (or any even number of ranks)
--
-- quickstart.lua is the same model with cp = 2 and ep = 4 too.
return {
  parallel = {
    tp = 2,                     -- tensor parallel: each linear layer is cut in two
    ep = 2,                     -- expert parallel: 8 experts over 2 ranks
    etp = 1,                    -- experts are not cut (left out, etp would equal tp)
    sequence_parallel = true,   -- activations between the layers are cut over tp too
  },
  model = {
    hidden = 512,
    ffn = 2048,
    seq_len = 1021,             -- padded to 1022 by the rule below
    micro_batch = 1,
    dtype = "f32",
  },
  moe = {
    experts = 8,
    topk = 2,
    aux_loss_coeff = 0.01,
    z_loss_coeff = 0.001,
  },
  padding = { sequence = "megatron" },   -- to a multiple of tp, as Megatron-Core does
  run = { workloads = { "mlp", "router", "context" }, warmup = 2, iterations = 10 },
}
