-- Documents of different lengths packed into one sample of 4,096 tokens: each is padded to a multiple
-- of 2 * cp and split over cp by itself, so that every rank has a part of each document's beginning
-- and end. padding.packed takes the place of model.seq_len. Any multiple of 4 ranks.
return {
  parallel = { tp = 2, cp = 2, ep = 2, etp = 1, sequence_parallel = true },
  model = { hidden = 256, ffn = 512 },
  moe = { experts = 8, topk = 2 },
  padding = { packed = { 1187, 893, 614, 507, 388, 201, 166, 97, 31, 12 } },
  run = { workloads = { "context", "mlp", "router" } },
}
