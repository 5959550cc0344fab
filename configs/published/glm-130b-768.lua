-- GLM-130B on 96 DGX A100 (768 A100, 40 GB).
-- Source: Zeng et al., "GLM-130B: An Open Bilingual Pre-trained Model", ICLR 2023, arXiv 2210.02414, section
-- 2.3 (servers, 4-way tensor and 8-way pipeline parallelism, batch 4,224, hidden 12,288, "removing one layer"
-- from both ends, "9 x 8 - 2 = 70" layers) and Table 11 (its settings: tp, pp, dp 24, world size 768, shapes,
-- sequence, batches).
-- Not given, left out: vocabulary, sequence parallelism. Its activation is GeGLU, no value of activation.
-- fp16 is no value of model.dtype.
return {
  world_size = 768,
  parallel = {
    tp = 4,
    pp = 8,
    dp = 24,
    first_stage_layers = 8,
    last_stage_layers = 8,
    expert_view = false,
  },
  cluster = { gpus_per_node = 8 },
  model = {
    hidden = 12288,
    ffn = 32768,
    heads = 96,
    layers = 70,
    seq_len = 2048,
    micro_batch = 1,
    global_batch = 4224,
  },
}
