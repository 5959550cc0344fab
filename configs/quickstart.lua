-- The quickstart: tensor 2 x context 2 x data N/4, with 8 experts over 4 ranks.
--
--   mpirun -n 8 pgrun configs/quickstart.lua       (any multiple of 4 ranks)
--
-- quickstart-1.lua and quickstart-2.lua are the same model on one and on two ranks.
return {
  parallel = {
    tp = 2,                     -- tensor parallel: each linear layer is cut in two
    cp = 2,                     -- context parallel: each sequence is cut in two, zig-zag
    ep = 4,                     -- expert parallel: 8 experts over 4 ranks
    etp = 1,                    -- experts are not cut (left out, etp would equal tp)
    sequence_parallel = true,   -- activations between the layers are cut over tp too
  },                            -- data parallel is what remains: 8 / (tp * cp) = 2
  model = {
    hidden = 512,
    ffn = 2048,
    seq_len = 1021,             -- padded to 1024 by the rule below
    micro_batch = 1,
    dtype = "f32",
  },
  moe = {
    experts = 8,
    topk = 2,
    aux_loss_coeff = 0.01,
    z_loss_coeff = 0.001,
  },
  padding = { sequence = "megatron" },   -- to a multiple of 2 * tp * cp, as Megatron-Core does
  run = { workloads = { "mlp", "router", "context" }, warmup = 2, iterations = 10 },
}
