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
    { "a feature of later", "return { parallel = {}, moe = { experts = 8, score = 'sigmoid' }, "
      .. "model = { hidden = 64, seq_len = 8 }, run = { workloads = { 'router' } } }",
      "what a run does not have yet: router scores other than softmax (moe.score)", 3 },
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
end)

describe("a good run", function()
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
  for _, example in ipairs({ "padding-function", "router-capacity", "swiglu-bf16" }) do
    it("verifies the example " .. example, function()
      local got = run(4, "", "configs/examples/" .. example .. ".lua")
      assert.equal(0, got.status, got.err .. got.out)
    end)
  end
  it("gives one rank's results without any launcher", function()
    local got = shell.pgrun("configs/quickstart-1.lua")
    assert.equal(0, got.status, got.err)
    assert.is_truthy(got.out:find("3 workloads verified", 1, true))
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
