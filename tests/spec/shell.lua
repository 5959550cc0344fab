-- shell.lua - runs programs for the specs: exit status, standard output and standard error apart.
local shell = {}

function shell.quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

local function slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  os.remove(path)
  return text
end

-- shell.command(line) runs a line of shell; returns { status, out, err }.
function shell.command(line)
  local out, err = os.tmpname(), os.tmpname()
  local _, how, status = os.execute(("{ %s\n} >%s 2>%s </dev/null"):format(line, out, err))
  return { status = how == "exit" and status or 128 + status, out = slurp(out), err = slurp(err) }
end

-- shell.pgrun(word, ...) runs pgrun with these words, alone: as without any launcher.
function shell.pgrun(...)
  local words = { shell.quote(assert(os.getenv("PGRUN"), "PGRUN names the program")) }
  for _, word in ipairs({ ... }) do
    words[#words + 1] = shell.quote(word)
  end
  return shell.command(table.concat(words, " "))
end

-- shell.file(text) writes a temporary file and returns its path; the caller removes it.
function shell.file(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

return shell
