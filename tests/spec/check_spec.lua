-- `pgrun check` and `pgrun explain`: the catalogue's examples, the formats, and files that do harm.
local shell = require("shell")
local json = require("dkjson")
local pgrun = shell.pgrun
local program = shell.quote(os.getenv("PGRUN"))

-- A folder for one test: { "name" = text }. Returns its path; the caller calls remove().
local function folder(files)
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir " .. path))
  for name, text in pairs(files) do
    local directory = name:match("^(.*)/")
    if directory then
      assert(os.execute("mkdir -p " .. shell.quote(path .. "/" .. directory)))
    end
    local file = assert(io.open(path .. "/" .. name, "wb"))
    file:write(text)
    file:close()
  end
  return path
end

local function remove(path)
  assert(path:find("^/tmp/"))
  os.execute("rm -rf " .. shell.quote(path))
end

-- pgrun check ... --format json, decoded; the exit status.
local function check(...)
  local got = pgrun("check", "--format", "json", ...)
  assert.equal("", got.err)
  return assert(json.decode(got.out), got.out), got.status
end

-- The codes of one file's findings, as a set.
local function codes(file)
  local found = {}
  for _, diagnostic in ipairs(file.diagnostics) do
    found[diagnostic.code] = diagnostic
  end
  return found
end

local function check_text(text, ...)
  local path = shell.file(text)
  local got, status = check(path, ...)
  os.remove(path)
  return got.files[1], status
end

local bad = [[
return {
  world_size = 6,
  parallel = { tp = 3 },
  model = {
    hidden = 52 * 64, heads = 52,
  },
}
]]
local good = "return { world_size = 8, parallel = { tp = 2 } }\n"
local warned = [[
return {
  world_size = 8, parallel = { tp = 2, ep = 2, sequence_parallel = true },
  moe = { experts = 8, topk = 2 },
}
]]

-- Every code, from the catalogue itself.
local catalogue = {}
for number = 1, 99 do
  local got = pgrun("explain", ("PG%03d"):format(number), "--format", "json")
  if got.status == 0 then
    catalogue[#catalogue + 1] = assert(json.decode(got.out))
  end
end

describe("the catalogue", function()
  it("is there", function()
    assert.is_true(#catalogue >= 40)
  end)

  for _, rule in ipairs(catalogue) do
    if rule.code ~= "PG001" then
      it(rule.code .. ": its bad example gives it", function()
        local file, status = check_text(rule.bad)
        local found = codes(file)[rule.code]
        assert.is_truthy(found, json.encode(file))
        assert.equal(rule.severity, found.severity)
        assert.equal(rule.severity == "error" and 1 or 0, status)
        assert.equal(rule.severity ~= "error", file.valid)
      end)
    end
    if rule.mended then
      it(rule.code .. ": its mended example passes", function()
        local file, status = check_text(rule.mended)
        assert.is_nil(codes(file)[rule.code])
        assert.equal(0, status, json.encode(file))
      end)
    end
  end

  it("PG001: a file that is not there gives it", function()
    local got, status = check("/nonexistent/a.lua")
    assert.equal("PG001", got.files[1].diagnostics[1].code)
    assert.equal(1, status)
  end)
end)

describe("pgrun explain", function()
  it("tells a code in text, whatever the case of its letters", function()
    local got = pgrun("explain", "pg012")
    assert.equal(0, got.status)
    assert.equal("PG012 (error): ", got.out:sub(1, 15))
    assert.is_truthy(got.out:find("\nBad:\n", 1, true))
    assert.is_truthy(got.out:find("\nMended:\n", 1, true))
  end)

  it("tells all codes without one, or with all, as a page or as JSON", function()
    local page = pgrun("explain")
    assert.equal(0, page.status)
    assert.same(page, pgrun("explain", "all"))
    local list = assert(json.decode(pgrun("explain", "--format", "json").out))
    assert.equal(#catalogue, #list)
    for i, rule in ipairs(catalogue) do
      assert.same(rule, list[i])
      local heading = ("\n## %s\n\n**%s: "):format(rule.code, rule.severity)
      assert.is_truthy(page.out:find(heading, 1, true), rule.code)
    end
  end)

  local unknown = {
    { "PG062", 'there is no code "PG062"; the nearest are PG061 and PG070' },
    { "PG999", 'there is no code "PG999"; the nearest is PG072' },
    { "heads", 'there is no code "heads"; codes go from PG001 to PG072' },
  }
  for _, case in ipairs(unknown) do
    it("refuses " .. case[1], function()
      assert.same({ status = 2, out = "", err = "pgrun: error: " .. case[2] .. "\n" }, pgrun("explain", case[1]))
    end)
  end
end)

describe("pgrun check", function()
  it("points at every key that contributes", function()
    local file, status = check_text(bad)
    local found = assert(codes(file).PG012)
    assert.equal(1, status)
    assert.equal("tp = 3 does not divide heads = 52", found.message)
    assert.equal("tp can be 1, 2, 4, 13, 26 or 52", found.help)
    assert.same({ { path = "parallel.tp", line = 3, column = 21 }, { path = "model.heads", line = 5, column = 31 } },
      found.locations)
  end)

  it("tells the rules' errors beside wrong keys, where they hold whatever was meant", function()
    local function told(text)
      local list = {}
      for i, diagnostic in ipairs(check_text(text).diagnostics) do
        list[i] = diagnostic.code
      end
      return table.concat(list, " ")
    end
    -- pipeline may mean pp, so nothing can be said of the world; heads and ffn are written.
    assert.equal("PG004 PG012 PG022",
      told("return { world_size = 16, parallel = { tp = 3, pipeline = 2 }, model = { heads = 52, ffn = 64 } }"))
    assert.equal("PG004", told("return { world_size = 9, parallel = { tp = 2, pipeline = 2 } }"))
    assert.equal("PG005", told("return { world_size = 9, parallel = { tp = 'two', pp = 2 } }"))
    assert.equal("PG005 PG032", told("return { parallel = { pp = 0 }, moe = { experts = 8, topk = 9 } }"))
    assert.equal("PG005", told("return { parallel = { ep = 16, expert_view = 0 }, moe = { experts = 8 } }"))
    assert.equal("PG005", told("return { model = { hidden = 100, heads = 6, head_dim = '16' }, parallel = {} }"))
    assert.equal("PG004", told("return { world_size = 6, parallel = { tp = 2 }, modle = { heads = 3 } }"))
    assert.equal("PG005", told("return { world_size = 6, parallel = 4, model = { heads = 3 } }"))
  end)

  it("looks up the families of run.families and run.nccl, by the names that the layout has", function()
    local function told(run)
      local list = {}
      local file = check_text("return { world_size = 8, parallel = { tp = 2 }, run = {" .. run .. "} }")
      for i, found in ipairs(file.diagnostics) do
        local at = found.locations[1]
        list[i] = found.severity == "error" and
          ("%s %s:%d: %s; %s"):format(found.code, at.path, at.column, found.message, found.help:sub(1, 21)) or nil
      end
      return table.concat(list, "\n")
    end
    assert.equal("", told('families = { "tp", "cp-tp" }, nccl = { ["dp-tp"] = { max_ctas = 8 } }'))
    assert.equal('PG061 run.nccl.ttp:65: run.nccl: unknown family "ttp", did you mean "tp"?; known are tp, cp, dp,',
      told("nccl = { ttp = { max_ctas = 8 } }"))
    assert.equal('PG061 run.families[2]:75: run.families: family "cp/0" needs parallel.hierarchical_cp, ' ..
      "which is not given; ", told('families = { "tp", "cp/0" }'))
    assert.equal("PG061 run.nccl.tp-cp:65: run.nccl: cp-tp and tp-cp are one family; give its options once",
      told('nccl = { ["tp-cp"] = {}, ["cp-tp"] = {} }'))
  end)

  it("does not point at what --set overrode", function()
    local file = check_text(good, "--set", "model.heads=52", "--set", "parallel.tp=8", "--set", "model.hidden=832")
    local at = assert(codes(file).PG012).locations[1]
    assert.equal("parallel.tp", at.path)
    assert.is_nil(at.line)
    assert.same({ ["model.heads"] = 52, ["parallel.tp"] = 8, ["model.hidden"] = 832 }, file.set)
  end)

  it("does not point at a world size that --world-size overrode", function()
    local path = shell.file("return { world_size = 96, parallel = { tp = 8 } }\n")
    local text = pgrun("check", path, "--world-size", "100")
    local got = check(path, "--world-size", "100")
    local same = check(path, "--set", "world_size=100")
    os.remove(path)
    assert.is_truthy(text.out:find("^error%[PG010%][^\n]*\n  %-%-> [^\n]*:1:45\n"), text.out)
    assert.is_truthy(text.out:find("\n   = world_size is given by --world-size\n", 1, true), text.out)
    assert.is_nil(text.out:find("^^", 1, true))
    for _, file in ipairs({ got.files[1], same.files[1] }) do
      local at = assert(codes(file).PG010).locations
      assert.equal("world_size", at[1].path)
      assert.is_nil(at[1].line)
      assert.same({ path = "parallel.tp", line = 1, column = 45 }, at[2])
    end
  end)

  it("points at a wrong world size in the file, whatever --world-size says", function()
    local file = check_text("return { world_size = 'x', parallel = {} }\n", "--world-size", "8")
    assert.same({ { path = "world_size", line = 1, column = 23 } }, assert(codes(file).PG005).locations)
  end)

  it("tells keys that are not written out from those that are", function()
    local path = shell.file("return {\n  world_size = 100,\n  parallel = { tp = 8 } }\n")
    local got = check(path)
    local sarif = assert(json.decode(pgrun("check", path, "--format", "sarif").out))
    os.remove(path)
    local found = assert(codes(got.files[1]).PG010)
    assert.same({ path = "world_size", line = 2, column = 16 }, found.locations[1])
    assert.same({ path = "parallel.tp", line = 3, column = 21 }, found.locations[2])
    for i = 3, #found.locations do
      assert.same({ path = found.locations[i].path, line = 3, column = 3, written = false }, found.locations[i])
    end
    local said = {}
    for _, result in ipairs(sarif.runs[1].results) do
      if result.ruleId == "PG010" then
        assert.is_nil(result.locations[1].message)
        for _, at in ipairs(result.relatedLocations) do
          said[at.logicalLocations[1].fullyQualifiedName] = at.message and at.message.text or "written"
        end
      end
    end
    assert.equal("written", said["parallel.tp"])
    assert.equal("parallel.cp (not written out)", said["parallel.cp"])
  end)

  it("shows the line of a loop that sets a key", function()
    local path = shell.file("local c = { world_size = 6, parallel = {},\n  model = { heads = 52, hidden = 832 } }\n"
      .. "for k, v in pairs({ tp = 3 }) do\n  c.parallel[k] = v\nend\nreturn c\n")
    local got = pgrun("check", path)
    os.remove(path)
    local line = "\n 4 |   c.parallel[k] = v\n   |   ^^^^^^^^^^ parallel.tp (not written out)\n"
    assert.is_truthy(got.out:find(line, 1, true), got.out)
  end)

  it("shows the lines with carets, and no colour where there is no terminal", function()
    local path = shell.file(bad)
    local got = pgrun("check", path)
    os.remove(path)
    assert.equal(1, got.status)
    assert.equal("", got.err)
    assert.is_nil(got.out:find("\27", 1, true))
    assert.is_truthy(got.out:find("error[PG012]: tp = 3 does not divide heads = 52\n  --> " .. path .. ":3:21\n", 1,
      true))
    assert.is_truthy(got.out:find(" 3 |   parallel = { tp = 3 },\n   |                     ^ parallel.tp\n", 1, true))
    assert.is_truthy(got.out:find("\n   = help: tp can be 1, 2, 4, 13, 26 or 52\n", 1, true))
  end)

  it("counts lines as Lua does, whatever ends them", function()
    for _, newline in ipairs({ "\n", "\r", "\r\n", "\n\r" }) do
      local lines = { "-- a comment", "", "return { parallel = { tp = 3 },", "  model = { heads = 4 } }", "" }
      local text = table.concat(lines, newline)
      local path = shell.file(text)
      local out = pgrun("check", path).out
      os.remove(path)
      assert.is_truthy(out:find(path .. ":3:28\n", 1, true), out)
      local third = " 3 | return { parallel = { tp = 3 },\n   |" .. (" "):rep(28) .. "^ parallel.tp\n"
      assert.is_truthy(out:find(third, 1, true), out)
      assert.is_truthy(out:find(" 4 |   model = { heads = 4 } }\n   |                     ^ model.heads\n", 1, true))
    end
  end)

  it("has colours on a terminal alone, and not with NO_COLOR", function()
    local path = shell.file(bad)
    local line = ("script -qec %s /dev/null"):format(shell.quote(program .. " check " .. path))
    local plain, coloured = shell.command("NO_COLOR=1 " .. line), shell.command("env -u NO_COLOR " .. line)
    os.remove(path)
    assert.is_nil(plain.out:find("\27", 1, true))
    assert.is_truthy(coloured.out:find("\27[1;31merror[PG012]\27[0m", 1, true))
  end)

  it("takes several files and folders, and several world sizes", function()
    local path = folder({ ["b.lua"] = good, ["sub/a.lua"] = good, ["c.txt"] = "no config", [".h/d.lua"] = "x" })
    local single = shell.file(good)
    local got, status = check(path, single, "--world-size", "2,7")
    remove(path)
    os.remove(single)
    local seen = {}
    for _, file in ipairs(got.files) do
      seen[#seen + 1] = file.file:gsub("^" .. path, "DIR") .. " " .. file.world_size .. " " .. tostring(file.valid)
    end
    assert.same({ "DIR/b.lua 2 true", "DIR/b.lua 7 false", "DIR/sub/a.lua 2 true", "DIR/sub/a.lua 7 false",
      single .. " 2 true", single .. " 7 false" }, seen)
    assert.equal(1, status)
    assert.equal(1, got.format_version)
    assert.equal(6, got.summary.files)
    assert.equal(3, got.summary.errors)
  end)

  it("makes warnings errors with --strict", function()
    local file, status = check_text(warned)
    assert.equal("warning", codes(file).PG050.severity)
    assert.equal(0, status)
    file, status = check_text(warned, "--strict")
    assert.equal("error", codes(file).PG050.severity)
    assert.is_false(file.valid)
    assert.equal(1, status)
  end)

  it("checks every value of --set with every other, at every size", function()
    local path = shell.file(good)
    local got, status = check(path, "--world-size", "8,12", "--set", "parallel.tp=9",
      "--set", "parallel.tp=2, 4", "--set", "parallel.pp=1,3", "--set", "padding.packed={4,8}")
    local seen = {}
    for _, file in ipairs(got.files) do
      assert.equal("{4,8}", file.set["padding.packed"])
      seen[#seen + 1] = ("tp %d pp %d world %d %s"):format(file.set["parallel.tp"], file.set["parallel.pp"],
        file.world_size, file.valid)
    end
    assert.same({ "tp 2 pp 1 world 8 true", "tp 2 pp 1 world 12 true", "tp 2 pp 3 world 8 false",
      "tp 2 pp 3 world 12 true", "tp 4 pp 1 world 8 true", "tp 4 pp 1 world 12 true", "tp 4 pp 3 world 8 false",
      "tp 4 pp 3 world 12 true" }, seen)
    assert.equal(1, status)

    local text = pgrun("check", path, "--world-size", "8", "--set", "parallel.tp=2,3", "--set", "model.heads=8").out
    os.remove(path)
    assert.is_truthy(text:find("\n" .. path .. " at world size 8 with parallel.tp=3: 2 errors", 1, true))
    assert.is_truthy(text:find("\n   = parallel.tp is given by --set\n", 1, true))
  end)

  it("refuses values of --set that are missing or too many", function()
    local path = shell.file(good)
    local many = "1" .. (",1"):rep(64)
    for _, case in ipairs({ { "parallel.tp=2,,4", "a value is missing" }, { "parallel.tp=2,", "a value is missing" },
      { "parallel.tp=" .. many, "more than 4096 combinations" } }) do
      local got = pgrun("check", path, "--set", case[1], "--set", "parallel.pp=" .. many)
      assert.equal(2, got.status)
      assert.equal("", got.out)
      assert.is_truthy(got.err:find(case[2], 1, true), got.err)
    end
    local got = pgrun("groups", path, "--set", "parallel.tp=2,4")
    os.remove(path)
    assert.equal(2, got.status)
    assert.is_truthy(got.err:find("`pgrun check`", 1, true))
  end)

  it("says so where its output cannot be written, whatever it found", function()
    for _, text in ipairs({ good, bad }) do
      local path = shell.file(text)
      local got = shell.command(program .. " check " .. path .. " > /dev/full")
      os.remove(path)
      assert.equal(3, got.status)
      assert.is_truthy(got.err:find("cannot write to standard output", 1, true))
    end
  end)

  it("says how many problems it leaves out", function()
    local names = {}
    for i = 1, 300 do
      names[i] = ("k%d = 1"):format(i)
    end
    local file = check_text("return { parallel = {}, " .. table.concat(names, ", ") .. " }")
    assert.equal(201, #file.diagnostics)
    assert.equal("100 more problems are not listed", codes(file).PG003.message)
  end)

  it("refuses a wrong --set as wrong usage", function()
    local path = shell.file(good)
    local got = pgrun("check", path, "--set", "parallel.tq=4")
    os.remove(path)
    assert.equal(2, got.status)
    assert.equal("", got.out)
    assert.is_truthy(got.err:find("parallel.tp", 1, true))
  end)

  it("passes every config of this repository", function()
    local got, status = check("configs")
    assert.equal(0, status)
    assert.equal(0, got.summary.errors)
    assert.is_true(#got.files > 30)
  end)

  it("warns of published layouts only where their authors would agree", function()
    local warnings = {}
    for _, file in ipairs(check("configs/published").files) do
      for _, diagnostic in ipairs(file.diagnostics) do
        if diagnostic.severity == "warning" then
          warnings[#warnings + 1] = file.file:match("([^/]+)%.lua$") .. " " .. diagnostic.code
        end
      end
    end
    -- 64 experts' ranks on nodes of 8 GPUs; one replica, in the papers' tables of one batch.
    assert.same({ "deepseek-v3-1024 PG051", "deepseek-v3-2048 PG051", "gpt-1t-512-sp PG058", "gpt3-175b-64-sp PG058",
      "gpt3-175b-96 PG058" }, warnings)
  end)

  it("needs no module and no folder to write", function()
    local path = shell.file(good)
    local got = shell.command("cd / && PGRUN_MODULE_PATH=/nonexistent " .. program .. " check " .. path)
    os.remove(path)
    assert.equal(0, got.status)
  end)
end)

describe("pgrun check, with files that do harm,", function()
  local attacks = {
    ["loops for ever"] = { "while true do end", "PG003" },
    ["loops in a protected call"] = { "while true do pcall(function() while true do end end) end", "PG003" },
    ["backtracks"] = { "return ('a'):rep(30000):find(('a?'):rep(200) .. ('a'):rep(40000))", nil },
    ["takes all memory"] = { "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e6) .. i end", "PG003" },
    ["nests without end"] = { ("return " .. ("{"):rep(100000)), "PG002" },
    ["is empty"] = { "", "PG001" },
    ["is not UTF-8"] = { "return \255\254", "PG002" },
    ["has NUL bytes"] = { "return {\0}", "PG002" },
  }
  for name, attack in pairs(attacks) do
    it("reports one that " .. name .. ", and goes on", function()
      local path = folder({ ["a.lua"] = attack[1], ["b.lua"] = good })
      local got, status = check(path)
      remove(path)
      assert.equal(1, status)
      assert.is_false(got.files[1].valid)
      assert.is_true(got.files[2].valid)
      if attack[2] then
        assert.is_truthy(codes(got.files[1])[attack[2]], json.encode(got.files[1]))
      end
    end)
  end

  -- Nothing counts what it costs to place findings behind a long line: only the process's own limit.
  it("ends soon with one of 15 MB that is wrong in many places", function()
    local keys = {}
    for i = 1, 200 do
      keys[i] = ("k%d = %d"):format(i, i)
    end
    local long = "--[[" .. ("x"):rep(15000000) .. "]] return { parallel = { " .. table.concat(keys, ", ") .. " } }"
    local path = folder({ ["a.lua"] = long, ["b.lua"] = good })
    local start = os.time()
    local got, status = check(path)
    remove(path)
    assert.equal(1, status)
    assert.is_false(got.files[1].valid)
    assert.is_true(got.files[2].valid)
    assert.is_true(os.time() - start <= 10)
  end)

  it("reads no pipe and follows no link out of the folder", function()
    local path = folder({ ["c.lua"] = good })
    os.execute(("mkfifo %s/a.lua && ln -s /etc/passwd %s/b.lua && ln -s c.lua %s/d.lua"):format(path, path, path))
    local got = check(path)
    remove(path)
    assert.equal("PG001", got.files[1].diagnostics[1].code)
    assert.equal("PG001", got.files[2].diagnostics[1].code)
    assert.is_nil(json.encode(got):find("root:", 1, true))
    assert.is_true(got.files[3].valid)
    assert.is_true(got.files[4].valid)
  end)

  it("follows a link that is named itself only to a file beside it or below the current folder", function()
    local outside = folder({ ["o.lua"] = "secret =" })
    local path = folder({ ["in/c.lua"] = good, ["near/e.lua"] = good })
    os.execute(("cd %s/in && ln -s c.lua a.lua && ln -s ../near/e.lua b.lua && ln -s %s/o.lua d.lua && ln -s "
      .. "/etc/passwd e.lua"):format(path, outside))
    local line = ("cd %%s && %s check --format json %s/in/*.lua"):format(program, path)
    local near, far = shell.command(line:format(path)).out, shell.command(line:format("/")).out
    remove(path)
    remove(outside)
    assert.is_nil((near .. far):find("secret", 1, true))
    assert.is_nil((near .. far):find("root:", 1, true))
    local valid = {}
    for i = 1, 5 do -- a, b, c, d, e
      valid[i] = ("%s %s"):format(json.decode(near).files[i].valid, json.decode(far).files[i].valid)
    end
    assert.same({ "true true", "true false", "true true", "false false", "false false" }, valid)
  end)

  it("goes through no named link that leads out of the current folder", function()
    local outside = folder({ ["o/secret.lua"] = "secret =" })
    local path = folder({ ["in/c.lua"] = good })
    os.execute(("cd %s/in && ln -s %s/o dir.lua && ln -s %s/o sub && ln -s ../in here"):format(path, outside, outside))
    local line = ("cd %s && %s check --format json "):format(path, program)
    for _, names in ipairs({ "in/*.lua", "in/s*/*.lua", "in/dir.lua", "in/sub", path .. "/in/sub/secret.lua" }) do
      local got = shell.command(line .. names)
      assert.is_nil(got.out:find("secret =", 1, true), names)
      local refused = 0
      for _, file in ipairs(json.decode(got.out).files) do
        refused = refused + (file.valid and 0 or 1)
        assert.is_true(file.valid or file.diagnostics[1].code == "PG001")
      end
      assert.equal(1, refused, names)
    end
    local got = shell.command(line .. "in/here/c.lua")
    remove(path)
    remove(outside)
    assert.is_true(json.decode(got.out).files[1].valid)
  end)

  it("names a link that leads nowhere", function()
    local path = folder({ ["c.lua"] = good })
    os.execute(("ln -s missing.lua %s/a.lua && ln -s b.lua %s/b.lua"):format(path, path))
    local got, status = check(path)
    remove(path)
    assert.equal(1, status)
    for i, why in ipairs({ "No such file or directory", "Too many levels of symbolic links" }) do
      assert.equal("PG001", got.files[i].diagnostics[1].code)
      assert.equal("the symbolic link cannot be followed: " .. why, got.files[i].diagnostics[1].message)
    end
    assert.is_true(got.files[3].valid)
  end)

  it("says that a folder holds none", function()
    local path = folder({ ["a.txt"] = "" })
    local got, status = check(path)
    remove(path)
    assert.equal("PG001", got.files[1].diagnostics[1].code)
    assert.equal(1, status)
  end)

  it("sends no control character on to a terminal", function()
    local path = shell.file("return { parallel = { tp = 0, --[[ \27[2J \r\8 ]] tq = '\27[31m' } }")
    local got = pgrun("check", path)
    os.remove(path)
    assert.equal(1, got.status)
    assert.is_nil(got.out:find("[%z\1-\9\11-\31]"))
  end)
end)

describe("the format", function()
  -- Twelve files with an error each, in a folder with a name that every format must escape.
  local path = folder({})
  local odd = path .. "/a,b:c%<d>&\"e"
  assert(os.execute("mkdir " .. shell.quote(odd)))
  for i = 1, 12 do
    local file = assert(io.open(("%s/%02d.lua"):format(odd, i), "wb"))
    file:write(i == 1 and warned or bad)
    file:close()
  end
  teardown(function()
    remove(path)
  end)

  it("github has at most ten commands, worst first, and the rest in the summary", function()
    local summary = os.tmpname()
    local line = ("GITHUB_STEP_SUMMARY=%s %s check --format github %s"):format(summary, program, shell.quote(odd))
    local got = shell.command(line)
    local file = assert(io.open(summary))
    local rest = file:read("a")
    file:close()
    os.remove(summary)
    assert.equal(1, got.status)
    local command = "::error file=[^\n]*/a%%2Cb%%3Ac%%25<d>&\"e/%d%d%.lua,line=3,col=%d+,title=PG%d+::"
    assert.equal(10, select(2, got.out:gsub(command, "")))
    assert.equal(10, select(2, got.out:gsub("::%a+ file=", "")))
    assert.is_truthy(got.out:find("%0Ahelp: tp can be 1, 2, 4", 1, true))
    assert.is_truthy(rest:find("| warning | PG050 |", 1, true))
    assert.is_truthy(rest:find("| error | PG012 |", 1, true))
  end)

  it("github's summary stays below what GitHub takes, and the log has the others", function()
    local names, summary = {}, os.tmpname()
    for i = 1, 190 do
      names[i] = ("%s%d = 1"):format(("k"):rep(100), i)
    end
    local many = folder({})
    for i = 1, 40 do
      local file = assert(io.open(("%s/%02d.lua"):format(many, i), "wb"))
      file:write("return { parallel = {}, " .. table.concat(names, ", ") .. " }")
      file:close()
    end
    local got = shell.command(("GITHUB_STEP_SUMMARY=%s %s check --format github %s"):format(summary, program, many))
    local file = assert(io.open(summary))
    local rest = file:read("a")
    file:close()
    os.remove(summary)
    remove(many)
    local in_summary, in_log = select(2, rest:gsub("\n| error |", "")), select(2, got.out:gsub("\n| error |", ""))
    assert.is_true(#rest < 1024 * 1024, #rest)
    assert.is_true(in_log > 0)
    assert.equal(40 * 190, 10 + in_summary + in_log)
    assert.is_truthy(rest:find(("\n%d more findings are in the log.\n"):format(in_log), 1, true))
  end)

  it("github tells all without a summary, too", function()
    local got = shell.command(("env -u GITHUB_STEP_SUMMARY %s check --format github %s"):format(program,
      shell.quote(odd)))
    assert.is_truthy(got.out:find("| warning | PG050 |", 1, true))
    assert.equal(10, select(2, got.out:gsub("::%a+ file=", "")))
  end)

  it("sarif is 2.1.0", function()
    local got = pgrun("check", "--format", "sarif", odd)
    local log = assert(json.decode(got.out), got.out)
    assert.equal("2.1.0", log.version)
    assert.equal(1, #log.runs)
    local driver, results = log.runs[1].tool.driver, log.runs[1].results
    assert.equal("pgrun", driver.name)
    assert.equal(#catalogue, #driver.rules)
    assert.is_true(#results >= 12)
    for _, result in ipairs(results) do
      assert.equal(result.ruleId, driver.rules[result.ruleIndex + 1].id)
      assert.is_truthy(({ error = true, warning = true, note = true })[result.level])
      assert.is_string(result.message.text)
      local place = result.locations[1].physicalLocation
      assert.is_truthy(place.artifactLocation.uri:find("/a%2Cb%3Ac%25%3Cd%3E%26%22e/", 1, true))
      for _, at in ipairs({ place, result.relatedLocations and result.relatedLocations[1].physicalLocation }) do
        assert.is_true(not at.region or (at.region.startLine >= 1 and at.region.startColumn >= 1))
      end
    end
    for _, rule in ipairs(driver.rules) do
      assert.is_string(rule.shortDescription.text)
      assert.is_truthy(rule.defaultConfiguration.level)
    end
  end)

  it("junit is well-formed, a case for each layout", function()
    local got = pgrun("check", "--format", "junit", odd)
    local open, cases, failures = {}, 0, 0
    local body = got.out:gsub("^<%?xml [^>]*%?>", "")
    for text, close, name, rest in body:gmatch("([^<]*)<(/?)([%w-]+)([^<>]*)>") do
      assert.is_nil(text:gsub("&#%d+;", ""):find("[&>]"))
      if close == "/" then
        assert.equal(name, table.remove(open))
      else
        local left = rest:gsub(' [%w]+="[^"]*"', "")
        assert.equal("", left)
        assert.is_nil(rest:gsub("&#%d+;", ""):find("&", 1, true))
        open[#open + 1] = name
        cases = cases + (name == "testcase" and 1 or 0)
        failures = failures + (name == "failure" and 1 or 0)
      end
    end
    assert.same({}, open)
    assert.equal(12, cases)
    assert.equal(11, failures)
    assert.is_truthy(body:find('<testsuites tests="12" failures="11">', 1, true))
  end)
end)
