-- Runs under mpirun, as a user sees them: bad input and faults end all ranks soon, with one message
-- and the right exit status; good runs report what they did.
local shell = require("shell")
local json = require("dkjson")
local job = require("job")
local program = shell.quote(os.getenv("PGRUN"))

-- run(ranks, environment, words...) runs pgrun on that many ranks of this host.
local function run(ranks, environment, ...)
  local words = { "env", environment, "tests/mpirun.sh", tostring(ranks), program }
  for _, word in ipairs({ ... }) do
    words[#words + 1] = shell.quote(word)
  end
  local start = os.time()
  local got = shell.command(table.concat(words, " "))
  got.seconds = os.time() - start
  return got
end

local function count(text, what)
  return select(2, text:gsub(what, ""))
end

-- What pgrun said: from its one "pgrun: error: " at the start of a line up to mpirun's own notices,
-- which begin with a rule of dashes or with [HOST:PID].
local function message_of(err)
  local message
  for line in err:gmatch("[^\n]*") do
    if line:find("^pgrun: error: ") then
      message = line
    elseif message and (line:find("^%-%-%-") or line:find("^%[.*:%d+%]")) then
      break
    elseif message then
      message = message .. "\n" .. line
    end
  end
  return message or ""
end

-- One message that contains `want`, on standard error, soon; nothing that looks like a result.
local function refused(got, status, want)
  assert.equal(status, got.status, got.err)
  assert.equal(1, count(got.err, "pgrun: error:"), got.err)
  assert.is_truthy(message_of(got.err):find(want, #"pgrun: error: " + 1, true), got.err)
  assert.is_nil(got.out:find("verified", 1, true))
  assert.is_true(got.seconds < 20)
end

local function config(text)
  return shell.file(text)
end

-- A config with this padding function.
local function padded(body)
  return "return { parallel = { tp = 1 }, model = { hidden = 64, ffn = 64, seq_len = 8 }, "
    .. "run = { workloads = { 'mlp' } }, padding = { sequence = " .. body .. " } }"
end

-- A config with this router.
local function routed(moe)
  return "return { parallel = {}, model = { hidden = 64, seq_len = 8 }, moe = { " .. moe .. " }, "
    .. "run = { workloads = { 'router' } } }"
end

local eight = "configs/quickstart.lua"

describe("a bad config under mpirun", function()
  local cases = {
    { "an empty file", "", "the file is empty" },
    { "a syntax error", "return {", "unexpected symbol near <eof>" },
    { "a number", "return 5", "the config returns a number" },
    { "an endless loop", "while true do end", "it runs too long" },
    { "one that eats memory", "local t = {} while true do t[#t + 1] = ('x'):rep(1000000) .. #t end",
      "it needs more than 64 MiB of memory" },
    { "an error in the padding function", padded("function() error('no such rule') end"),
      "padding.sequence: the function failed: " },
    { "a padding of 0", padded("function() return 0 end"), "the function returned 0" },
    { "a padding of -1", padded("function() return -1 end"), "the function returned -1" },
    { "a padding of 2.5", padded("function() return 2.5 end"), "the function returned 2.5" },
    { "a padding of nil", padded("function() end"), "the function returned nil" },
    { "an unknown workload", "return { parallel = {}, run = { workloads = { 'mpl' } } }",
      "did you mean `mlp`?" },
    { "what a workload needs", "return { parallel = {}, run = { workloads = { 'mlp' } } }",
      'workload "mlp" needs model.hidden, which the config does not give' },
    { "a feature of later", routed("experts = 8, capacity_factor = 1, pad_to_capacity = true"),
      "what a run does not have yet: sending tokens to experts, whose input is what padding to "
      .. "capacity fills (moe.pad_to_capacity)", 3 },
    { "ffn that tp does not divide", "return { parallel = { tp = 2 }, model = { hidden = 64, "
      .. "ffn = 63, seq_len = 8 }, run = { workloads = { 'mlp' } } }",
      "tp = 2 does not divide model.ffn = 63; tp can be 1, 3, 7, 9, 21, 63" },
    { "experts that ep does not divide", "return { parallel = { ep = 2, etp = 1 }, "
      .. "moe = { experts = 7 }, model = { hidden = 64, seq_len = 8 }, run = { workloads = { 'router' } } }",
      "ep = 2 does not divide moe.experts = 7; ep can be 1, 7" },
    { "sizes that do not fit", "return { parallel = {}, "
      .. "model = { hidden = 64, ffn = 64, seq_len = 2^24 | 0, micro_batch = 2^40 | 0 }, "
      .. "run = { workloads = { 'mlp' } } }", "does not fit in 63 bits" },
    { "more choices than experts", "return { parallel = {}, moe = { experts = 4, topk = 5 }, "
      .. "model = { hidden = 64, seq_len = 8 }, run = { workloads = { 'router' } } }",
      "moe.topk = 5 is larger than moe.experts = 4" },
    { "a padding that does not fit", "return { parallel = { tp = 1, cp = 2 }, padding = { sequence = 2 }, "
      .. "model = { hidden = 64, ffn = 64, seq_len = 6 }, run = { workloads = { 'mlp' } } }",
      "is not a multiple of 4 = lcm(2*cp, tp*cp)" },
  }
  for _, case in ipairs(cases) do
    it("is told once: " .. case[1], function()
      local file = config(case[2])
      local got = run(2, "", file)
      os.remove(file)
      refused(got, case[4] or 1, case[3])
    end)
  end

  it("is told once: a missing file", function()
    refused(run(4, "", "/nonexistent.lua"), 1, "/nonexistent.lua: the file cannot be opened")
  end)
  it("is told once: a directory", function()
    refused(run(2, "", "configs"), 1, "configs: this is a directory")
  end)
end)

-- Of one rank, which starts sooner.
describe("a bad router", function()
  local cases = {
    { "groups that do not divide", routed("experts = 64, topk = 8, groups = 7, group_topk = 4"),
      "groups = 7 does not divide moe.experts = 64; groups can be 1, 2, 4, 8, 16, 32, 64" },
    { "more groups than there are", routed("experts = 64, topk = 8, groups = 4, group_topk = 8"),
      "moe.group_topk = 8 is larger than moe.groups = 4; it can be 1 to 4" },
    { "groups that topk is no multiple of", routed("experts = 64, topk = 8, groups = 8, group_topk = 3"),
      "group_topk = 3 does not divide moe.topk = 8; group_topk can be 1, 2, 4, 8" },
    { "groups that are too small", routed("experts = 64, topk = 8, groups = 32, group_topk = 2"),
      "moe.group_topk = 2 groups of 2 experts hold 4, fewer than moe.topk = 8" },
    { "a choice among no groups", routed("experts = 64, topk = 8, group_topk = 2"),
      "moe.group_topk = 2 is given, but moe.groups is not" },
    { "an expert bias on softmax", routed("experts = 8, expert_bias = true"),
      'moe.expert_bias does not go with moe.score = "softmax"' },
  }
  for _, case in ipairs(cases) do
    it("is told once: " .. case[1], function()
      local file = config(case[2])
      local got = shell.pgrun(file)
      os.remove(file)
      got.seconds = 0
      refused(got, 1, file .. ": " .. case[3])
    end)
  end
end)

describe("a job of the wrong size", function()
  it("names the product and the sizes that fit", function()
    refused(run(7, "", eight), 1, "tp * cp * pp = 2 * 2 * 1 = 4; the nearest sizes that fit are 4 and 8")
  end)
  it("names the size that the config declares", function()
    refused(run(8, "", eight, "--set", "world_size=16"), 1,
      "world_size = 16, but the job has 8 ranks; run it with: mpirun -n 16 pgrun " .. eight)
  end)
  it("names the command that starts more", function()
    local got = shell.pgrun(eight)
    refused({ status = got.status, out = got.out, err = got.err, seconds = 0 }, 1,
      "run it with: mpirun -n 4 pgrun " .. eight)
  end)
  it("is one error where a launcher meant one job and made many", function()
    local told = shell.command("SLURM_NTASKS=8 SLURM_PROCID=0 " .. program .. " " .. eight)
    local silent = shell.command("SLURM_NTASKS=8 SLURM_PROCID=5 " .. program .. " " .. eight)
    assert.equal(2, told.status)
    assert.equal(2, silent.status)
    assert.is_truthy(told.err:find("srun --mpi=pmix", 1, true))
    assert.equal("", silent.err)
    assert.equal("", told.out .. silent.out)
  end)
end)

describe("what a run needs", function()
  it("is named: a report folder that can be written", function()
    refused(run(2, "", "configs/quickstart-2.lua", "--report", "/proc/nowhere"), 3,
      "--report /proc/nowhere: cannot make the folder")
  end)
  it("is named: a module", function()
    refused(run(2, "PGRUN_MODULE_PATH=/nonexistent", "configs/quickstart-2.lua"), 3,
      "cannot open libpgrun_mpi.so")
    local got = shell.command("PGRUN_MODULE_PATH=/nonexistent " .. program .. " configs/quickstart-1.lua")
    refused({ status = got.status, out = got.out, err = got.err, seconds = 0 }, 3,
      "cannot open libpgrun_cpu.so")
  end)
  it("is named: an option that exists", function()
    refused(run(2, "", eight, "--reprot", "x"), 2, "unknown option --reprot; did you mean --report?")
  end)
  it("is named: a family that a workload uses", function()
    refused(run(2, "", "configs/quickstart-2.lua", "--set", 'run.families={"dp"}'), 1,
      'run.families leaves out tp, which workload "mlp" uses')
  end)
  it("is named: a family whose options run.nccl gives", function()
    refused(run(2, "", "configs/quickstart-2.lua", "--set", "run.nccl={ ttp = { max_ctas = 8 } }"), 1, "run.nccl: ")
    local twice = config([[return { parallel = { tp = 2 }, model = { hidden = 64, ffn = 64, seq_len = 8 },
      run = { workloads = { "mlp" }, nccl = { ["tp-cp"] = { max_ctas = 8 }, ["cp-tp"] = { max_ctas = 8 } } } }]])
    refused(run(2, "", twice), 1, "run.nccl: cp-tp and tp-cp are one family; give its options once")
  end)
end)

-- The rows of rows.jsonl of a run, by workload.
local function rows_of(ranks, file, ...)
  local folder = os.tmpname()
  os.remove(folder)
  local got = run(ranks, "", file, "--report", folder .. "/made/deep", ...)
  assert.equal(0, got.status, got.err .. got.out)
  local rows = {}
  for line in io.lines(folder .. "/made/deep/rows.jsonl") do
    local row = assert(json.decode(line), line)
    rows[row.workload == "open" and "open " .. row.group or row.workload] = row
  end
  os.execute("rm -r " .. shell.quote(folder))
  return rows, got
end

local function verified(rows, ranks)
  for _, workload in ipairs({ "mlp", "router", "context" }) do
    local row = assert(rows[workload], workload)
    assert.is_true(row.verify.ok)
    assert.is_true(row.verify.checked > 0 and row.verify.max_err <= row.verify.tolerance)
    assert.equal(ranks, row.ranks)
    assert.equal("cpu", row.device)
    assert.is_true(row.time_ms.min <= row.time_ms.median and row.time_ms.median <= row.time_ms.p95)
    for _, key in ipairs({ "shape", "dtype", "group", "comm", "compute_ms", "communication_ms" }) do
      assert.is_truthy(row[key], key)
    end
  end
end

describe("a good run", function()
  it("verifies the quickstart on 8 ranks and writes its rows", function()
    local rows, got = rows_of(8, eight)
    verified(rows, 8)
    assert.same({ tp = 2, cp = 2, dp = 2, pp = 1, etp = 1, ep = 4, edp = 2 }, rows.layout.axes)
    assert.equal(4, rows["open tp"].groups)
    assert.is_true(rows["open tp"].open_ms > 0)
    assert.equal(10, rows.mlp.time_ms.iterations)
    assert.is_truthy(got.out:find("3 workloads verified", 1, true))
  end)
  for ranks, file in pairs({ [1] = "configs/quickstart-1.lua", [2] = "configs/quickstart-2.lua", [4] = eight }) do
    it("verifies the quickstart on " .. ranks, function()
      verified(rows_of(ranks, file), ranks)
    end)
  end
  it("verifies bf16, and says so", function()
    local rows = rows_of(8, eight, "--set", "model.dtype=bf16", "--set", "model.activation=swiglu")
    verified(rows, 8)
    assert.equal("bf16", rows.mlp.dtype)
    assert.is_true(rows.mlp.verify.tolerance > 1e-3 and rows.mlp.verify.tolerance < 0.1)
  end)
  for _, example in ipairs({ "packed", "padding-function", "router-capacity", "router-groups", "swiglu-bf16" }) do
    it("verifies the example " .. example, function()
      local got = run(4, "", "configs/examples/" .. example .. ".lua")
      assert.equal(0, got.status, got.err .. got.out)
      local shape = "experts 256, topk 8, groups 8, group_topk 4"
      assert.equal(example == "router-groups", got.out:find(shape, 1, true) ~= nil, got.out)
      local routers = {
        ["router-groups"] = "top 8 of 256, sigmoid with bias, best 4 of 8 groups, scaling 2.5, ",
        ["router-capacity"] = ", capacity ",
      }
      local said = got.out:match("\n#  router    ([^\n]*)")
      assert.equal(routers[example] ~= nil or example == "packed", said ~= nil, got.out)
      assert.is_truthy((said or ""):find(routers[example] or "", 1, true), got.out)
    end)
  end
  it("says how many packed sequences there are, and what padding makes of them", function()
    local rows, got = rows_of(8, "configs/examples/packed.lua")
    verified(rows, 8)
    local shape = rows.context.shape
    assert.same({ 10, 4096, 4112, 1028 }, { shape.sequences, shape.seq_len, shape.padded, shape.per_rank })
    assert.is_truthy(got.out:find("10 packed sequences of 4096 tokens padded to 4112, micro batch 1", 1, true))
  end)
  it("gives one rank's results without any launcher", function()
    local got = shell.pgrun("configs/quickstart-1.lua")
    assert.equal(0, got.status, got.err)
    assert.is_truthy(got.out:find("3 workloads verified", 1, true))
  end)
end)

-- A config of small shapes around a layout.
local function around(parallel, rest)
  return config("return { parallel = { " .. parallel .. " }, model = { hidden = 64, ffn = 128, seq_len = 61, "
    .. "micro_batch = 2 }, moe = { experts = 8, topk = 2, aux_loss_type = 'global_aux_loss' }, "
    .. "run = { iterations = 1, warmup = 0 }, " .. (rest or "") .. " }")
end

describe("a run of a grid", function()
  local expert = "views = { expert = { { 'etp', 1 }, { 'ep', 4 }, { 'edp' } } }"

  it("verifies all workloads beside an axis of its own, whose ranks hold copies", function()
    for _, shared in ipairs({ "", ", sequence_parallel = true" }) do
      local file = around("grid = { { 'tp', 2 }, { 'mine', 2 }, { 'dp' } }, " .. expert .. shared)
      local rows, got = rows_of(8, file)
      os.remove(file)
      verified(rows, 8)
      assert.same({ tp = 2, mine = 2, dp = 2, cp = 1, pp = 1, etp = 1, ep = 4, edp = 2 }, rows.layout.axes)
      assert.is_truthy(got.out:find("layout    dense tp 2 x mine 2 x dp 2", 1, true), got.out)
      assert.is_truthy(got.out:find("note      ranks along mine hold copies", 1, true), got.out)
    end
  end)
  it("gives what the short form gives", function()
    local grid = around("sequence_parallel = true, grid = { { 'tp', 2 }, { 'cp', 2 }, { 'dp' } }, " .. expert)
    local short = around("sequence_parallel = true, tp = 2, cp = 2, ep = 4, etp = 1")
    local a, b = rows_of(8, grid), rows_of(8, short)
    os.remove(grid)
    os.remove(short)
    verified(a, 8)
    for _, workload in ipairs({ "mlp", "router", "context" }) do
      assert.same(b[workload].shape, a[workload].shape)
      assert.same(b[workload].verify, a[workload].verify)
    end
    assert.same(b.layout.axes, a.layout.axes)
  end)
  it("pads to the size of the axis that is left open", function()
    local file = around("sequence_parallel = true, grid = { { 'cp', 2 }, { 'tp' } }")
    local rows = rows_of(8, file)
    os.remove(file)
    verified(rows, 8)
    assert.equal(64, rows.context.shape.padded) -- 61 to a multiple of 2 * cp * tp = 16
    assert.equal(32, rows.mlp.shape.ffn_per_rank)
  end)
  it("is refused where tokens are cut over an axis of another view", function()
    local file = around("grid = { { 'tp', 2 }, { 'rest' } }, views = { other = { { 'dp', 4 }, { 'mine' } } }")
    refused(run(4, "", file), 1,
      "axis dp is in a view of its own, and the workloads cut tokens over tp, cp and dp of one view")
    os.remove(file)
  end)
  it("is refused with a rank offset, which groups and check have", function()
    local file = around("rank_offset = 8")
    refused(run(2, "", file), 3, "a rank offset (only groups and check have it) (parallel.rank_offset)")
    os.remove(file)
  end)
end)

describe("a run that overlaps", function()
  local function overlapping(ranks, ...)
    local file = around("tp = 2, sequence_parallel = true, tp_comm_overlap = true")
    local rows, got = rows_of(ranks, file, "--set", "run.workloads={mlp}", ...)
    os.remove(file)
    assert.equal(0, got.status, got.err .. got.out)
    return rows.mlp, got.out
  end

  it("says in how many chunks, and compares them with the plain order", function()
    local row, out = overlapping(4, "--set", "run.overlap_chunks=7")
    local overlap = row.overlap
    assert.equal(7, overlap.chunks)
    assert.is_true(overlap.verify.ok and overlap.verify.checked > 0)
    assert.is_truthy(overlap.verify.what:find("^overlap ") or overlap.verify.what:find("^plain "))
    assert.is_true(row.verify.checked > overlap.verify.checked)
    assert.is_true(math.abs(overlap.plain_over_overlap - overlap.plain_ms.median / row.time_ms.median)
      < 1e-3 * overlap.plain_over_overlap)
    assert.is_nil(row.busbw_gb_per_s)
    assert.is_false(row.tf32)
    assert.is_truthy(out:find("overlap in 7 chunks, plain order", 1, true), out)
  end)
  it("does not with one chunk, nor without sequence parallelism, and says so", function()
    local row, out = overlapping(4, "--set", "run.overlap_chunks=1")
    assert.is_nil(row.overlap)
    assert.is_truthy(row.busbw_gb_per_s)
    assert.is_nil(out:find("overlap", 1, true), out)
    row, out = overlapping(4, "--set", "parallel.sequence_parallel=false")
    assert.is_nil(row.overlap)
    assert.is_truthy(out:find("tp_comm_overlap overlaps nothing without sequence_parallel and tp > 1", 1, true), out)
  end)
end)

describe("a run that opens every family", function()
  -- All default families of the layout: the rows say what `pgrun groups` says.
  local function opens(ranks, parallel, special)
    local file = around(parallel)
    local told = shell.pgrun("groups", file, "--world-size", ranks, "--format", "json")
    assert.equal(0, told.status, told.err)
    local families, names = json.decode(told.out).groups, {}
    for name in pairs(families) do
      names[#names + 1] = '"' .. name .. '"'
    end
    local rows, got = rows_of(ranks, file, "--set", "run.families={" .. table.concat(names, ",") .. "}")
    os.remove(file)
    verified(rows, ranks)
    for name, groups in pairs(families) do
      local row, placed = assert(rows["open " .. name], name), 0
      for _, group in ipairs(groups) do
        placed = placed + #group
      end
      local first, last = #groups[1], #groups[#groups]
      assert.equal(#groups, row.groups, name)
      assert.equal(first, row.size, name)
      assert.equal(last ~= first and last or nil, row.last_size, name)
      assert.equal(placed < ranks and ranks - placed or nil, row.ranks_in_none, name)
      assert.is_true(row.shared_with ~= nil or (row.open_ms > 0) == (row.size > 1), name)
    end
    for _, name in ipairs(special) do
      assert.is_truthy(rows["open " .. name], name)
    end
    return rows, got.out
  end

  it("with levels of context parallelism, optimizer instances and ranks in no group", function()
    local rows, out = opens(8, "cp = 4, pp = 2, hierarchical_cp = { 2, 2 }, optimizer_instances = 2, "
      .. "order = 'tp-cp-ep-dp-pp', pp_split = 1",
      { "cp/0", "cp/1", "dp-cp/intra", "edp/intra", "edp/inter", "embedding", "optimizer-instance" })
    assert.is_nil(rows["open embedding"].ranks_in_none)
    assert.is_truthy(out:find("\n   cp/1 +2 +4 "), out)
  end)
  it("where middle stages hold no embedding, and hybrid groups are cut", function()
    local rows, out = opens(12, "cp = 4, pp = 3, hybrid_cp = true, pp_split = 1", { "dp-cp/hybrid2" })
    assert.equal(4, rows["open position-embedding"].ranks_in_none)
    assert.is_nil(rows["open embedding"].ranks_in_none) -- first, split and last: all stages
    assert.is_truthy(out:find("(4 ranks are in no group)", 1, true), out)
    rows, out = opens(4, "pp = 4", {})
    assert.equal(2, rows["open embedding"].ranks_in_none)
    assert.is_truthy(out:find("(2 ranks are in no group)", 1, true), out)
  end)
  it("of unequal sizes", function()
    local rows, out = opens(10, "hybrid_cp = true", { "dp-cp/hybrid2", "dp-cp/hybrid4" })
    assert.equal(2, rows["open dp-cp/hybrid4"].last_size)
    assert.is_truthy(out:find("(the last group has 2)", 1, true), out)
  end)
  it("of a grid, its own axes among them", function()
    opens(8, "grid = { { 'tp', 2 }, { 'mine', 2 }, { 'dp' } }, views = { expert = { { 'ep', 4 }, { 'edp' } } }",
      { "mine", "ep", "edp", "embedding" })
  end)
end)

describe("a run that dies", function()
  -- The rows that are there now; with `complete`, every line must be one.
  local function rows_in(path, complete)
    local rows = {}
    local file = io.open(path, "rb")
    local text = file and file:read("a") or ""
    if file then
      file:close()
    end
    for line, ending in text:gmatch("([^\n]*)(\n?)") do
      local row = ending == "\n" and json.decode(line) or nil
      if complete and line .. ending ~= "" then
        assert.is_table(row, "not a complete row: " .. line)
      end
      if row then
        rows[row.workload] = row
      end
    end
    return rows
  end

  it("ends soon, and leaves the rows that it had", function()
    local folder = os.tmpname()
    os.remove(folder)
    -- The router is quick, the MLP takes long.
    local file = config("return { parallel = { tp = 2 }, model = { hidden = 64, ffn = 262144, seq_len = 8 }, "
      .. "moe = { experts = 8, topk = 2 }, run = { workloads = { 'router', 'mlp' }, iterations = 3000 } }")
    local running = job.start(2, 90, file, "--report", folder)
    finally(function()
      running:close()
      os.execute("rm -rf " .. shell.quote(folder))
      os.remove(file)
    end)
    assert.is_truthy(job.wait(60, function()
      return running:status() or rows_in(folder .. "/rows.jsonl").router
    end), running:errors())
    assert.is_nil(running:status(), running:errors())
    local ranks = running:ranks()
    assert.equal(2, #ranks)
    assert(os.execute("kill -KILL " .. ranks[2]))
    local status = job.wait(20, function() return running:status() end)
    assert.is_truthy(status, "mpirun did not end within 20 s")
    assert.is_true(status ~= 0 and status ~= 124, "exit status " .. status)
    local rows = rows_in(folder .. "/rows.jsonl", true)
    assert.is_true(rows.router.verify.ok)
    assert.is_nil(rows.mlp)
  end)
end)
