-- DeepSeek-V3 on 2,048 H800, as DeepSeek trained it.
-- Source: DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, arXiv 2412.19437, section 3.1 (2,048 GPUs, 8 in
-- a node), 3.2 (16-way pipeline, 64-way experts over 8 nodes, ZeRO-1 data parallelism, no tensor
-- parallelism), 4.2 (shapes, sequence 4K, batch 15,360 after the ramp, at most 4 of the 8 nodes for a token,
-- balance loss per sequence 0.0001), 2.1.2 (sigmoid, bias per expert in the choice alone).
-- Not given, left out: how 61 layers fall on 16 stages (so layers and the three dense first layers are not
-- here), the dense ffn, micro batch, the exact vocabulary (128K), the routing scale. Attention is MLA and
-- training is fp8 with scales of its own, which no key says. etp is 1 since there is no tensor parallelism.
return {
  world_size = 2048,
  parallel = { tp = 1, pp = 16, ep = 64, etp = 1 },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 7168,
    heads = 128,
    head_dim = 128,
    seq_len = 4096,
    global_batch = 15360,
  },
  moe = {
    experts = 256,
    topk = 8,
    ffn = 2048,
    shared_ffn = 2048,
    score = "sigmoid",
    groups = 8,
    group_topk = 4,
    expert_bias = true,
    aux_loss_type = "seq_aux_loss",
    aux_loss_coeff = 0.0001,
  },
}
