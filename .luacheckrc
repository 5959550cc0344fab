-- What luacheck knows of this tree.
std = "lua54"
files["tests"] = { std = "lua54+busted" }
files["lua/pgrun.lua"] = { max_line_length = false } -- generated, a line per key
