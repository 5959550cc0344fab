-- The command line: options, messages, exit codes, and `pgrun groups`.
local shell = require("shell")
local json = require("dkjson")
local pgrun = shell.pgrun
local program = shell.quote(os.getenv("PGRUN"))

local layout = shell.file([[
return { world_size = 8, parallel = { tp = 2, ep = 4, etp = 1 }, moe = { experts = 8, topk = 2 } }
]])
local illegal = shell.file([[return { world_size = 6, parallel = { tp = 4 } }]])

-- The files go when the last test is done.
local function remove_files()
  os.remove(layout)
  os.remove(illegal)
end

local function groups(...)
  local got = pgrun("groups", layout, "--format", "json", ...)
  assert.equal("", got.err)
  assert.equal(0, got.status)
  return assert(json.decode(got.out))
end

describe("the command line", function()
  -- What is typed, what is said. Each is wrong usage: exit 2, nothing on standard output, one message.
  local wrong = {
    { {}, "no CONFIG given\nusage: pgrun CONFIG" },
    { { "groups" }, "no CONFIG given: `pgrun groups CONFIG`; see `pgrun --help`" },
    { { "check" }, "no CONFIG given: `pgrun check CONFIG...`; see `pgrun --help`" },
    { { "--set", "a=1" }, "no CONFIG given: `pgrun CONFIG`; see `pgrun --help`" },
    { { "a.lua", "b.lua" }, '`pgrun CONFIG` takes one config, not 2: "a.lua", "b.lua"' },
    { { "grops", "a.lua" }, 'unknown command "grops"; did you mean groups?' },
    { { "" }, "an empty file name was given to `pgrun CONFIG`" },
    { { "a.lua", "--reprot", "x" }, "unknown option --reprot; did you mean --report?" },
    { { "a.lua", "--reprot=x" }, "unknown option --reprot; did you mean --report?" },
    { { "groups", "a.lua", "--world", "8" }, "unknown option --world; did you mean --world-size?" },
    { { "a.lua", "--frobnicate" }, "unknown option --frobnicate; `pgrun --help` lists the options" },
    { { "groups", "a.lua", "-x" }, "unknown option -x; `pgrun groups --help` lists the options" },
    { { "a.lua", "-n", "8" }, "unknown option -n: the number of ranks is the launcher's, as in "
      .. "`mpirun -n 8 pgrun CONFIG`" },
    { { "a.lua", "--rank", "1" }, "--rank does not go with `pgrun CONFIG`, only with `pgrun groups`" },
    { { "a.lua", "--world-size", "8" }, "--world-size does not go with `pgrun CONFIG`, only with "
      .. "`pgrun groups` or `pgrun check`; the size of a run is the launcher's, as in "
      .. "`mpirun -n 8 pgrun CONFIG`" },
    { { "groups", "a.lua", "--report", "x" }, "--report does not go with `pgrun groups`, only with "
      .. "`pgrun CONFIG`" },
    { { "a.lua", "--version" }, "--version stands alone: `pgrun --version`" },
    { { "--version", "a.lua" }, '--version stands alone, without "a.lua"' },
    { { "a.lua", "--report" }, "--report needs a value: --report DIR" },
    { { "a.lua", "--report=" }, "--report needs a value: --report DIR" },
    { { "a.lua", "--report", "--set", "a=1" }, "--report needs a value: --report DIR" },
    { { "a.lua", "--report", "x", "--report", "y" }, "--report is given twice" },
    { { "groups", "a.lua", "--summary=1" }, '--summary takes no value, but was given "1"' },
    { { "a.lua", "--set", "tp" }, '--set takes KEY=VALUE, as in parallel.tp=4, not "tp"' },
    { { "a.lua", "--set", "=4" }, '--set takes KEY=VALUE, as in parallel.tp=4, not "=4"' },
    { { "groups", "a.lua", "--rank", "-1" }, '--rank takes a rank, 0 or more, not "-1"' },
    { { "groups", "a.lua", "--rank", "1x" }, '--rank takes a rank, 0 or more, not "1x"' },
    { { "groups", "a.lua", "--rank", "9223372036854775808" },
      '--rank takes a rank, 0 or more, not "9223372036854775808"' },
    { { "groups", "a.lua", "--world-size", "0" },
      '--world-size takes a number of ranks, 1 or more, not "0"' },
    { { "groups", "a.lua", "--world-size", "8,16" },
      'pgrun groups takes one --world-size, not "8,16"' },
    { { "check", "a.lua", "--world-size", "8,,16" },
      '--world-size takes a number of ranks, 1 or more (or several, as in 512,1024), not "8,,16"' },
    { { "groups", "a.lua", "--format", "sarif" },
      'pgrun groups has no format "sarif"; it can be text, json, csv or svg' },
    { { "explain", "PG012", "--format", "sarif" },
      'pgrun explain has no format "sarif"; it can be text or json' },
    { { "groups", "a.lua", "--summary", "--rank", "1" },
      "--summary is of the whole world; leave --summary or --rank out" },
    { { "groups", "a.lua", "--summary", "--format", "svg" },
      "--summary has no format svg; it can be text or json" },
    { { "groups", "a.lua", "--summary", "--format", "csv" },
      "--summary has no format csv; it can be text or json" },
    { { "explain", "PG012", "PG013" }, "pgrun explain takes one code, as in `pgrun explain PG012`" },
    { { "check", "a.lua", "--format", "svg" },
      'pgrun check has no format "svg"; it can be text, json, github, sarif or junit' },
  }
  for _, case in ipairs(wrong) do
    local words, message = case[1], case[2]
    it("refuses: pgrun " .. table.concat(words, " "), function()
      local got = pgrun(table.unpack(words))
      local want = "pgrun: error: " .. message
      assert.equal(want, got.err:sub(1, #want))
      assert.equal("\n", got.err:sub(-1))
      assert.equal(1, select(2, got.err:gsub("pgrun: error:", "")))
      assert.equal("", got.out)
      assert.equal(2, got.status)
    end)
  end

  it("prints its version and nothing else", function()
    local got = pgrun("--version")
    assert.same({ status = 0, out = "pgrun 0.1.0\n", err = "" }, got)
  end)

  it("prints its version without opening a module", function()
    local got = shell.command("PGRUN_MODULE_PATH=/nonexistent " .. program .. " --version")
    assert.same({ status = 0, out = "pgrun 0.1.0\n", err = "" }, got)
  end)

  it("prints help on standard output", function()
    local ways = { { "--help" }, { "-h" }, { "groups", "--help" }, { "a.lua", "--help" }, { "--help", "config" } }
    for _, words in ipairs(ways) do
      local got = pgrun(table.unpack(words))
      assert.equal("", got.err)
      assert.equal(0, got.status)
      assert.is_truthy(got.out:find("%S"))
    end
  end)

  it("names every option in the help of some command", function()
    local text = pgrun("--help").out .. pgrun("groups", "--help").out .. pgrun("check", "--help").out
    for _, option in ipairs({ "--set", "--report", "--world-size", "--group", "--rank", "--summary", "--format" }) do
      assert.is_truthy(text:find(option, 1, true), option)
    end
  end)

  it("names every section in the help of the config", function()
    local text = pgrun("--help", "config").out
    for _, key in ipairs({ "parallel", "cluster", "model", "moe", "padding", "run", "world_size", "experiment" }) do
      assert.is_truthy(text:find(key, 1, true), key)
    end
  end)

  it("has the editor definitions that lie in the tree", function()
    local file = assert(io.open("lua/pgrun.lua"))
    local text = file:read("a")
    file:close()
    assert.equal(text, pgrun("--help", "luacats").out)
  end)

  it("takes a file that is called like a command by its path", function()
    local got = pgrun("./check")
    assert.equal(1, got.status)
    assert.is_truthy(got.err:find("./check", 1, true))
  end)

  it("takes a file that begins with a dash after --", function()
    local got = pgrun("groups", "--", "--nosuch.lua")
    assert.equal(1, got.status)
    assert.is_truthy(got.err:find("--nosuch.lua", 1, true))
  end)

  it("fails where its output cannot be written", function()
    local full = shell.command(program .. " --version >/dev/full")
    assert.same({ status = 3, out = "",
      err = "pgrun: error: cannot write to standard output: No space left on device\n" }, full)
    local closed = shell.command(program .. " --version >&-")
    assert.same({ status = 3, out = "",
      err = "pgrun: error: cannot write to standard output: Bad file descriptor\n" }, closed)
    local full_groups = shell.command(program .. " groups " .. layout .. " >/dev/full")
    assert.equal(3, full_groups.status)
  end)

  it("fails where the reader of its output is gone", function()
    local got = shell.command("{ sleep 0.2; " .. program .. " --version; echo $? >&2; } | true")
    assert.equal("pgrun: error: cannot write to standard output: Broken pipe\n3\n", got.err)
  end)
end)

describe("pgrun groups", function()
  teardown(remove_files)

  it("prints Megatron-Core's families as JSON", function()
    local got = groups()
    assert.equal(8, got.world_size)
    assert.equal("tp-cp-ep-dp-pp", got.order)
    assert.same({ tp = 2, cp = 1, dp = 4, pp = 1, etp = 1, ep = 4, edp = 2 }, got.axes)
    assert.same({ { 0, 1 }, { 2, 3 }, { 4, 5 }, { 6, 7 } }, got.groups.tp)
    assert.same({ { 0, 2, 4, 6 }, { 1, 3, 5, 7 } }, got.groups.dp)
    assert.same({ { 0, 1, 2, 3 }, { 4, 5, 6, 7 } }, got.groups.ep)
    for _, family in ipairs({ "dp", "dp-cp", "cp", "tp-pp", "tp", "pp", "ep", "etp", "etp-ep", "etp-ep-pp", "edp" }) do
      assert.is_table(got.groups[family], family)
    end
  end)

  it("prints a table that a person can read", function()
    local got = pgrun("groups", layout)
    assert.equal(0, got.status)
    assert.equal("", got.err)
    assert.is_truthy(got.out:find("tp", 1, true))
    assert.is_nil(got.out:find("\27", 1, true))
  end)

  it("picks families, in any order of their axes", function()
    local got = groups("--group", "cp-tp,dp")
    local names = {}
    for name in pairs(got.groups) do
      names[#names + 1] = name
    end
    table.sort(names)
    assert.same({ "cp-tp", "dp" }, names)
    assert.same({ { 0, 1 }, { 2, 3 }, { 4, 5 }, { 6, 7 } }, got.groups["cp-tp"])
  end)

  it("answers for one rank", function()
    local got = groups("--rank", "5")
    assert.equal(5, got.rank)
    assert.same({ tp = 1, cp = 0, dp = 2, pp = 0, etp = 0, ep = 1, edp = 1 }, got.coordinates)
    assert.same({ index = 2, rank = 1, size = 2, members = { 4, 5 } }, got.groups.tp)
  end)

  it("takes another world size, and another value of the config", function()
    local got = groups("--world-size", "16", "--set", "parallel.tp=4")
    assert.equal(16, got.world_size)
    assert.equal(4, got.axes.tp)
    assert.equal(4, got.axes.dp)
  end)

  it("takes the smallest legal size where nothing gives one, and says so", function()
    local path = shell.file("return { parallel = { tp = 2, pp = 3 } }")
    local text = pgrun("groups", path)
    assert.equal(0, text.status)
    assert.is_truthy((text.out .. text.err):lower():find("smallest", 1, true))
    local got = pgrun("groups", path, "--format", "json")
    assert.equal(6, assert(json.decode(got.out)).world_size)
    os.remove(path)
  end)

  -- Refused: exit 1, nothing on standard output, one message with the values in it (a wrong --set is
  -- wrong usage: exit 2).
  local refused = {
    { "an illegal layout", { illegal }, "6" },
    { "a size that does not fit", { layout, "--world-size", "7" }, "7" },
    { "a family that does not exist", { layout, "--group", "tp-xx" }, "xx" },
    { "axes of two views", { layout, "--group", "tp-ep" }, "tp-ep" },
    { "a rank outside of the world", { layout, "--rank", "8" }, "8" },
    { "a value out of range", { layout, "--set", "parallel.tp=0" }, "parallel.tp=0" },
    { "a key that does not exist", { layout, "--set", "parallel.tq=4" }, "did you mean `parallel.tp`?", 2 },
    { "a missing file", { "/nonexistent/a.lua" }, "/nonexistent/a.lua" },
    { "a folder", { "/tmp" }, "/tmp" },
  }
  for _, case in ipairs(refused) do
    for _, format in ipairs({ "text", "json" }) do
      it("refuses " .. case[1] .. " (" .. format .. ")", function()
        local got = pgrun("groups", "--format", format, table.unpack(case[2]))
        assert.equal("", got.out)
        assert.equal(case[4] or 1, got.status)
        assert.equal("pgrun: error: ", got.err:sub(1, 14))
        assert.is_truthy(got.err:find(case[3], 1, true), got.err)
      end)
    end
  end

  it("never opens a module", function()
    local got = shell.command("PGRUN_MODULE_PATH=/nonexistent " .. program .. " groups " .. layout)
    assert.equal(0, got.status)
  end)
end)
