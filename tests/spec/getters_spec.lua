-- docs/getters.md, walked: each C name is declared and exported, each Lua name is in the binding, each family
-- and key is known, and each name of tests/spec/getters.lua has a row. What is cheap is compared by value too.
local shell = require("shell")
local layout = require("layout")
local names = require("getters")

local page = layout.slurp("docs/getters.md")

-- The page's headings, and the layout whose families its rows may name.
local short = [[return { world_size = 64, parallel = { tp = 2, cp = 4, pp = 2, ep = 2, etp = 1, pp_split = 1,
  hierarchical_cp = { 2, 2 }, hybrid_cp = true, optimizer_instances = 2 } }]]
local with_gtp = [[return { world_size = 128, parallel = {
  grid = { { "tp", 2 }, { "gtp_remat", 2 }, { "cp", 4 }, { "dp" }, { "pp", 2 } },
  views = { expert = { { "etp", 1 }, { "ep", 2 }, { "egtp_remat", 2 }, { "edp" }, { "pp" } } },
  pp_split = 1, hierarchical_cp = { 2, 2 }, hybrid_cp = true, optimizer_instances = 2 } }]]
local vllm = layout.slurp("configs/examples/vllm.lua")
local sections = {
  { heading = "## Megatron-Core", names = names.megatron, config = with_gtp },
  { heading = "Of releases core_v0.4.0", names = names.former, config = short },
  { heading = "## vLLM", names = names.vllm_older, config = short },
  { heading = "Current vLLM", names = names.vllm, config = vllm },
  { heading = "## MindSpore", names = names.mindspore, config = short },
  { heading = "## What a rank holds", config = short },
}

-- The words between backticks of a cell.
local function ticked(cell)
  local found = {}
  for word in cell:gmatch("`([^`]+)`") do
    found[#found + 1] = word
  end
  return found
end

-- A row of the page, or nil.
local function row_of(line)
  local getter, c, lua, note = line:match("^| `([^`]+)` | (.-) | (.-) | (.*) |$")
  return getter and { getter = getter, c = c, lua = lua, note = note }
end

-- The rows below each section's heading.
for i, section in ipairs(sections) do
  local first = assert(page:find("\n" .. section.heading, 1, true), section.heading)
  local following = sections[i + 1] and page:find("\n" .. sections[i + 1].heading, 1, true)
  section.rows = {}
  for line in page:sub(first, following):gmatch("[^\n]+") do
    section.rows[#section.rows + 1] = row_of(line)
  end
end

local function rows()
  return coroutine.wrap(function()
    for _, section in ipairs(sections) do
      for _, row in ipairs(section.rows) do
        coroutine.yield(row, section)
      end
    end
  end)
end

-- The first words that `wrong` says are wrong, joined; "" where all is well.
local function offenders(words, wrong)
  local found = {}
  for _, word in ipairs(words) do
    if wrong(word) then
      found[#found + 1] = word
    end
  end
  return table.concat(found, " ")
end

-- What the compiler says of taking the address of each function and the place of each field.
local function compiled(words)
  local text = { '#include "pgrun.h"', "#include <stddef.h>" }
  for i, word in ipairs(words) do
    local owner, field = word:match("^(pgr_[a-z_]+)%.([a-z_]+)$")
    if owner then
      text[#text + 1] = ("const size_t place_%d = offsetof(%s, %s);"):format(i, owner, field)
    else
      text[#text + 1] = ("const void *function_%d(void) { return (const void *)&%s; }"):format(i, word)
    end
  end
  local file = shell.file(table.concat(text, "\n") .. "\n")
  local got = shell.command(("${CC:-cc} -x c -std=gnu11 -Wno-missing-prototypes -fsyntax-only %s %s"):format(
    "-I runtime -I kernels -I lua", shell.quote(file)))
  os.remove(file)
  return got.status, got.err
end

local function c_names()
  local words = {}
  for row in rows() do
    for _, word in ipairs(ticked(row.c)) do
      words[#words + 1] = word
    end
  end
  for word in page:gmatch("`(pgr_[a-z_]+)`") do
    if word ~= "pgr_state" and word ~= "pgr_state_group" then
      words[#words + 1] = word
    end
  end
  return words
end

-- Whether the library does not have a function, by its list of symbols.
local symbols
local function not_exported(word)
  symbols = symbols or "\n" .. shell.command("nm -D --defined-only " .. shell.quote(os.getenv("PGRUN_LIBRARY"))
    .. " | sed 's/.* //'").out
  return not word:find(".", 1, true) and not symbols:find("\n" .. word .. "\n", 1, true)
end

-- The families that a row names: in the arguments of Lua, and in its note as family `tp`.
local function families(row)
  local words = {}
  for word in row.lua:gmatch('pg%.[a-z_]+%("([^"]+)"') do
    words[#words + 1] = word
  end
  for word in row.lua:gmatch('pg%.shard%(size, "([^"]+)"') do
    words[#words + 1] = word
  end
  for word in row.note:gmatch("family `([^`]+)`") do
    words[#words + 1] = word
  end
  return words
end

-- Whether `pgrun groups` does not know a family of this config.
local function no_family(config, word)
  return layout.refused(config, "--rank", 0, "--group", word) ~= nil
end

-- The names after pg, dots and in tables of options.
local function lua_names(cell)
  local words = {}
  for expression in cell:gmatch("`(pg[^`]*)`") do
    local plain = expression:gsub('"[^"]*"', "")
    for word in plain:gmatch("%.([a-z_]+)") do
      words[#words + 1] = word
    end
    for word in plain:gmatch("([a-z_]+) =") do
      words[#words + 1] = word
    end
  end
  return words
end

-- Whether the files of the binding have no such name in quotes.
local binding
local function not_bound(word)
  binding = binding or shell.command("cat lua/bind_state.c lua/bind_group.c").out
  return not binding:find('"' .. word .. '"', 1, true)
end

local help
local function no_key(word)
  help = help or shell.pgrun("--help", "config").out
  return not help:find("\n  " .. word .. "\n", 1, true)
end

describe("docs/getters.md", function()
  for _, section in ipairs(sections) do
    it("has a row for each name of the section " .. section.heading, function()
      local has, wanted = {}, {}
      for _, row in ipairs(section.rows) do
        assert.is_nil(has[row.getter], row.getter .. " is there twice")
        has[row.getter] = true
      end
      assert.is_true(#section.rows > 5)
      for name in (section.names or ""):gmatch("%S+") do
        wanted[name] = true
        assert.is_true(has[name] or false, "no row for " .. name)
      end
      for _, row in ipairs(section.rows) do
        assert.is_true(not section.names or wanted[row.getter] or false, row.getter .. " is not in getters.lua")
      end
    end)
  end

  it("has no line of a table that is not read", function()
    for line in page:gmatch("[^\n]+") do
      local head = line:find("^| getter |") or line:find("^|%-")
      assert.is_true(line:sub(1, 1) ~= "|" or head ~= nil or row_of(line) ~= nil, line)
    end
  end)

  it("names functions and fields that pgrun.h declares", function()
    local status, told = compiled(c_names())
    assert.equal("", told)
    assert.equal(0, status)
  end)

  it("names functions that the library exports", function()
    assert.equal("", offenders(c_names(), not_exported))
  end)

  it("names what the Lua binding has", function()
    local words = {}
    for row in rows() do
      for _, word in ipairs(lua_names(row.lua)) do
        words[#words + 1] = word
      end
    end
    for _, word in ipairs(lua_names(page:match("\n%*%*Lua%*%*.-\n\n.-\n\n"))) do
      words[#words + 1] = word
    end
    assert.is_true(#words > 150)
    assert.equal("", offenders(words, not_bound))
  end)

  it("names families that the section's layout has", function()
    local asked = {}
    for row, section in rows() do
      for _, word in ipairs(families(row)) do
        if not asked[section.config .. word] then
          asked[section.config .. word] = true
          assert.is_false(no_family(section.config, word), row.getter .. ": no family " .. word)
        end
      end
    end
  end)

  it("names keys that a config has", function()
    local words = {}
    for row in rows() do
      for list in row.note:gmatch("keys? (`[^;:)]*)") do
        for word in list:gmatch("`([a-z]+%.[a-z_]+)`") do
          words[#words + 1] = word
        end
      end
    end
    assert.is_true(#words > 10)
    assert.equal("", offenders(words, no_key))
  end)

  it("says why where there is no counterpart, and refers to rows that exist", function()
    for row in rows() do
      assert.is_true(row.c ~= "-" or row.lua ~= "-" or #row.note > 10, row.getter)
      for other in row.note:gmatch("as `([%w_]+)`") do
        assert.is_truthy(page:find("\n| `" .. other .. "` |", 1, true), row.getter .. ": no row " .. other)
      end
    end
  end)

  it("would fail for names that are not there", function()
    local row = row_of('| `get_x` | `pgr_state_nothing` | `pg.group("tp-nothing").nothing` | family `nothing` |')
    assert.not_equal(0, (compiled(ticked(row.c))))
    assert.not_equal(0, (compiled({ "pgr_state_group.nothing" })))
    assert.equal(0, (compiled({ "pgr_state_group.size", "pgr_plan_create" })))
    assert.equal("pgr_state_nothing", offenders(ticked(row.c), not_exported))
    assert.equal("nothing", offenders(lua_names(row.lua), not_bound))
    assert.is_true(no_family(short, families(row)[1]))
    assert.is_true(no_family(short, families(row)[2]))
    assert.is_true(no_key("parallel.nothing"))
  end)
end)

-- 16 ranks, tp 2, pp 4: the example in the documentation of vLLM's older initialize_model_parallel.
describe("vLLM's example of 16 GPUs", function()
  local config = [[return { world_size = 16, parallel = { tp = 2, pp = 4 } }]]
  local split = [[return { world_size = 16, parallel = { tp = 2, pp = 4, pp_split = 2 } }]]

  it("has its groups", function()
    local groups = layout.read(config).groups
    assert.same({ { 0, 2 }, { 1, 3 }, { 4, 6 }, { 5, 7 }, { 8, 10 }, { 9, 11 }, { 12, 14 }, { 13, 15 } }, groups.dp)
    assert.same({ { 0, 1 }, { 2, 3 }, { 4, 5 }, { 6, 7 }, { 8, 9 }, { 10, 11 }, { 12, 13 }, { 14, 15 } }, groups.tp)
    assert.same({ { 0, 4, 8, 12 }, { 1, 5, 9, 13 }, { 2, 6, 10, 14 }, { 3, 7, 11, 15 } }, groups.pp)
    assert.same({ { 0, 1, 4, 5, 8, 9, 12, 13 }, { 2, 3, 6, 7, 10, 11, 14, 15 } }, groups["tp-pp"])
    assert.same({ { 0, 12 }, { 1, 13 }, { 2, 14 }, { 3, 15 } }, groups.embedding)
    assert.same({ { 0 }, { 1 }, { 2 }, { 3 } }, groups["position-embedding"])
  end)

  it("has the embeddings of a split model", function()
    local groups = layout.read(split).groups
    assert.same({ { 0, 8, 12 }, { 1, 9, 13 }, { 2, 10, 14 }, { 3, 11, 15 } }, groups.embedding)
    assert.same({ { 0, 8 }, { 1, 9 }, { 2, 10 }, { 3, 11 } }, groups["position-embedding"])
  end)

  for rank = 0, 15 do
    it("answers as vLLM for rank " .. rank, function()
      local stage, tp, dp = rank // 4, rank % 2, rank // 2 % 2
      local groups = layout.read(split, "--rank", rank).groups
      assert.same({ index = rank // 2, rank = tp, size = 2, members = { rank - tp, rank - tp + 1 } }, groups.tp)
      assert.same({ index = rank % 4, rank = stage, size = 4,
        members = { rank % 4, rank % 4 + 4, rank % 4 + 8, rank % 4 + 12 } }, groups.pp)
      assert.same({ index = stage * 2 + tp, rank = dp, size = 2,
        members = { stage * 4 + tp, stage * 4 + tp + 2 } }, groups.dp)
      assert.equal(stage == 1, groups.embedding == nil) -- neither first, split nor last stage
      assert.equal(stage == 1 or stage == 3, groups["position-embedding"] == nil)
    end)
  end
end)
