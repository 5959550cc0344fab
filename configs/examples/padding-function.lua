-- A padding rule of one's own: to a multiple of 128 for the attention kernel, and of what the layout
-- needs. `p` has seq_len, tp, cp, sequence_parallel, tp_comm_overlap, decoder_seq_len, fp8,
-- fp8_recipe; the function returns a multiple. Any multiple of 4 ranks.
local function lcm(a, b)
  local x, y = a, b
  while y ~= 0 do x, y = y, x % y end
  return a // x * b
end

return {
  parallel = { tp = 1, cp = 4 },
  model = { hidden = 256, ffn = 1024, seq_len = 1000, dtype = "bf16" },
  padding = {
    sequence = function(p) return lcm(128, 2 * p.cp * p.tp) end,
  },
  run = { workloads = { "context", "mlp" } },
}
