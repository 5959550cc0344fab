-- Not a legal layout: README.md and docs/ci.md show what `pgrun check` says of it.
return {
  world_size = 96,
  parallel = { tp = 3, pp = 2, ep = 16, etp = 1, sequence_parallel = true },
  model = {
    layers = 30,
    heads = 52,
  },
  moe = { experts = 8, topk = 2 },
}
