-- layout.lua - the groups that `pgrun groups` prints for a config, as Lua tables.
local shell = require("shell")

local layout = {}

-- JSON without strings that hold brackets or quotes, as `pgrun groups` writes it.
local function decode(text)
  local lua = text:gsub("%[", "{"):gsub("%]", "}"):gsub('("[^"]*"):', "[%1]="):gsub("null", "nil")
  return assert(load("return " .. lua, "json", "t", {}))()
end

-- layout.refused(text, option, ...) is what pgrun says of a config with this text; nil where it is legal.
function layout.refused(text, ...)
  local file = shell.file(text)
  local got = shell.pgrun("groups", file, "--format", "json", ...)
  os.remove(file)
  if got.status ~= 0 then
    assert(got.out == "" and got.err ~= "")
    return got.err, got.status
  end
end

-- layout.read(text, option, ...) is the decoded answer: world_size, axes, groups, ...
function layout.read(text, ...)
  local file = shell.file(text)
  local got = shell.pgrun("groups", file, "--format", "json", ...)
  os.remove(file)
  assert(got.status == 0, got.err)
  return decode(got.out)
end

-- layout.slurp(path) is the text of a file of the tree.
function layout.slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

return layout
