-- architectures.lua MODULE ARCH... - wants machine code (elf) and PTX for each architecture in the module.
-- Reads the fat binaries: magic 0xBA55ED50, u16 version, u16 header size, u64 size; then entries of u16
-- kind (1 PTX, 2 ELF), u16, u32 header size, u64 size, ..., u32 architecture at byte 28.
local file = assert(io.open(arg[1], "rb"))
local data = file:read("a")
file:close()
local magic, kinds, seen = "\x50\xed\x55\xba", { "ptx", "elf" }, {}
local at = data:find(magic, 1, true)
while at do
  local header, size = string.unpack("<I2I8", data, at + 6)
  local entry, last = at + header, at + header + size
  while header == 16 and entry < last do
    local kind, _, entry_header, entry_size = string.unpack("<I2I2I4I8", data, entry)
    local arch = string.unpack("<I4", data, entry + 28)
    seen[(kinds[kind] or kind) .. " " .. arch] = true
    entry = entry + entry_header + entry_size
  end
  at = data:find(magic, at + 4, true)
end
local missing = 0
for i = 2, #arg do
  for _, kind in ipairs(kinds) do
    if not seen[kind .. " " .. arg[i]] then
      print(("%s has no %s for sm_%s"):format(arg[1], kind, arg[i]))
      missing = missing + 1
    end
  end
end
os.exit(missing == 0 and #arg > 1)
