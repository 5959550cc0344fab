-- Configs as users write them: bad ones with the exact message, good ones with what they hold. Drives
-- tests/unit/config_dump.c, which loads a config as pgrun does; $PGRUN names it.
local shell = require("shell")

-- Runs the program on a config; the file's name in what it prints becomes FILE.
local function load_config(text, sets)
  local path = shell.file(text)
  local words = { path }
  for _, set in ipairs(sets or {}) do
    words[#words + 1] = "--set"
    words[#words + 1] = set
  end
  local result = shell.pgrun(table.unpack(words))
  os.remove(path)
  local at, to = result.out:find(path, 1, true)
  while at do
    result.out = result.out:sub(1, at - 1) .. "FILE" .. result.out:sub(to + 1)
    at, to = result.out:find(path, at + 4, true)
  end
  return result
end

local SIZE = "an integer from 1 to 2^40"
local PARALLEL = "tp, cp, pp, ep, etp, dp, order, sequence_parallel, vpp, pp_split, first_stage_layers, "
  .. "last_stage_layers, stage_layers, hierarchical_cp, hybrid_cp, optimizer_instances, rank_offset, "
  .. "tp_comm_overlap, mode, expert_view, grid, views"
local RETURNS = "it must return a table, such as return { parallel = { tp = 2 } }"
local MORE = "; a config has base, string, table and math, without what reaches outside"
local LONG = "it runs too long: more than 50 million instructions or 5 seconds; "
  .. "a config may compute, but not loop for ever"
local LARGE = "it needs more than 64 MiB of memory, the most that a config may use"

-- { config, message }
local bad = {
  -- the file as a whole
  { "return 5", "FILE: the config returns a number; " .. RETURNS },
  { "return 'x'", "FILE: the config returns a string; " .. RETURNS },
  { "return function() end", "FILE: the config returns a function; " .. RETURNS },
  { "local x = 1", "FILE: the config returns nothing; " .. RETURNS },
  { "", "FILE: the file is empty; a config returns a table, such as return { parallel = { tp = 2 } }" },
  { "return {", "FILE:1: unexpected symbol near <eof>" },
  { "return {\n  parallel = { tp = },\n}", "FILE:2: unexpected symbol near '}'" },
  { "\27LuaS", "FILE: this is compiled Lua code; a config is text" },
  { "error('mine')", "FILE:1: mine" },
  { "error('mine', 0)", "FILE: mine" },
  { "error()", "FILE: it called error() without a message" },
  { "error({})", "FILE: it raised an error that is a table, not a message" },
  { "\nlocal x\nreturn { parallel = x.y }", "FILE:3: attempt to index a nil value (local 'x')" },
  { "#!/usr/bin/env pgrun\nreturn { parallel = { tp = 0 } }", "FILE:2:28: parallel.tp: found 0; allowed: " .. SIZE },
  -- the sandbox
  { "return { parallel = { tp = os.getenv('X') } }", "FILE:1: attempt to index a nil value (global 'os')" .. MORE },
  { "io.write('x')", "FILE:1: attempt to index a nil value (global 'io')" .. MORE },
  { "print('x')", "FILE:1: attempt to call a nil value (global 'print')" .. MORE },
  { "require('x')", "FILE:1: attempt to call a nil value (global 'require')" .. MORE },
  { "load('return 1')()", "FILE:1: attempt to call a nil value (global 'load')" .. MORE },
  { "debug.sethook()", "FILE:1: attempt to index a nil value (global 'debug')" .. MORE },
  { "collectgarbage('stop')", "FILE:1: attempt to call a nil value (global 'collectgarbage')" .. MORE },
  { "xpcall(error, print)", "FILE:1: attempt to call a nil value (global 'xpcall')" .. MORE },
  { "string.dump(pairs)", "FILE:1: attempt to call a nil value (field 'dump')" },
  { "setmetatable({}, { __gc = error })", "FILE:1: __gc is not there in a config" },
  { "setmetatable({}, { __mode = 'k' })", "FILE:1: __mode is not there in a config" },
  { "getmetatable('').__index = nil", "FILE:1: attempt to index a boolean value" },
  { "string.format('%p', {})", "FILE:1: %p is not there in a config: addresses differ between ranks" },
  { "for _ in pairs({ [{}] = 1 }) do end",
    "FILE:1: a key that is a table has no place in a fixed order; use numbers or strings" },
  { "math.randomseed()", "FILE:1: bad argument #1 to 'randomseed' (number expected, got no value)" },
  { "while true do end", "FILE: " .. LONG },
  { "while true do pcall(function() while true do end end) end", "FILE: " .. LONG },
  { "for i = 1, 1e9 do local t <close> = setmetatable({}, { __close = function() while true do end end }) end",
    "FILE: " .. LONG },
  { "return (''):rep(1 << 60)", "FILE: " .. LONG },
  { "return string.rep('(', 20000000):find('%b()')", "FILE: " .. LONG }, -- no hook inside
  { "local s = string.rep('a', 15000000) while true do local _ = s .. 'b' end", "FILE: " .. LONG }, -- by time
  { "table.move({}, 1, 1 << 50, 2)", "FILE: " .. LONG },
  { "return ('a'):rep(100000):find(('a*'):rep(20) .. 'b')", "FILE: " .. LONG },
  { "local t = {} for i = 1, 1e9 do t[i] = i end", "FILE: " .. LARGE },
  { "while true do pcall(function() local s = 'x' while true do s = s .. s end end) end", "FILE: " .. LARGE },
  { "local function f() return f() + 1 end f()", "FILE: " .. LARGE },
  -- keys
  { "return {}", "FILE: parallel: found nothing; allowed: a table with the layout, such as parallel = { tp = 2 }" },
  { "return { paralel = {} }",
    "FILE:1:10: paralel: found an unknown key; allowed: world_size, parallel, cluster, model, moe, padding, run, "
      .. "experiment; did you mean `parallel`?\n"
      .. "FILE: parallel: found nothing; allowed: a table with the layout, such as parallel = { tp = 2 }" },
  { "return { parallel = 3 }", "FILE:1:21: parallel: found 3, an integer; allowed: a table" },
  { "return { parallel = { tq = 1 } }",
    "FILE:1:23: parallel.tq: found an unknown key; allowed: " .. PARALLEL .. "; did you mean `tp`?" },
  { "return { parallel = { edp = 1 } }",
    "FILE:1:23: parallel.edp: found an unknown key; allowed: " .. PARALLEL
      .. "; edp is derived: world_size / (etp * ep * pp)" },
  { "return { parallel = { hidden = 1 } }",
    "FILE:1:23: parallel.hidden: found an unknown key; allowed: " .. PARALLEL .. "; did you mean `model.hidden`?" },
  { "return { parallel = { zzzzzz = 1 } }", "FILE:1:23: parallel.zzzzzz: found an unknown key; allowed: " .. PARALLEL },
  { "return { parallel = { 4 } }", "FILE:1:23: parallel[1]: found a value without a name; allowed: NAME = value" },
  { "return { parallel = {}, cluster = { gpu_per_node = 8 } }",
    "FILE:1:37: cluster.gpu_per_node: found an unknown key; allowed: gpus_per_node, nvlink_domain; "
      .. "did you mean `gpus_per_node`?" },
  -- integers, numbers, booleans, strings
  { "return { parallel = { tp = 2.5 } }", "FILE:1:28: parallel.tp: found 2.5, a float; allowed: " .. SIZE },
  { "return { parallel = { tp = 2.0 } }", "FILE:1:28: parallel.tp: found 2.0, a float; allowed: " .. SIZE },
  { "return { parallel = { tp = '2' } }", 'FILE:1:28: parallel.tp: found "2", a string; allowed: ' .. SIZE },
  { "return { parallel = { tp = true } }", "FILE:1:28: parallel.tp: found true; allowed: " .. SIZE },
  { "return { parallel = { tp = {} } }", "FILE:1:28: parallel.tp: found a table; allowed: " .. SIZE },
  { "return { parallel = { tp = -1 } }", "FILE:1:28: parallel.tp: found -1; allowed: " .. SIZE },
  { "return { parallel = { tp = 1 << 41 } }", "FILE:1:28: parallel.tp: found 2199023255552; allowed: " .. SIZE },
  { "return { world_size = 0, parallel = {} }", "FILE:1:23: world_size: found 0; allowed: " .. SIZE },
  { "return { parallel = { sequence_parallel = 1 } }",
    "FILE:1:43: parallel.sequence_parallel: found 1, an integer; allowed: true or false" },
  { "return { parallel = { order = 3 } }",
    "FILE:1:31: parallel.order: found 3, an integer; allowed: a string of 1 to 63 bytes" },
  { "return { parallel = { order = '' } }", 'FILE:1:31: parallel.order: found ""; allowed: a string of 1 to 63 bytes' },
  { "return { parallel = {}, run = { iterations = 0 } }",
    "FILE:1:46: run.iterations: found 0; allowed: an integer from 1 to 1000000" },
  { "return { parallel = {}, run = { seed = -1 } }", "FILE:1:40: run.seed: found -1; allowed: an integer >= 0" },
  { "return { parallel = {}, run = { timeout = 0 } }",
    "FILE:1:43: run.timeout: found 0; allowed: a number from 0.1 to 1e+07" },
  { "return { parallel = {}, run = { timeout = 1e-9 } }",
    "FILE:1:43: run.timeout: found 1e-09; allowed: a number from 0.1 to 1e+07" },
  { "return { parallel = {}, run = { init_timeout = 0.09 } }",
    "FILE:1:48: run.init_timeout: found 0.09; allowed: a number from 0.1 to 1e+07" },
  { "return { parallel = {}, moe = { scaling = 0 } }",
    "FILE:1:43: moe.scaling: found 0; allowed: a number from 1e-06 to 1e+06" },
  { "return { parallel = {}, run = { timeout = 0/0 } }",
    "FILE:1:43: run.timeout: found nan; allowed: a number from 0.1 to 1e+07" },
  { "return { parallel = {}, moe = { z_loss_coeff = '1' } }",
    'FILE:1:48: moe.z_loss_coeff: found "1", a string; allowed: a number >= 0, up to 1e+12' },
  -- choices and lists
  { "return { parallel = {}, model = { dtype = 'f16' } }",
    'FILE:1:43: model.dtype: found "f16"; allowed: "f32" or "bf16"; f16 is not one of pgrun\'s dtypes' },
  { "return { parallel = {}, model = { fp8_recipe = '' } }",
    'FILE:1:48: model.fp8_recipe: found ""; allowed: "delayed", "tensorwise", "blockwise" or "mxfp8"' },
  { "return { parallel = {}, moe = { score = 'Sigmoid' } }",
    'FILE:1:41: moe.score: found "Sigmoid"; allowed: "softmax", "sigmoid" or "sqrtsoftplus"; did you mean `sigmoid`?' },
  { "return { parallel = {}, run = { workloads = 'mlp' } }",
    'FILE:1:45: run.workloads: found "mlp", a string; allowed: a list of "mlp", "router" or "context"' },
  { "return { parallel = {}, run = { workloads = { 'mlp', 'routr' } } }",
    'FILE:1:54: run.workloads[2]: found "routr"; allowed: "mlp", "router" or "context"; did you mean `router`?' },
  { "return { parallel = {}, run = { workloads = { 'mlp', 'mlp' } } }",
    'FILE:1:54: run.workloads[2]: found "mlp"; allowed: each name once' },
  { "return { parallel = {}, run = { workloads = { mlp = true } } }",
    'FILE:1:45: run.workloads: found a table with the key "mlp"; allowed: a list of "mlp", "router" or "context", '
      .. "without keys or holes" },
  { "return { parallel = {}, run = { collectives = { 'all_reduc' } } }",
    'FILE:1:49: run.collectives[1]: found "all_reduc"; allowed: "all_reduce", "all_gather", "reduce_scatter", '
      .. '"all_to_all", "broadcast" or "send_recv"; did you mean `all_reduce`?' },
  { "return { parallel = { stage_layers = {} } }",
    "FILE:1:38: parallel.stage_layers: found an empty list; allowed: a list of integers from 0 to 2^40" },
  { "return { parallel = {}, model = { layers = 32 }, moe = { layer_pattern = { 1 } } }",
    "FILE:1:74: moe.layer_pattern: found 1 entry, and model.layers is 32; allowed: an entry for each layer, or one "
    .. "number n for every n-th layer" },
  { "return { parallel = {}, moe = { layer_pattern = { 0, 2 } } }",
    "FILE:1:54: moe.layer_pattern[2]: found 2; allowed: an integer from 0 to 1" },
  { "return { parallel = { grid = { {'tp', 2}, {'a'}, {'b'} } } }",
    "FILE:1:30: parallel.grid: found 2 axes without a size; allowed: at most one" },
  { "return { parallel = { grid = { {'tp', 2}, {'tp'} } } }",
    'FILE:1:44: parallel.grid[2][1]: found "tp"; allowed: each axis once' },
  { "return { parallel = { grid = { {'dp'} }, views = { a = { {'ep', 0} } } } }",
    "FILE:1:65: parallel.views.a[1][2]: found 0; allowed: " .. SIZE },
  { "return { parallel = {}, run = { nccl = { tp = { max_cta = 1 } } } }",
    "FILE:1:49: run.nccl.tp.max_cta: found an unknown key; allowed: max_ctas, cga_cluster_size, traffic_class, "
      .. "split_share, high_priority, net_name; did you mean `max_ctas`?" },
  { "return { parallel = {}, run = { nccl = { tp = { max_ctas = 65 } } } }",
    "FILE:1:60: run.nccl.tp.max_ctas: found 65; allowed: an integer from 1 to 64" },
  { "return { parallel = {}, run = { nccl = { tp = { max_ctas = 0 } } } }",
    "FILE:1:60: run.nccl.tp.max_ctas: found 0; allowed: an integer from 1 to 64" },
  { "return { parallel = {}, run = { nccl = { dp = { cga_cluster_size = 9 } } } }",
    "FILE:1:68: run.nccl.dp.cga_cluster_size: found 9; allowed: an integer from 0 to 8" },
  { "return { parallel = {}, run = { nccl = { dp = { cga_cluster_size = -1 } } } }",
    "FILE:1:68: run.nccl.dp.cga_cluster_size: found -1; allowed: an integer from 0 to 8" },
  { "return { parallel = {}, run = { nccl = { tp = { traffic_class = 2147483648 } } } }",
    "FILE:1:65: run.nccl.tp.traffic_class: found 2147483648; allowed: an integer from 0 to 2147483647" },
  { "return { parallel = {}, run = { nccl = { tp = { traffic_class = -1 } } } }",
    "FILE:1:65: run.nccl.tp.traffic_class: found -1; allowed: an integer from 0 to 2147483647" },
  { "return { parallel = {}, run = { nccl = { tp = { split_share = 1 } } } }",
    "FILE:1:63: run.nccl.tp.split_share: found 1, an integer; allowed: true or false" },
  { "return { parallel = {}, run = { nccl = { tp = { high_priority = 'yes' } } } }",
    'FILE:1:65: run.nccl.tp.high_priority: found "yes", a string; allowed: true or false' },
  { "return { parallel = {}, run = { nccl = { tp = { net_name = '' } } } }",
    'FILE:1:60: run.nccl.tp.net_name: found ""; allowed: a string of 1 to 63 bytes' },
  { "return { parallel = {}, run = { nccl = { tp = { net_name = true } } } }",
    "FILE:1:60: run.nccl.tp.net_name: found true; allowed: a string of 1 to 63 bytes" },
  { "return { parallel = {}, run = { nccl = { tp = 16 } } }",
    "FILE:1:47: run.nccl.tp: found 16, an integer; allowed: a table such as { max_ctas = 8 }" },
  { "return { parallel = {}, run = { nccl = { [1] = { max_ctas = 8 } } } }",
    "FILE:1:40: run.nccl: found 1, an integer; allowed: names of 1 to 63 bytes as keys" },
  { "return { parallel = {}, experiment = 'x' }", 'FILE:1:38: experiment: found "x", a string; allowed: a function' },
  -- where values stand
  { "local p = { tp = 0 }\nlocal c = { parallel = p }\nc.model = { hidden = 'a' }\np.cp = -1\nreturn c",
    "FILE:1:18: parallel.tp: found 0; allowed: " .. SIZE .. '\nFILE:3:22: model.hidden: found "a", a string; allowed: '
      .. SIZE .. "\nFILE:4:8: parallel.cp: found -1; allowed: " .. SIZE },
  { "return (function() return { parallel = { tp = 0 } } end)()",
    "FILE:1:47: parallel.tp: found 0; allowed: " .. SIZE },
  { "return setmetatable({ parallel = { tp = 0 } }, { __index = error, __pairs = error })",
    "FILE:1:41: parallel.tp: found 0; allowed: " .. SIZE },
  -- the padding rule
  { "return { parallel = {}, padding = { sequence = 'megatrn' } }",
    'FILE:1:48: padding.sequence: found "megatrn"; allowed: "megatron", ' .. SIZE
      .. ", or a function; did you mean `megatron`?" },
  { "return { parallel = {}, padding = { sequence = 0 } }",
    'FILE:1:48: padding.sequence: found 0; allowed: "megatron", ' .. SIZE .. ", or a function" },
  { "return { parallel = {}, padding = { sequence = function() return 1 end } }",
    "FILE:1:48: padding.sequence: found a function, which is asked about model.seq_len, but model.seq_len is "
      .. "missing; give it, or a multiple here" },
}

-- { what the padding function does, message }
local MULTIPLE = "; allowed: a function that returns a multiple of tokens, such as get_padding's 1 here"
local bad_padding = {
  { "return 0", "the function returned 0; allowed: " .. SIZE },
  { "return -1", "the function returned -1; allowed: " .. SIZE },
  { "return 2.5", "the function returned 2.5, a float; allowed: " .. SIZE },
  { "return nil", "the function returned nil; allowed: " .. SIZE },
  { "return '8'", "the function returned a string; allowed: " .. SIZE },
  { "\nreturn p.x.y", "the function failed: FILE:3: attempt to index a nil value (field 'x')" .. MULTIPLE },
  { "error({})", "the function failed: it raised an error that is a table, not a message" .. MULTIPLE },
  { "while true do end", "the function failed: " .. LONG },
}

-- { --set, message }
local bad_sets = {
  { "parallel.tp=x", '--set parallel.tp=x: found "x", a string; allowed: ' .. SIZE, 1 },
  { "parallel.tp=2.0", "--set parallel.tp=2.0: found 2.0, a float; allowed: " .. SIZE, 1 },
  { "run.workloads={mlp,routr}", '--set run.workloads={mlp,routr}: found "routr"; allowed: "mlp", "router" or '
    .. '"context"; did you mean `router`?', 1 },
  { "paralel.tp=4", "--set paralel.tp=4: there is no key `paralel.tp`; did you mean `parallel.tp`?", 2 },
  { "tp=4", "--set tp=4: there is no key `tp`; did you mean `parallel.tp`?", 2 },
  { "qqqqqq=4", "--set qqqqqq=4: there is no key `qqqqqq`; `pgrun --help config` lists them all", 2 },
  { "parallel=4", "--set parallel=4: `parallel` is a section; set one of its keys, as in --set parallel.KEY=VALUE",
    2 },
  { "parallel.tp", "--set parallel.tp: give KEY=VALUE, as in --set parallel.tp=4", 2 },
  { "parallel.tp=", "--set parallel.tp=: the value cannot be read; give a number, true, false, nil, a word, "
    .. '"text" or a list such as {1, 2}', 2 },
  { "parallel.tp=4 5", '--set parallel.tp=4 5: there is more behind the value; quote it: KEY="..."', 2 },
  { "run.workloads={mlp", "--set run.workloads={mlp: the value cannot be read; give a number, true, false, nil, "
    .. 'a word, "text" or a list such as {1, 2}', 2 },
}

describe("a bad config", function()
  for _, row in ipairs(bad) do
    it("is told exactly: " .. row[1]:gsub("%c", " "):sub(1, 70), function()
      local result = load_config(row[1])
      assert.are.equal(row[2] .. "\n", result.out)
      assert.are.equal("", result.err)
      assert.are.equal(1, result.status)
    end)
  end

  it("has all its problems told in one go, in the file's order", function()
    local result = load_config("return {\n  run = { seed = -1 },\n  parallel = { tp = 0,\n    cp = 'x' },\n}")
    assert.are.equal("FILE:2:18: run.seed: found -1; allowed: an integer >= 0\n"
      .. "FILE:3:21: parallel.tp: found 0; allowed: " .. SIZE .. "\n"
      .. 'FILE:4:10: parallel.cp: found "x", a string; allowed: ' .. SIZE .. "\n", result.out)
  end)

  it("with more problems than a message holds says how many are left", function()
    local result = load_config("return { parallel = {}, padding = { packed = {" .. ("0,"):rep(250) .. "} } }")
    assert.is_truthy(result.out:match("%.%.%. and %d+ more problems\n$"))
    assert.are.equal(1, result.status)
  end)

  it("that is missing, or a directory, is told", function()
    local result = shell.pgrun("/nonexistent/x.lua")
    assert.are.equal("/nonexistent/x.lua: the file cannot be opened: No such file or directory\n", result.out)
    assert.are.equal("/tmp: this is a directory; give a config file\n", shell.pgrun("/tmp").out)
  end)
end)

describe("a padding function", function()
  for _, row in ipairs(bad_padding) do
    it("that does " .. row[1]:gsub("%c", " ") .. " is told exactly", function()
      local result = load_config("return { parallel = {}, model = { seq_len = 9 }, padding = {\n"
        .. "sequence = function(p) " .. row[1] .. " end } }")
      assert.are.equal("FILE:2:12: padding.sequence: " .. row[2] .. "\n", result.out)
      assert.are.equal(1, result.status)
    end)
  end

  it("is asked with the config's sizes", function()
    local result = load_config([[
      return { parallel = { tp = 2, cp = 3, sequence_parallel = true },
               model = { seq_len = 100, decoder_seq_len = 120, fp8 = true, fp8_recipe = "mxfp8" },
               padding = { sequence = function(p)
                 assert(p.sequence_parallel == true and p.tp_comm_overlap == false and p.fp8 == true)
                 assert(p.fp8_recipe == "mxfp8" and p.decoder_seq_len == 120)
                 return p.seq_len * 100 + p.tp * 10 + p.cp
               end } }]])
    assert.is_truthy(result.out:find("\npadding.sequence=multiple 10023 function\n", 1, true), result.out)
  end)
end)

describe("--set", function()
  for _, row in ipairs(bad_sets) do
    it(row[1] .. " is told exactly", function()
      local result = load_config("return { parallel = { tp = 0 }, run = {} }", { "parallel.tp=1", row[1] })
      assert.are.equal(row[2] .. "\n", result.out)
      assert.are.equal(row[3], result.status)
    end)
  end

  it("overrides, adds and removes", function()
    local result = load_config("return { parallel = { tp = 0, cp = 2 } }", {
      "parallel.tp=4", "parallel.cp=nil", "model.hidden=64", "run.workloads={ context, 'mlp' }",
      "parallel.order=tp-dp", "run.timeout=1.5", "parallel.sequence_parallel=true",
      "parallel.views={ e = { {ep, 8}, {dp} } }",
    })
    for _, line in ipairs({ "parallel.tp=4", "parallel.cp=1", "model.hidden=64", "run.workloads={2,0}",
      "parallel.order=tp-dp", "run.timeout=1.5", "parallel.sequence_parallel=true", "parallel.views.e=ep:8,dp",
      "has_model=1" }) do
      assert.is_truthy(result.out:find("\n" .. line .. "\n", 1, true), line .. " in " .. result.out)
    end
  end)
end)

describe("a good config", function()
  it("holds what was written", function()
    local result = load_config([[
      return { world_size = 8, parallel = { tp = 2, etp = 1, stage_layers = { 3, 0 }, mode = "infer",
                                            expert_view = false },
               model = { dtype = "bf16", activation = "swiglu", bias = false },
               moe = { experts = 8, layer_pattern = 2, scaling = 2.5, capacity_factor = 1, aux_loss_type = "none" },
               padding = { sequence = 16, packed = { 5, 6 } },
               run = { families = { "tp", "dp-cp" }, collectives = { "send_recv" }, warmup = 0,
                       nccl = { tp = { net_name = "IB", split_share = true } } } }]])
    for _, line in ipairs({ "parallel.etp=1", "parallel.stage_layers={3,0}", "parallel.mode=infer",
      "parallel.expert_view=false", "model.dtype=bf16", "model.activation=swiglu", "model.bias=false",
      "moe.experts=8", "moe.layer_pattern={2}", "moe.scaling=2.5", "moe.capacity_factor=1", "moe.topk=2",
      "moe.aux_loss_type=none", "padding.sequence=multiple 16", "padding.packed={5,6}",
      "run.families={tp,dp-cp}", "families_given=1", "run.collectives={send_recv}", "run.warmup=0",
      "run.nccl.tp=1 0 IB nil", "has_moe=1" }) do
      assert.is_truthy(result.out:find("\n" .. line .. "\n", 1, true), line .. " in " .. result.out)
    end
    assert.are.equal(0, result.status)
  end)

  it("sees the same order and the same random numbers on every run", function()
    local text = [[
      local keys = {}
      for k in pairs({ b = 1, a = 1, [3] = 1, [-1] = 1, [true] = 1, [2.5] = 1 }) do keys[#keys + 1] = tostring(k) end
      error(table.concat(keys, " ") .. " " .. next({ z = 1, y = 2 }) .. " " .. tostring({}) .. " "
        .. math.random(1000000), 0)]]
    local first = load_config(text).out
    assert.is_truthy(first:match("^FILE: %-1 2%.5 3 a b true y table %d+\n$"), first)
    for _ = 1, 4 do
      assert.are.equal(first, load_config(text).out)
    end
    assert.are_not.equal(first, load_config(text, { "run.seed=2" }).out)
  end)

  it("may compute: string methods, table functions, loops, pcall", function()
    local result = load_config([[
      local list = {}
      for word in ("mlp,context"):gmatch("%a+") do table.insert(list, word) end
      table.sort(list, function(a, b) return a > b end)
      local ok, message = pcall(error, "x")
      assert(not ok and message == "x")
      for i = 1, 20000 do table.insert(list, i) end
      while #list > 2 do table.remove(list) end
      return { parallel = { tp = math.max(1, #list) }, run = { workloads = list } }]])
    assert.is_truthy(result.out:find("\nrun.workloads={0,2}\n", 1, true), result.out)
  end)
end)
