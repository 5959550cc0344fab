-- The pages show real output: every console block that starts with `$ pgrun` or `$ mpirun -n N pgrun`
-- and has output is run again. The output of runs has times: there numbers are not compared.
local shell = require("shell")
local program = shell.quote(os.getenv("PGRUN"))

local function slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

-- Times and rates are N; blanks only separate; the machine's name, and whether it has a GPU, are left out.
local function masked(text)
  text = text:gsub("\n#  ranks [^\n]*", "\n#  ranks"):gsub("\n#  note +run%.device [^\n]*", "")
  return (text:gsub("%d[%d%.]*e?[-+]?%d*", "N"):gsub(" +", " "))
end

local pages = { "README.md" }
for name in shell.command("ls docs/*.md").out:gmatch("[^\n]+") do
  pages[#pages + 1] = name
end

describe("the output shown in", function()
  local checked = 0
  for _, page in ipairs(pages) do
    for command, output in slurp(page):gmatch("```console\n%$ ([^\n]+)\n(.-)```") do
      if output ~= "" and (command:find("^pgrun ") or command:find("^mpirun %-n %d+ pgrun ")) then
        checked = checked + 1
        it(page .. " is real: " .. command, function()
          local ranks, words = command:match("^mpirun %-n (%d+) pgrun (.*)")
          local line = ranks and ("tests/mpirun.sh %s %s %s"):format(ranks, program, words)
            or program .. command:sub(#"pgrun" + 1)
          local got = shell.command(line)
          local text = got.out .. got.err
          if ranks then
            assert.equal(masked(text), masked(output))
          else
            assert.equal(text, output)
          end
        end)
      end
    end
  end
  it("is checked at all", function()
    assert.is_true(checked >= 6)
  end)
end)

-- The links of a page that are neither to the web nor within the page, outside of blocks of code.
local function links(page)
  local found = {}
  local text = slurp(page):gsub("```.-```", ""):gsub("`[^`\n]*`", "")
  for target in text:gmatch("%]%(([^)%s]+)[^)]*%)") do
    local path = target:gsub("#.*", "")
    if path ~= "" and not path:find("^%a[%w+.-]*:") then
      found[#found + 1] = path
    end
  end
  return found
end

local function exists(path)
  local file = io.open(path)
  if file then
    file:close()
  end
  return file ~= nil
end

describe("the links of", function()
  for _, page in ipairs(pages) do
    it(page .. " point to files that exist", function()
      local folder = page:match("^(.*/)") or ""
      for _, path in ipairs(links(page)) do
        assert.is_true(exists(folder .. path), page .. ": no file " .. folder .. path)
      end
    end)
  end
  it("the README are checked at all", function()
    assert.is_true(#links("README.md") >= 8)
  end)
end)

describe("the C program of docs/running.md", function()
  it("is the one that is tested", function()
    local page, program_text = slurp("docs/running.md"), slurp("tests/mpi/example.c")
    assert.is_truthy(page:find("```c\n" .. program_text .. "```", 1, true))
  end)
end)
