-- job.lua - a run under mpirun that goes on while a spec looks at it, and whose ranks it may kill.
local shell = require("shell")
local job = {}
job.__index = job

local function slurp(path)
  local file = io.open(path, "rb")
  local text = file and file:read("a") or ""
  if file then
    file:close()
  end
  return text
end

-- job.start(ranks, seconds, words...) starts pgrun on that many ranks; whatever happens, it is killed
-- after that many seconds.
function job.start(ranks, seconds, ...)
  local words = { "env", "PGRUN_TEST_TIMEOUT=" .. seconds, "tests/mpirun.sh", ranks,
    shell.quote(os.getenv("PGRUN")) }
  for _, word in ipairs({ ... }) do
    words[#words + 1] = shell.quote(word)
  end
  local folder = os.tmpname()
  os.remove(folder)
  assert(os.execute("mkdir " .. folder))
  local self = setmetatable({ folder = folder }, job)
  -- The pid is the subshell's: its descendants are timeout, mpirun and the ranks.
  assert(os.execute(("cd . && { ( %s >%s/out 2>%s/err </dev/null; echo $? >%s/status ) & echo $! >%s/pid; }"):format(
    table.concat(words, " "), folder, folder, folder, folder)))
  self.pid = assert(tonumber(slurp(folder .. "/pid")))
  return self
end

-- The processes whose parent is `pid`.
local function children(pid)
  local found = {}
  for name in shell.command("ls /proc").out:gmatch("[^\n]+") do
    local stat = name:match("^%d+$") and slurp("/proc/" .. name .. "/stat") or ""
    if tonumber(stat:match("^.*%) %a (%d+) ")) == pid then
      found[#found + 1] = tonumber(name)
    end
  end
  return found
end

-- The pids of the ranks: what our own timeout's own mpirun started.
function job:ranks()
  local level = { self.pid }
  for _ = 1, 3 do
    local below = {}
    for _, pid in ipairs(level) do
      for _, child in ipairs(children(pid)) do
        below[#below + 1] = child
      end
    end
    level = below
  end
  return level
end

-- The exit status of mpirun, or nil while it runs.
function job:status()
  return tonumber((slurp(self.folder .. "/status"):match("^(%d+)\n")))
end

-- Waits until `done()` gives something true, and returns that; nil after so many seconds.
function job.wait(seconds, done)
  for _ = 1, seconds * 10 do
    local got = done()
    if got then
      return got
    end
    os.execute("sleep 0.1")
  end
end

function job:errors()
  return slurp(self.folder .. "/out") .. slurp(self.folder .. "/err")
end

-- Ends what still runs of it: timeout passes the signal on to mpirun, which ends the ranks.
function job:close()
  if not self:status() then
    for _, pid in ipairs(children(self.pid)) do
      os.execute("kill " .. pid)
    end
    job.wait(10, function() return self:status() end)
  end
  os.execute("rm -r " .. shell.quote(self.folder))
end

return job
