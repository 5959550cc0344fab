-- seeds.lua FOLDER WORDS TEXT - what the fuzzer starts from: the attacks that are texts, as files in
-- FOLDER, and in the file WORDS a dictionary of the names in TEXT (the definitions of the config's keys).
local folder, words, text = table.unpack(arg)

for i, attack in ipairs(require("attacks").list) do
  if type(attack[2]) == "string" and #attack[2] <= 8192 then
    local file = assert(io.open(("%s/attack-%03d"):format(folder, i), "wb"))
    file:write(attack[2])
    file:close()
  end
end

local seen = {}
local out = assert(io.open(words, "w"))
for line in io.lines(text) do
  for word in line:gmatch("[%a_][%w_]+") do
    if not seen[word] then
      seen[word] = true
      out:write(('"%s"\n'):format(word))
    end
  end
end
out:close()
