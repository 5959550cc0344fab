-- luacheck's settings for all Lua in this repository.
std = "lua54"
max_line_length = 120
files["tests/spec"] = { std = "lua54+busted" }
files["lua/pgrun.lua"] = { max_line_length = false } -- generated: a line per key
