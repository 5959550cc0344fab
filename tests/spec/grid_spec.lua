-- The general form of a layout: that the short form is a front end to it, and what docs/grid.md says.
local layout = require("layout")
local same = require("luassert.util").deepcompare

-- The same layout in both forms.
local pairs_of_forms = {
  {
    world = 16,
    short = [[tp = 2, cp = 2, pp = 2, ep = 4, etp = 1]],
    grid = [[grid = { { "tp", 2 }, { "cp", 2 }, { "dp" }, { "pp", 2 } },
             views = { expert = { { "etp", 1 }, { "ep", 4 }, { "edp" }, { "pp" } } }]],
  },
  {
    world = 96,
    short = [[tp = 2, pp = 3, ep = 2, order = "tp-ep-pp-dp", cp = 1, etp = 4]],
    grid = [[grid = { { "tp", 2 }, { "pp", 3 }, { "dp" }, { "cp", 1 } },
             views = { expert = { { "etp", 4 }, { "ep", 2 }, { "edp" }, { "pp" } } }]],
    refused = true, -- pp is at another place in the two views
  },
  {
    world = 64,
    short = [[tp = 4, cp = 2, ep = 2, etp = 2, order = "cp-tp-dp-ep-pp"]],
    grid = [[grid = { { "cp", 2 }, { "tp", 4 }, { "dp" }, { "pp", 1 } },
             views = { expert = { { "etp", 2 }, { "edp" }, { "ep", 2 }, { "pp" } } }]],
  },
  {
    world = 12,
    short = [[tp = 2, pp = 3, expert_view = false]],
    grid = [[grid = { { "tp", 2 }, { "dp" }, { "pp", 3 } }]],
  },
  {
    world = 128,
    short = [[tp = 2, cp = 4, pp = 4, ep = 2, etp = 1, pp_split = 2, hierarchical_cp = { 2, 2 },
              hybrid_cp = true, optimizer_instances = 2, rank_offset = 100]],
    grid = [[grid = { { "tp", 2 }, { "cp", 4 }, { "dp" }, { "pp", 4 } },
             views = { expert = { { "etp", 1 }, { "ep", 2 }, { "edp" }, { "pp" } } },
             pp_split = 2, hierarchical_cp = { 2, 2 },
             hybrid_cp = true, optimizer_instances = 2, rank_offset = 100]],
  },
}

local function config(keys)
  return "return { parallel = { " .. keys .. " } }"
end

-- The names of the families that differ between two answers.
local function differing(a, b)
  local names = {}
  for name, groups in pairs(a) do
    if not same(groups, b[name]) then
      names[#names + 1] = name
    end
  end
  for name in pairs(b) do
    if not a[name] then
      names[#names + 1] = name
    end
  end
  return table.concat(names, " ")
end

describe("the short form", function()
  for _, forms in ipairs(pairs_of_forms) do
    it((forms.refused and "and the grid refuse " or "gives the groups of the grid: ") .. forms.short, function()
      local size = { "--world-size", forms.world }
      if forms.refused then
        assert.truthy(layout.refused(config(forms.short), table.unpack(size)))
        assert.truthy(layout.refused(config(forms.grid), table.unpack(size)))
        return
      end
      local short = layout.read(config(forms.short), table.unpack(size))
      local grid = layout.read(config(forms.grid), table.unpack(size))
      assert.is_true(#short.groups.tp > 1)
      assert.same(short.axes, grid.axes)
      assert.equal("", differing(short.groups, grid.groups))
    end)
  end
end)

-- The short form as a grid: the order's axes, in the expert view with etp, edp and without cp.
local function as_grid(axes, size)
  local dense, expert = {}, {}
  for _, axis in ipairs(axes) do
    local of_expert = axis == "tp" and "etp" or axis == "dp" and "edp" or axis
    if axis ~= "ep" then
      dense[#dense + 1] = axis == "dp" and '{ "dp" }' or ('{ "%s", %d }'):format(axis, size[axis])
    end
    if axis ~= "cp" then
      expert[#expert + 1] = of_expert == "edp" and '{ "edp" }' or ('{ "%s", %d }'):format(of_expert, size[of_expert])
    end
  end
  return ("grid = { %s }, views = { expert = { %s } }"):format(table.concat(dense, ", "), table.concat(expert, ", "))
end

it("the short form and its grid give the same groups, or refuse alike, for random sizes and orders", function()
  local seed, legal, refused, stricter = 12345, 0, 0, 0
  local function random(n) -- 0 to n - 1, the same on every machine
    seed = (seed * 1103515245 + 12345) % 2147483648
    return (seed >> 16) % n
  end
  for _ = 1, 120 do
    local axes = { "tp", "cp", "ep", "dp", "pp" }
    for i = 5, 2, -1 do
      local j = random(i) + 1
      axes[i], axes[j] = axes[j], axes[i]
    end
    local size = { tp = random(3) + 1, cp = random(2) + 1, pp = random(3) + 1, ep = random(4) + 1, etp = random(2) + 1 }
    local extra = random(3) == 0 and ", optimizer_instances = 2, hybrid_cp = true" or ""
    local short = ('tp = %d, cp = %d, pp = %d, ep = %d, etp = %d, order = "%s"'):format(
      size.tp, size.cp, size.pp, size.ep, size.etp, table.concat(axes, "-"))
    local grid, world = as_grid(axes, size), 12 * (random(12) + 1)
    local told = layout.refused(config(short .. extra), "--world-size", world)
    if told and told:find("differ while pp", 1, true) then
      -- PG016, a rule of Megatron-Core's beyond what a grid needs
      stricter = stricter + (layout.refused(config(grid .. extra), "--world-size", world) and 0 or 1)
    elseif told then
      refused = refused + 1
      assert.is_truthy(layout.refused(config(grid .. extra), "--world-size", world), short .. " of " .. world)
    else
      legal = legal + 1
      local a = layout.read(config(short .. extra), "--world-size", world)
      local b = layout.read(config(grid .. extra), "--world-size", world)
      assert.equal("", differing(a.groups, b.groups), short .. " of " .. world)
    end
  end
  assert.is_true(legal > 15 and refused > 15 and stricter > 0, legal .. " legal, " .. refused .. " refused")
end)

describe("the grid of docs/grid.md", function()
  local own = [[grid = { { "tp", 2 }, { "my_axis", 4 }, { "dp" } },
                views = { expert = { { "ep", 4 }, { "edp" } } }]]

  it("has its axes as families, and any of one view joined", function()
    local groups = layout.read(config(own), "--world-size", 16, "--group", "my_axis,my_axis-tp,ep,edp").groups
    assert.same({ { 0, 2, 4, 6 }, { 1, 3, 5, 7 }, { 8, 10, 12, 14 }, { 9, 11, 13, 15 } }, groups.my_axis)
    assert.same({ { 0, 1, 2, 3, 4, 5, 6, 7 }, { 8, 9, 10, 11, 12, 13, 14, 15 } }, groups["my_axis-tp"])
    assert.same({ { 0, 1, 2, 3 }, { 4, 5, 6, 7 }, { 8, 9, 10, 11 }, { 12, 13, 14, 15 } }, groups.ep)
    assert.same({ { 0, 4, 8, 12 }, { 1, 5, 9, 13 }, { 2, 6, 10, 14 }, { 3, 7, 11, 15 } }, groups.edp)
  end)

  it("infers the one size that is left out, in each view", function()
    for _, world in ipairs({ 8, 16, 24, 1048576 }) do
      local answer = layout.read(config(own), "--world-size", world, "--rank", 0, "--group", "tp")
      assert.equal(world // 8, answer.axes.dp)
      assert.equal(world // 4, answer.axes.edp)
    end
  end)

  it("takes the smallest world where none is given", function()
    local answer = layout.read(config(own), "--group", "tp")
    assert.equal(8, answer.world_size)
    assert.is_true(answer.world_size_assumed)
  end)

  it("takes the one world that there is where no size is left out", function()
    local text = config([[grid = { { "tp", 2 }, { "my_axis", 3 } }]])
    assert.equal(6, layout.read(text, "--group", "tp").world_size)
    assert.truthy(layout.refused(text, "--world-size", 12))
  end)

  it("has tp, cp, dp and pp of size 1 where no view names them", function()
    local answer = layout.read(config([[grid = { { "my_axis" } }]]), "--world-size", 4)
    assert.same({ my_axis = 4, tp = 1, cp = 1, dp = 1, pp = 1 }, answer.axes)
    assert.same({ { 0 }, { 1 }, { 2 }, { 3 } }, answer.groups.tp)
    assert.is_nil(answer.groups.ep)
  end)

  it("gives a view's axis the size that the grid has", function()
    local text = config([[grid = { { "tp", 2 }, { "dp" }, { "pp", 4 } },
                          views = { expert = { { "ep", 4 }, { "edp" }, { "pp" } } }]])
    local answer = layout.read(text, "--world-size", 32)
    assert.equal(4, answer.axes.pp)
    assert.equal(2, answer.axes.edp)
  end)

  it("goes with the keys of the pipeline, context parallelism and the optimizer", function()
    local text = config([[grid = { { "tp", 2 }, { "cp", 4 }, { "dp" }, { "pp", 4 } },
                          views = { expert = { { "ep", 4 }, { "edp" }, { "pp" } } },
                          pp_split = 2, hierarchical_cp = { 2, 2 }, hybrid_cp = true,
                          optimizer_instances = 2, rank_offset = 64]])
    local answer = layout.read(text, "--world-size", 128)
    for _, family in ipairs({ "cp/0", "cp/1", "dp-cp/hybrid4", "dp-cp/intra", "edp/intra", "edp/inter",
      "optimizer-instance", "embedding", "position-embedding" }) do
      assert.truthy(answer.groups[family], family)
    end
    assert.same({ 64, 128, 160 }, answer.groups.embedding[1]) -- stages 0, 2 and 3, 32 ranks each
    assert.same({ 64, 128 }, answer.groups["position-embedding"][1])
  end)
end)

describe("a grid is refused", function()
  for _, case in ipairs({
    { "PG044", 12, [[grid = { { "tp", 8 }, { "dp" } }]], "the nearest sizes that fit are 8 and 16" },
    { "PG044", 16, [[grid = { { "tp", 4 }, { "dp", 2 } }]], "tp * dp = 4 * 2 = 8" },
    { "PG005", 16, [[grid = { { "tp" }, { "dp" } }]], "2 axes without a size" },
    { "PG045", 8, [[grid = { { "my-axis" } }]], "my-axis" },
    { "PG005", 8, [[grid = { { "tp", 2 }, { "tp" } }]], "allowed: each axis once" },
    { "PG045", 8, [[grid = { { "embedding" } }]], "is a word of a family's name" },
    { "PG045", 8, [[grid = { { "tp" } }, views = { dense = { { "ep" } } }]], "parallel.grid declares" },
    { "PG046", 16, [[grid = { { "tp", 2 }, { "pp", 2 }, { "dp" } },
                     views = { expert = { { "ep", 4 }, { "pp" }, { "edp" } } }]], "axis \"pp\"" },
    { "PG046", 16, [[grid = { { "tp", 2 }, { "dp" } }, views = { other = { { "tp", 4 }, { "rest" } } }]],
      "axis \"tp\"" },
    { "PG047", 8, [[tp = 2, grid = { { "tp", 2 }, { "dp" } }]], "tp is given beside parallel.grid" },
    { "PG047", 8, [[order = "tp-dp", grid = { { "tp", 2 }, { "dp" } }]], "order is given beside" },
    { "PG047", 8, [[views = { expert = { { "ep", 2 }, { "edp" } } }]], "parallel.grid is missing" },
    { "PG027", 8, [[grid = { { "tp", 2 }, { "dp" } }, hierarchical_cp = { 2, 2 }]], "cp = 1" },
    { "PG025", 8, [[grid = { { "tp", 2 }, { "dp" } }, pp_split = 1]], "pp = 1" },
    { "PG048", 6, [[grid = { { "tp", 2 }, { "dp" } }, hybrid_cp = true]], "" },
  }) do
    local code, world, keys, words = table.unpack(case)
    it("with " .. code .. ": " .. keys:gsub("%s+", " "), function()
      local file = require("shell").file(config(keys))
      local got = require("shell").pgrun("check", file, "--world-size", world)
      os.remove(file)
      assert.equal(1, got.status)
      assert.truthy(got.out:find("error[" .. code, 1, true), got.out)
      assert.truthy(got.out:find(words, 1, true), got.out)
      assert.truthy(layout.refused(config(keys), "--world-size", world))
    end)
  end

  it("for a family of axes of two views", function()
    local text = config([[grid = { { "tp", 2 }, { "dp" } }, views = { expert = { { "ep", 2 }, { "edp" } } }]])
    local told = layout.refused(text, "--world-size", 8, "--group", "tp-ep")
    assert.truthy(told:find("must name different axes of one view", 1, true))
  end)
end)
