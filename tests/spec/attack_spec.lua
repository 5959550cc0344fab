-- Configs that do harm. `pgrun check` must end soon with each of them, say what is wrong, and go on to
-- the next file: every test here gives it the attack and, behind it, a good config.
local shell = require("shell")
local json = require("dkjson")
local hostile = require("attacks")
local attacks, layout, too_long = hostile.list, hostile.layout, hostile.too_long
local program = shell.quote(os.getenv("PGRUN"))

local good = "return { world_size = 8, parallel = { tp = 2 } }\n"
local seconds = 2 -- of processor time that one config may take
local rest = 0.5 -- that the program and the good config take, with sanitizers

local function new_folder()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir " .. path))
  return path
end

-- Writes the text at `path`, or runs the command that content(path) gives, which makes it.
local function make(path, content)
  if type(content) == "function" then
    assert(os.execute(content(path)))
    return
  end
  local file = assert(io.open(path, "wb"))
  file:write(content)
  file:close()
end

-- Checks a bad file and a good one in one call: what is told of the two, the exit status, and the
-- seconds of processor time, for those on the clock depend on what else the machine does.
local function check(content)
  local folder = new_folder()
  make(folder .. "/a.lua", content)
  make(folder .. "/b.lua", good)
  local line = "/usr/bin/time -q -o %s/t -f '%%U %%S' timeout 60 %s check --format json %s/a.lua %s/b.lua"
  local got = shell.command(line:format(folder, program, folder, folder))
  local file = assert(io.open(folder .. "/t"))
  local used = file:read("n") + file:read("n")
  file:close()
  os.execute("rm -rf " .. folder)
  assert.equal("", got.err)
  return assert(json.decode(got.out), got.out).files, got.status, used
end

describe("pgrun check, attacked with", function()
  for _, attack in ipairs(attacks) do
    local name, content, code, message = table.unpack(attack, 1, 4)
    it(name .. (code and ", says so" or ", is not harmed") .. " and goes on", function()
      local files, status, used = check(content)
      assert.is_true(used <= seconds + rest, used .. " seconds of processor time")
      assert.equal(2, #files)
      assert.equal(code and 1 or 0, status)
      assert.equal(not code, files[1].valid)
      if code then
        local found = files[1].diagnostics[1]
        assert.equal(code, found.code, json.encode(found))
        assert.equal("error", found.severity)
        assert.is_truthy(found.message:find(message or "", 1, true), found.message)
        assert.is_nil(found.message:find("[%z\1-\31\127]"), found.message)
      end
      assert.is_true(files[2].valid)
    end)
  end

  it("all of them in one call, and each has its own answer", function()
    -- Those that end at once, so that the test does.
    local folder, names = new_folder(), {}
    make(folder .. "/b.lua", good) -- that a link among them leads to
    for i, attack in ipairs(attacks) do
      if attack[3] ~= "PG003" or attack[4] == too_long then
        names[#names + 1] = { path = ("%s/%03d.lua"):format(folder, i), code = attack[3] }
        make(names[#names].path, attack[2])
      end
    end
    assert.is_true(#names >= 60)
    local words = {}
    for i, name in ipairs(names) do
      words[i] = name.path
    end
    local got = shell.command(program .. " check --format json " .. table.concat(words, " "))
    os.execute("rm -rf " .. folder)
    local files = assert(json.decode(got.out), got.err).files
    assert.equal(1, got.status)
    assert.equal(#names, #files)
    for i, name in ipairs(names) do
      assert.equal(name.path, files[i].file)
      assert.equal(not name.code, files[i].valid)
      assert.equal(name.code, name.code and files[i].diagnostics[1].code)
    end
  end)

  it("math.random, gives the same numbers in every process", function()
    local text = "return { world_size = math.random(1, 2^40) }"
    local first, second = check(text), check(text)
    assert.equal(json.encode(first[1].diagnostics), json.encode(second[1].diagnostics))
    local seeded = check("math.randomseed() return { " .. layout .. " }")
    assert.equal("PG002", seeded[1].diagnostics[1].code)
  end)

  it("the order of pairs and the addresses of tables, gives the same in every process", function()
    local text = "local t, s = {}, '' for i = 1, 50 do t['k' .. i] = {} end "
      .. "for k, v in pairs(t) do s = s .. k .. tostring(v) .. tostring(print) end error(s)"
    local first, second = check(text), check(text)
    assert.is_truthy(first[1].diagnostics[1].message:find("k1", 1, true))
    assert.equal(first[1].diagnostics[1].message, second[1].diagnostics[1].message)
  end)

  it("a command to the shell, leaves no trace", function()
    local trace = os.tmpname()
    os.remove(trace)
    check(("os.execute('touch %s')"):format(trace))
    check(("io.open('%s', 'w')"):format(trace))
    assert.is_nil(io.open(trace))
  end)
end)
