-- docs/getters.md, walked: each C name is declared and exported, each expression of Lua can be asked, each family
-- and key is known, and each name of tests/spec/getters.lua has a row.
local shell = require("shell")
local layout = require("layout")
local page = require("getters_page")

-- The words that `wrong` says are wrong, joined; "" where all is well.
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
  local got = shell.command(("${CC:-cc} -x c -std=gnu11 -fsyntax-only -I runtime -I kernels -I lua %s"):format(file))
  os.remove(file)
  return got.status, got.err
end

-- The names in the cells of C, and the functions in the text.
local function c_names()
  local words = {}
  for row in page.rows() do
    for _, word in ipairs(page.ticked(row.c)) do
      words[#words + 1] = word
    end
  end
  for word in page.text:gmatch("`(pgr_[a-z_]+)[`(]") do
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

-- The families that a note names: family `tp`.
local function families(row)
  local words = {}
  for word in row.note:gmatch("family `([^`]+)`") do
    words[#words + 1] = word
  end
  return words
end

-- Whether `pgrun groups` does not know a family of this config.
local function no_family(config, word)
  return layout.refused(config, "--rank", 0, "--group", word) ~= nil
end

-- What is wrong with the expressions of these rows, a line each.
local function unasked(section, rows)
  local script = {}
  for _, row in ipairs(rows) do
    for _, text in ipairs(page.ticked(row.lua)) do
      local name = row.getter .. ": " .. text:gsub("=", "~")
      script[#script + 1] = ("tell(%q, ask(pg.at(pg.rank), %q))"):format(name, text)
    end
  end
  local wrong, count = {}, 0
  for name, value in pairs(page.evaluate(section.config, section.world, 0, table.concat(script, "\n"))) do
    count = count + 1
    if value:find("^error") then
      wrong[#wrong + 1] = name .. " " .. value
    end
  end
  return table.concat(wrong, "\n"), count
end

-- What the two columns call the same, and how the getters' names for it end.
local kinds = {
  { c = "`pgr_state_group.size`", lua = '").size`', ending = "_world_size$" },
  { c = "`pgr_state_group.rank`", lua = '").rank`', ending = "l_rank$" },
  { c = "`pgr_state_group_member`", lua = '").members`', ending = "_global_ranks$" },
  { c = "`pgr_state_group_source`", lua = '").source`', ending = "_src_rank$" },
  { c = "`pgr_state_group_last`", lua = '").last`', ending = "_last_rank$" },
  { c = "`pgr_state_group_next`", lua = '").next`', ending = "_next_rank$" },
  { c = "`pgr_state_group_previous`", lua = '").previous`', ending = "_prev_rank$" },
  { c = "`pgr_state_group_name`", lua = '").group_name`', ending = "_group_name$" },
  { c = "`pgr_state_override`", lua = "`pg.override(" },
  { c = "`pgr_state_stage`", lua = "`pg.stage()`" },
  { c = "`pgr_state_stages`", lua = "`pg.stages()`" },
  { c = "`pgr_state_is_first_stage`", lua = "`pg.is_first_stage{" },
  { c = "`pgr_state_is_last_stage`", lua = "`pg.is_last_stage{" },
  { c = "`pgr_state_in_embedding_group`", lua = "`pg.in_embedding_group{" },
  { c = "`pgr_state_split`", lua = "`pg.split()`" },
}

local help
local function no_key(word)
  help = help or shell.pgrun("--help", "config").out
  return not help:find("\n  " .. word .. "\n", 1, true)
end

describe("docs/getters.md", function()
  for _, section in ipairs(page.sections) do
    it("has a row for each name of the section " .. section.heading, function()
      local seen, wanted = {}, {}
      assert.is_true(#section.rows > 5)
      for name in (section.names or ""):gmatch("%S+") do
        wanted[name] = true
        assert.is_truthy(section.row[name], "no row for " .. name)
      end
      for _, row in ipairs(section.rows) do
        assert.is_nil(seen[row.getter], row.getter .. " is there twice")
        seen[row.getter] = true
        assert.is_true(not section.names or wanted[row.getter] or false, row.getter .. " is not in getters.lua")
      end
    end)

    it("says what can be asked in Lua in the section " .. section.heading, function()
      local wrong, count = unasked(section, section.rows)
      assert.equal("", wrong)
      assert.is_true(count > 5)
    end)

    it("sets what is then answered in the section " .. section.heading, function()
      local script = {}
      for _, row in ipairs(section.rows) do
        local asked = section.row[(row.getter:gsub("^set_", "get_"))]
        local set, get = page.ticked(row.lua)[1], asked and page.ticked(asked.lua)[1]
        if row.getter:find("^set_") and get then
          script[#script + 1] = ("local own = pg.at(pg.rank) tell(%q, ask(own, %q), ask(own, %q))"):format(
            row.getter, set, get)
        end
      end
      for name, value in pairs(page.evaluate(section.config, section.world, 0, table.concat(script, "\n"))) do
        local many = name:find("world_size$") ~= nil
        assert.equal(many and "nil|8" or "nil|1", value, name)
      end
    end)
  end

  it("has no line of a table that is not read", function()
    for line in page.text:gmatch("[^\n]+") do
      local head = line:find("^| getter |") or line:find("^|%-")
      assert.is_true(line:sub(1, 1) ~= "|" or head ~= nil or page.row_of(line) ~= nil, line)
    end
  end)

  it("names functions and fields that pgrun.h declares", function()
    local status, told = compiled(c_names())
    assert.equal("", told)
    assert.equal(0, status)
  end)

  it("names functions that the library exports", function()
    assert.is_true(#c_names() > 150)
    assert.equal("", offenders(c_names(), not_exported))
  end)

  it("names families that the section's layout has", function()
    local count = 0
    for row, section in page.rows() do
      for _, word in ipairs(families(row)) do
        count = count + 1
        assert.is_false(no_family(section.config, word), row.getter .. ": no family " .. word)
      end
    end
    assert.is_true(count > 15)
  end)

  it("names keys that a config has", function()
    local words = {}
    for row in page.rows() do
      for list in row.note:gmatch("keys? (`[^;:)]*)") do
        for word in list:gmatch("`([a-z]+%.[a-z_]+)`") do
          words[#words + 1] = word
        end
      end
    end
    assert.is_true(#words > 20)
    assert.equal("", offenders(words, no_key))
  end)

  it("says why where there is no counterpart, and refers to rows that exist", function()
    for row in page.rows() do
      assert.is_true(row.c ~= "-" or row.lua ~= "-" or #row.note > 10, row.getter)
      for other in row.note:gmatch("as `([%w_]+)`") do
        assert.is_truthy(page.text:find("\n| `" .. other .. "` |", 1, true), row.getter .. ": no row " .. other)
      end
    end
  end)

  it("says the same in C and in Lua, and what the getter's name says", function()
    for row in page.rows() do
      for _, kind in ipairs(kinds) do
        local lua = row.lua:find(kind.lua, 1, true) ~= nil
        if row.c:find("`pgr_state", 1, true) and row.lua ~= "-" then
          assert.equal(row.c:find(kind.c, 1, true) ~= nil, lua, row.getter .. ": " .. row.c .. " and " .. row.lua)
        end
        if kind.ending and row.getter:find("^get_.*" .. kind.ending) and row.lua:find("pg.group", 1, true) then
          assert.is_true(lua, row.getter .. " is no " .. row.lua)
        end
      end
    end
  end)

  it("would fail for names that are not there", function()
    local section = page.sections[2]
    local row = page.row_of('| `get_x` | `pgr_state_nothing` | `pg.group("tp-nothing").size` | family `nothing` |')
    local field = page.row_of('| `get_x` | `pgr_group.nothing` | `pg.group("tp").nothing` | family `etp-tp` |')
    assert.not_equal(0, (compiled(page.ticked(row.c))))
    assert.not_equal(0, (compiled(page.ticked(field.c))))
    assert.equal(0, (compiled({ "pgr_group.size", "pgr_plan_create" })))
    assert.equal("pgr_state_nothing", offenders(page.ticked(row.c), not_exported))
    assert.is_truthy(unasked(section, { row }):find("unknown family", 1, true))
    assert.is_truthy(unasked(section, { field }):find('no "nothing"', 1, true))
    assert.is_true(no_family(section.config, families(row)[1]))
    assert.is_true(no_family(section.config, families(field)[1]))
    assert.is_true(no_key("parallel.nothing"))
  end)
end)
