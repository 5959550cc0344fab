-- The ranks of vLLM: tensor parallel varies fastest, then prefill context parallel (here cp), pipeline,
-- data parallel, and external data parallel, which the world gives. Any multiple of 16 ranks.
-- docs/vllm.md says which family is which of vLLM's groups.
local tp, cp, pp, dp = 4, 1, 2, 2
local dcp = 2 -- decode context parallel: neighbours within a tp group

return {
  parallel = {
    grid = { { "tp", tp }, { "cp", cp }, { "pp", pp }, { "dp", dp }, { "external_dp" } },
    views = {
      decode = { { "dcp", dcp }, { "dcp_copies" }, { "cp" }, { "pp" }, { "dp" }, { "external_dp" } },
    },
  },
}
