-- attacks.lua - configs that do harm, for the spec that checks them and for the fuzzer's seeds.
local layout = "world_size = 8, parallel = { tp = 2 }"
local too_long = "it runs too long" -- where the cost of one call is known beforehand

-- These statements, and then a good config.
local function returning(statements)
  return statements .. "\nreturn { " .. layout .. " }"
end

-- Each: its name, the text of the config (or a function that gives the command which makes the file at
-- a path), the code that must come first (nil: the config is harmless and passes) and, where it does
-- not depend on the machine's speed, a part of the message.
local attacks = {
  -- Code that the sandbox did not read as text.
  { "bytecode", string.dump(assert(load("return {}"))), "PG002", "compiled Lua code" },
  { "bytecode that is cut off", string.dump(assert(load("return {}"))):sub(1, 20), "PG002", "compiled Lua code" },
  { "load", "load('return 1')()", "PG002", "'load'" },
  { "loadstring, of older Lua", "loadstring('return 1')()", "PG002", "'loadstring'" },
  { "dofile", "return dofile('/etc/passwd')", "PG002", "'dofile'" },
  { "loadfile", "return loadfile('/etc/passwd')", "PG002", "'loadfile'" },
  { "require", "return require('os')", "PG002", "'require'" },
  { "string.dump", "return string.dump(function() end)", "PG002", "'dump'" },

  -- The world outside.
  { "os.execute", "os.execute('touch /tmp/pgrun-was-here')", "PG002", "'os'" },
  { "os.getenv", "return { world_size = #os.getenv('HOME') }", "PG002", "'os'" },
  { "io.open", "return io.open('/etc/passwd'):read('a')", "PG002", "'io'" },
  { "package.loadlib", "package.loadlib('libc.so.6', '*')", "PG002", "'package'" },
  { "debug.getregistry", "return debug.getregistry()", "PG002", "'debug'" },
  { "collectgarbage", "collectgarbage('stop')", "PG002", "'collectgarbage'" },
  { "print, which would break the report", "print('{')", "PG002", "'print'" },
  { "warn", "warn('@on', 'x')", "PG002", "'warn'" },

  -- Metatables.
  { "the metatable of strings",
    "getmetatable('').__index = function() return 8 end", "PG002", "attempt to index a boolean value" },
  { "setmetatable on a string", "setmetatable('', {})", "PG002", "table expected, got string" },
  { "__gc", "setmetatable({}, { __gc = function() while true do end end })", "PG002", "__gc" },
  { "__gc set later", returning("local m = {} setmetatable({}, m) m.__gc = function() while true do end end"), nil },
  { "__mode", "setmetatable({}, { __mode = 'k' })", "PG002", "__mode" },
  { "__close that loops", "local x <close> = setmetatable({}, { __close = function() while true do end end })",
    "PG003" },
  { "__close that loops behind an error",
    "local x <close> = setmetatable({}, { __close = function() while true do end end }) error('x')", "PG003" },
  { "a chain of __index that ends nowhere",
    "local t = {} for i = 1, 1e5 do t = setmetatable({}, { __index = t }) end return { world_size = t.x }",
    "PG002", "'__index' chain too long" },
  { "__concat that calls itself",
    "local t = setmetatable({}, {}) getmetatable(t).__concat = function(a, b) return a .. b end "
    .. "return t .. t", "PG002", "stack overflow" },
  { "__eq that loops", "local m = { __eq = function() while true do end end } "
    .. "return setmetatable({}, m) == setmetatable({}, m)", "PG003" },
  { "__len for the table library", "return table.concat(setmetatable({}, { __len = function() return 2^53 end }))",
    "PG002", "__len" },
  { "__index of the returned table",
    "return setmetatable({}, { __index = function() while true do end end })", "PG005", "parallel: found nothing" },
  { "__pairs of the returned table",
    "return setmetatable({ " .. layout .. " }, { __pairs = function() while true do end end })",
    nil },
  { "__index of a nested table",
    "return { world_size = 8, parallel = setmetatable({}, { __index = function() error('x') end }) }",
    nil },
  { "__metatable of the returned table",
    "return setmetatable({ " .. layout .. " }, { __metatable = 1, __len = 1 })", nil },
  { "a table that holds itself",
    "local t = { " .. layout .. " } t.parallel.x = t t.model = t return t",
    "PG004", "model.world_size: found an unknown key" },

  -- Loops.
  { "coroutines", "return coroutine.wrap(function() while true do end end)()", "PG002", "'coroutine'" },
  { "xpcall with a handler that fails", "xpcall(error, function(e) error(e) end)", "PG002", "'xpcall'" },
  { "an endless loop", "while true do end", "PG003" },
  { "an endless loop of goto", "::a:: goto a", "PG003" },
  { "an endless loop under pcall", "while true do pcall(function() while true do end end) end", "PG003" },
  { "pcall of pcall, without end", "local function f() return pcall(f) end f() while true do f() end", "PG003" },
  { "a numeric loop over everything", "for i = math.mininteger, math.maxinteger do end", "PG003" },
  { "an iterator that never ends", "for _ in function() return 1 end do end", "PG003" },
  { "table.sort with a comparison that lies",
    "local t = {} for i = 1, 1e5 do t[i] = i end while true do pcall(table.sort, t, function() return true end) end",
    "PG003" },
  { "comparisons of long strings",
    "local a, b = ('x'):rep(1e6) .. 'a', ('x'):rep(1e6) .. 'b' local n = 0 "
      .. "while true do if a < b then n = n + 1 end end",
    "PG003" },
  { "equality of long strings",
    "local a, b = ('x'):rep(1e7) .. 'a', ('x'):rep(1e7) .. 'a' while a == b do end", "PG003" },
  { "a padding function that loops",
    "return { " .. layout .. ", model = { seq_len = 8 },"
    .. " padding = { sequence = function() while true do end end } }", "PG003" },

  -- Recursion and nesting.
  { "deep recursion", "local function f(n) return 1 + f(n + 1) end return f(1)", "PG002", "stack overflow" },
  { "deep recursion of a metamethod",
    "local m = {} m.__index = function(t, k) return t[k + 1] end return setmetatable({}, m)[1]", "PG002", "overflow" },
  { "a tail call without end", "local function f() return f() end return f()", "PG003" },
  { "deep recursion through string.gsub",
    "local function f(s) return (s:gsub('.', f)) end return f('x')", "PG002", "overflow" },
  { "deep nesting of tables", "return " .. ("{"):rep(100000) .. ("}"):rep(100000), "PG002", "stack overflow" },
  { "deep nesting of parentheses",
    "return " .. ("("):rep(100000) .. "1" .. (")"):rep(100000), "PG002", "stack overflow" },
  { "deep nesting of functions", ("return function() "):rep(100000), "PG002", "stack overflow" },
  { "deep nesting made by a loop", "local t = {} for i = 1, 1e6 do t = { model = t } end return t", "PG003" },
  { "a chain of 100000 operators",
    "return { world_size = " .. ("1 + "):rep(100000) .. "1 }", "PG005", "parallel: found nothing" },
  { "a chain of 100000 concatenations",
    "return { world_size = " .. ("'' .. "):rep(100000) .. "'' }", "PG002", "stack overflow" },

  -- Memory.
  { "string.rep", "return ('x'):rep(2^40)", "PG003", too_long },
  { "string.rep of nothing", "return (''):rep(2^62)", "PG003", too_long },
  { "string.rep over all that there is", "return ('x'):rep(math.maxinteger, 'x')", "PG003", too_long },
  { "doubling of a string", "local s = 'x' while true do s = s .. s end", "PG003" },
  { "string.format with a long width", "return string.format('%99999d', 1)", "PG002", "invalid conversion" },
  { "string.format of an address", "return string.format('%p', {})", "PG002", "%p" },
  { "string.pack with a long padding",
    "return string.pack('!16' .. ('xXi16'):rep(1e6))", "PG002", "returns a string" },
  { "a huge table", "local t = {} for i = 1, 2^40 do t[i] = i end", "PG003" },
  { "a huge table of tables", "local t = {} while true do t = { t, {}, {}, {} } end", "PG003" },
  { "huge tables in a protected call",
    "while true do pcall(function() local t = {} while true do t[#t + 1] = ('x'):rep(1e6) .. #t end end) end",
    "PG003" },
  { "table.move over 2^40", "return table.move({}, 1, 2^40, 2)", "PG003", too_long },
  { "table.concat over 2^40", "return table.concat({}, '', 1, 2^40)", "PG003", too_long },
  { "table.unpack over 2^40", "return table.unpack({}, 1, 2^40)", "PG003", too_long },
  { "select far beyond", "return select(-2^40, 1)", "PG002", "index out of range" },

  -- Patterns.
  { "a backtracking pattern", "return ('a'):rep(30000):find(('a*'):rep(20) .. 'b')", "PG003", too_long },
  { "a backtracking pattern of optional items",
    "return ('a'):rep(40):find(('a?'):rep(40) .. ('a'):rep(41))", "PG003", too_long },
  { "%b over a long text", "return ('('):rep(1e6):find('%b()')", "PG003", too_long },
  { "a pattern of ten thousand parts", "return ('a'):rep(300000):match(('(a'):rep(10000))", "PG003", too_long },
  { "gsub with a loop as its replacement", "return ('a'):gsub('a', function() while true do end end)", "PG003" },

  -- Errors.
  { "an error that is a table", "error({})", "PG002", "an error that is a table" },
  { "an error that is nil", "error(nil)", "PG002", "error() without a message" },
  { "an error without text", "error((''):rep(3))", "PG002", "error() without a message" },
  { "an error of blanks", "error('  ')", "PG002", "error() without a message" },
  { "an error that is a function", "error(function() end)", "PG002", "an error that is a function" },
  { "an error that is a number", "error(2^53)", "PG002", "9.007199254741e+15" },
  { "an error whose __tostring fails",
    "error(setmetatable({}, { __tostring = function() error('again') end }))", "PG002", "an error that is a table" },
  { "an error whose __tostring gives no text",
    "error(setmetatable({}, { __tostring = function() return {} end }))", "PG002", "an error that is a table" },
  { "an error whose __tostring loops", "error(setmetatable({}, { __tostring = function() while true do end end }))",
    "PG002", "an error that is a table" },
  { "an error whose __tostring raises itself",
    "local e e = setmetatable({}, { __tostring = function() error(e) end }) error(e)",
    "PG002", "an error that is a table" },
  { "an error whose __name is no text",
    "error(setmetatable({}, { __name = 1 }))", "PG002", "an error that is a table" },
  { "an error of 10 MB", "error(('x'):rep(1e7))", "PG002", "xxxxxxxx" },
  { "an error with control characters", "error('\\27[2J\\r\\0\\n::error::x')", "PG002", "?[2J???::error::x" },
  { "an error with a format in it", "error('%s%n%s%n')", "PG002", "%s%n%s%n" },

  -- Values.
  { "no value", "", "PG001", "the file is empty" },
  { "no table", "return 8", "PG002", "returns a number" },
  { "a size that is not a number", "return { world_size = 0/0 }", "PG005", "found nan" },
  { "an infinite size", "return { world_size = math.huge }", "PG005", "found inf" },
  { "the largest integers everywhere",
    "local n = math.maxinteger return { world_size = n, parallel = { tp = n, pp = n, cp = n, ep = n, etp = n } }",
    "PG005", "found 9223372036854775807" },
  { "the smallest integers",
    "local n = math.mininteger return { world_size = n, parallel = { tp = n } }",
    "PG005", "found -9223372036854775808" },
  { "ten thousand unknown keys",
    "local t = {} for i = 1, 1e4 do t['k' .. i] = i end return t", "PG004", "found an unknown key" },
  { "keys that are tables and functions",
    "return { " .. layout .. ", [{}] = 1, [print or error] = 2, [1.5] = 3 }", "PG004", "a value without a name" },
  { "a key of 1 MB", "return { [('k'):rep(1e6)] = 1 }", "PG004", "found an unknown key" },
  { "a key with control characters", "return { ['\\27[2J\\r\\n'] = 1 }", "PG004", "?[2J??: found an unknown key" },
  { "a function as every value",
    "return { world_size = error, parallel = error, model = error }", "PG005", "found a function" },

  -- Bytes.
  { "NUL bytes", "return {\0}", "PG002", "unexpected symbol" },
  { "NUL bytes in a string", "return { model = { dtype = 'bf16\0x' } }", "PG005", 'found "bf16?x"' },
  { "nothing but NUL bytes", ("\0"):rep(10000), "PG002", "unexpected symbol" },
  { "text that is not UTF-8", "return { ['\255\254\128'] = '\192\128' }", "PG004", "found an unknown key" },
  { "text that is UTF-16", "\255\254r\0e\0t\0u\0r\0n\0", "PG002", "unexpected symbol" },
  { "random bytes", "\7\200\31\1\255=[[\0]]--[==[\128", "PG002", "unexpected symbol" },
  { "a long comment that never ends", "--[==[" .. ("]=]"):rep(100000), "PG002", "unfinished long comment" },
  { "a long string that never ends", "return [[" .. ("x"):rep(100000), "PG002", "unfinished long string" },
  { "a first line for a shell", "#!/bin/sh\nrm -rf /\n", "PG002", "syntax error" },
  { "a hundred local names too many", ("local a "):rep(300), "PG002", "too many local variables" },

  -- The general grid: views that no world makes, and families without end.
  { "a grid of sizes that do not fit",
    "return { parallel = { grid = { { 'a', 2^40 // 1 | 0 }, { 'b', 1 << 40 }, { 'dp' } } } }", "PG019", "63 bits" },
  { "seven views that share nothing", [[
    local views = {}
    for v = 1, 7 do
      local view = {}
      for a = 1, 11 do view[a] = { "v" .. v .. "a" .. a, ({ 2, 3, 5, 7, 11, 13, 17 })[v] } end
      view[12] = { "open" .. v }
      views["view" .. v] = view
    end
    return { parallel = { grid = { { "tp", 2 }, { "dp" } }, views = views } }]], "PG019", "63 bits" },
  { "views that only a huge world makes", [[
    local views, primes = {}, { 8191, 131071, 524287 }
    for v, prime in ipairs(primes) do views["view" .. v] = { { "a" .. v, prime }, { "open" .. v } } end
    return { world_size = 1 << 40, parallel = { grid = { { "tp", 2 }, { "dp" } }, views = views,
                                                optimizer_instances = 1 << 39, hybrid_cp = true },
             model = { heads = 52, layers = 31, ffn = 101, hidden = 100 } }]], "PG044", "is not divisible" },
  { "the smallest world of many optimizer instances",
    "return { parallel = { grid = { { 'tp', 3 }, { 'dp' } }, optimizer_instances = 1 << 40 } }", "PG028", nil },
  { "a thousand levels of context parallelism", [[
    local levels = {}
    for i = 1, 1000 do levels[i] = 1 end
    return { world_size = 8, parallel = { hierarchical_cp = levels } }]], "PG027", "1000 levels" },
  { "an axis named like a family of another",
    "return { world_size = 8, parallel = { grid = { { 'dp-cp/intra', 8 } } } }", "PG045", "no name of an axis" },
  { "a view named like a path",
    "return { world_size = 8, parallel = { grid = { { 'dp' } }, views = { ['../x'] = { { 'ep' } } } } }",
    "PG045", "no name of a view" },

  -- Files.
  { "a file of 100 MB", function(path) return "truncate -s 100M " .. path end, "PG001", "104857600 bytes" },
  { "a file of 1 TB", function(path) return "truncate -s 1T " .. path end, "PG001", "1099511627776 bytes" },
  { "a symbolic link to a device", function(path) return "ln -s /dev/zero " .. path end, "PG001", "not followed" },
  { "a symbolic link to a terminal", function(path) return "ln -s /dev/stdin " .. path end, "PG001", "not followed" },
  { "a symbolic link to a file of the machine", function(path) return "ln -s /etc/passwd " .. path end,
    "PG001", "not followed" },
  { "a symbolic link to itself",
    function(path) return "ln -s " .. path .. " " .. path end, "PG001", "Too many levels" },
  { "a symbolic link to nothing", function(path) return "ln -s /nonexistent " .. path end, "PG001", "No such file" },
  { "a symbolic link to a good config beside it",
    function(path) return ("ln -s b.lua %s"):format(path) end, nil },
  { "a FIFO", function(path) return "mkfifo " .. path end, "PG001", "not a regular file" },
  { "a symbolic link to a FIFO",
    function(path) return ("mkfifo %s-f.lua && ln -s %s-f.lua %s"):format(path, path, path) end,
    "PG001", "not a regular file" },
  { "a directory", function(path) return "mkdir " .. path end, "PG001", "no *.lua file" },
}

return { list = attacks, layout = layout, too_long = too_long }
