-- getters_page.lua - docs/getters.md as rows, and the Lua of its cells, evaluated by pg_eval.
local shell = require("shell")
local layout = require("layout")
local names = require("getters")

local page = { text = layout.slurp("docs/getters.md") }

-- Layouts whose families the rows of a section may name.
local keys = [[pp_split = 1, vpp = 2, hierarchical_cp = { 2, 2 }, hybrid_cp = true, optimizer_instances = 2 },
  model = { layers = 16 }, moe = { experts = 8 } }]]
local short = "return { world_size = 64, parallel = { tp = 2, cp = 4, pp = 2, ep = 2, etp = 2, " .. keys
local with_gtp = [[return { world_size = 128, parallel = {
  grid = { { "tp", 2 }, { "gtp_remat", 2 }, { "cp", 4 }, { "dp" }, { "pp", 2 } },
  views = { expert = { { "etp", 2 }, { "ep", 2 }, { "egtp_remat", 2 }, { "edp" }, { "pp" } } }, ]] .. keys

page.sections = {
  { heading = "## Megatron-Core", names = names.megatron, config = with_gtp, world = 128 },
  { heading = "Of releases core_v0.4.0", names = names.former, config = short, world = 64 },
  { heading = "## vLLM", names = names.vllm_older, config = short, world = 64 },
  { heading = "Current vLLM", names = names.vllm, config = layout.slurp("configs/examples/vllm.lua"), world = 16 },
  { heading = "## MindSpore", names = names.mindspore, config = short, world = 64 },
  { heading = "## What a rank holds", config = short, world = 64 },
}

-- A row of a table, or nil.
function page.row_of(line)
  local getter, c, lua, note = line:match("^| `([^`]+)` | (.-) | (.-) | (.*) |$")
  return getter and { getter = getter, c = c, lua = lua, note = note }
end

-- The rows below each section's heading, in their order and by their getters.
for i, section in ipairs(page.sections) do
  local first = assert(page.text:find("\n" .. section.heading, 1, true), section.heading)
  local following = page.sections[i + 1] and page.text:find("\n" .. page.sections[i + 1].heading, 1, true)
  section.rows, section.row = {}, {}
  for line in page.text:sub(first, following):gmatch("[^\n]+") do
    local row = page.row_of(line)
    section.rows[#section.rows + 1] = row
    if row then
      section.row[row.getter] = row
    end
  end
end

-- All rows, each with its section.
function page.rows()
  return coroutine.wrap(function()
    for _, section in ipairs(page.sections) do
      for _, row in ipairs(section.rows) do
        coroutine.yield(row, section)
      end
    end
  end)
end

-- The words between backticks of a cell.
function page.ticked(cell)
  local found = {}
  for word in cell:gmatch("`([^`]+)`") do
    found[#found + 1] = word
  end
  return found
end

-- What the cells' expressions need: the names that they leave open, and how values are printed. A group is
-- its members, a range first+count.
local prelude = [[
local pg = ...
local function shown(value)
  if type(value) == "userdata" then
    return table.concat(value.members, " ")
  elseif type(value) == "table" then
    return value.first and value.first .. "+" .. value.count or table.concat(value, " ")
  end
  return tostring(value)
end
local function ask(pg, text)
  local n = (text:find("size = n", 1, true) or text:find("set_virtual_stages", 1, true)) and 8 or 1
  local f = assert(load("local pg, n, stage, size = ... return " .. text))
  local good, value = pcall(f, pg, n, nil, 4096)
  return good and shown(value) or "error: " .. value
end
local function tell(name, ...)
  print(name .. "=" .. table.concat({ ... }, "|"))
end
]]

-- page.evaluate(config, world, rank, script) runs the script, which may call ask(pg, text) and
-- tell(name, value, ...); returns what it told, by name.
function page.evaluate(config, world, rank, script)
  local file, text = shell.file(config), shell.file(prelude .. script)
  local program = shell.quote(assert(os.getenv("PG_EVAL")))
  local got = shell.command(("%s %s %d %d %s"):format(program, file, world, rank, text))
  os.remove(file)
  os.remove(text)
  assert(got.status == 0, got.err)
  local told = {}
  for name, value in got.out:gmatch("([^\n=]+)=([^\n]*)\n") do
    told[name] = value
  end
  return told
end

return page
