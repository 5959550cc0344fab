-- configs/examples/vllm.lua gives vLLM's groups. What vLLM makes is computed here by its own rule: all
-- ranks as a tensor [external dp][dp][pp][pcp][tp], of which axes are swapped and rows of a size taken.
-- Source: initialize_model_parallel in vllm/distributed/parallel_state.py of github.com/vllm-project/vllm.
local layout = require("layout")

-- A tensor counts 0, 1, 2, ... with its last index fastest, as torch.arange(n).reshape(sizes) does.
local function arange(...)
  local tensor, stride = { sizes = { ... }, strides = {} }, 1
  for i = #tensor.sizes, 1, -1 do
    tensor.strides[i] = stride
    stride = stride * tensor.sizes[i]
  end
  return tensor
end

-- The tensor with axes a and b swapped; axes count from 0, as in torch.
local function transpose(tensor, a, b)
  local sizes, strides = { table.unpack(tensor.sizes) }, { table.unpack(tensor.strides) }
  sizes[a + 1], sizes[b + 1] = sizes[b + 1], sizes[a + 1]
  strides[a + 1], strides[b + 1] = strides[b + 1], strides[a + 1]
  return { sizes = sizes, strides = strides }
end

-- tensor.reshape(-1, width) as a list of lists.
local function rows(tensor, width)
  local flat = {}
  local function walk(axis, at)
    if axis > #tensor.sizes then
      flat[#flat + 1] = at
      return
    end
    for i = 0, tensor.sizes[axis] - 1 do
      walk(axis + 1, at + i * tensor.strides[axis])
    end
  end
  walk(1, 0)
  local list = {}
  for i, rank in ipairs(flat) do
    local row = (i - 1) // width + 1
    list[row] = list[row] or {}
    table.insert(list[row], rank)
  end
  return list
end

-- The groups that vLLM makes, each list in its order.
local function vllm(s)
  local all = arange(s.external_dp, s.dp, s.pp, s.pcp, s.tp)
  local dcp = s.dcp > 1 and transpose(all, 3, 4) or all
  return {
    tp = rows(all, s.tp),
    dcp_part = rows(all, s.dcp), -- versions in which dcp is always a part of tp
    dcp = rows(dcp, s.dcp), -- versions in which dcp goes over pcp first
    pcp = rows(transpose(all, 3, 4), s.pcp),
    pp = rows(transpose(all, 2, 4), s.pp),
    dp = rows(transpose(all, 1, 4), s.dp),
    ep = rows(transpose(all, 1, 2), s.dp * s.pcp * s.tp),
    inner_dp_world = rows(all, s.pp * s.pcp * s.tp),
    world = rows(all, s.external_dp * s.dp * s.pp * s.pcp * s.tp),
  }
end

-- The same groups, in the order of their first members.
local function sorted(groups)
  local list = { table.unpack(groups) }
  table.sort(list, function(a, b)
    return a[1] < b[1]
  end)
  return list
end

-- The same groups, and each group's members sorted too.
local function as_sets(groups)
  local list = {}
  for i, group in ipairs(groups) do
    list[i] = { table.unpack(group) }
    table.sort(list[i])
  end
  return sorted(list)
end

local function replaced(text, pattern, line)
  local result, count = text:gsub(pattern, (line:gsub("%%", "%%%%")))
  assert(count == 1, "the config has no line " .. pattern)
  return result
end

-- The config of the tree with other sizes; dcp is nil where it is no part of tp.
local function config(s)
  local text = layout.slurp("configs/examples/vllm.lua")
  local sizes = ("local tp, cp, pp, dp = %d, %d, %d, %d"):format(s.tp, s.pcp, s.pp, s.dp)
  text = replaced(text, "local tp, cp, pp, dp = [%d, ]+", sizes .. "\n")
  return replaced(text, "local dcp = %d+", ("local dcp = %d"):format(s.tp % s.dcp == 0 and s.dcp or 1))
end

local families = "tp,dcp,cp,pp,dp,tp-cp-dp,tp-cp-pp,tp-cp-pp-dp-external_dp,tp-cp"

local function ours(s)
  local world = s.external_dp * s.dp * s.pp * s.pcp * s.tp
  return layout.read(config(s), "--world-size", world, "--group", families).groups
end

local function sizes(external_dp, dp, pp, pcp, tp, dcp)
  return { external_dp = external_dp, dp = dp, pp = pp, pcp = pcp, tp = tp, dcp = dcp }
end

local function name(s)
  return ("external dp %d, dp %d, pp %d, pcp %d, tp %d, dcp %d"):format(
    s.external_dp, s.dp, s.pp, s.pcp, s.tp, s.dcp)
end

describe("vLLM's groups with", function()
  for _, s in ipairs({
    sizes(1, 2, 2, 1, 2, 1),
    sizes(1, 2, 2, 1, 2, 2),
    sizes(1, 2, 2, 1, 4, 2),
    sizes(1, 2, 2, 2, 2, 2),
    sizes(2, 2, 2, 2, 2, 1),
    sizes(2, 3, 2, 1, 4, 4),
    sizes(3, 2, 5, 3, 2, 2),
    sizes(1, 1, 1, 1, 8, 4),
    sizes(1, 1, 4, 1, 2, 1),
    sizes(1, 16, 1, 1, 1, 1),
    sizes(1, 4, 1, 2, 8, 2),
    sizes(2, 2, 3, 2, 6, 3),
    sizes(4, 1, 1, 1, 1, 1),
  }) do
    it(name(s) .. " are families of configs/examples/vllm.lua", function()
      local want, got = vllm(s), ours(s)
      -- Groups, their members and both orders.
      assert.same(want.tp, got.tp)
      assert.same(want.dcp_part, got.dcp)
      assert.same(want.pcp, got.cp)
      assert.same(want.ep, got["tp-cp-dp"])
      assert.same(want.inner_dp_world, got["tp-cp-pp"])
      assert.same(want.world, got["tp-cp-pp-dp-external_dp"])
      -- Groups and the order of their members; vLLM lists the groups in another order.
      assert.same(sorted(want.pp), sorted(got.pp))
      assert.same(sorted(want.dp), sorted(got.dp))
    end)
  end
end)

describe("the page docs/vllm.md is right that", function()
  it("with pp = dp = tp = 2 an expert group is a stage's ranks, tp fastest", function()
    local got = ours(sizes(1, 2, 2, 1, 2, 1))
    assert.same({ { 0, 1, 4, 5 }, { 2, 3, 6, 7 } }, got["tp-cp-dp"])
    assert.same({ { 0, 2 }, { 1, 3 }, { 4, 6 }, { 5, 7 } }, got.pp)
    assert.same({ { 0, 4 }, { 1, 5 }, { 2, 6 }, { 3, 7 } }, got.dp)
  end)

  it("pp and dp groups are listed in another order with tp and pcp above 1", function()
    local s = sizes(1, 2, 2, 2, 2, 1)
    local want, got = vllm(s), ours(s)
    assert.not_same(want.pp, got.pp)
    assert.not_same(want.dp, got.dp)
  end)

  it("later versions' dcp with pcp = 1 is dcp, of a stage's tp neighbours", function()
    local s = sizes(2, 2, 2, 1, 8, 4)
    assert.same(vllm(s).dcp, ours(s).dcp)
  end)

  it("later versions' dcp = pcp is cp", function()
    local s = sizes(2, 2, 2, 4, 8, 4)
    assert.same(vllm(s).dcp, ours(s).cp)
  end)

  it("later versions' dcp = tp * pcp has the ranks of tp-cp in another order", function()
    local s = sizes(1, 1, 2, 2, 4, 8)
    local want, got = vllm(s), ours(s)["tp-cp"]
    assert.same({ 0, 4, 1, 5, 2, 6, 3, 7 }, want.dcp[1])
    assert.same({ 0, 1, 2, 3, 4, 5, 6, 7 }, got[1])
    assert.same(as_sets(want.dcp), as_sets(got))
  end)

  it("dcp that does not divide tp is refused", function()
    local text = replaced(config(sizes(1, 2, 2, 1, 4, 2)), "local dcp = 2", "local dcp = 8")
    assert.truthy(layout.refused(text, "--world-size", 16):find("the decode view's dcp", 1, true))
  end)

  it("no axis of its own can be vLLM's expert group where pp and dp are above 1", function()
    local text = [[return { parallel = {
      grid = { { "tp", 2 }, { "pp", 2 }, { "dp", 2 } },
      views = { expert = { { "ep", 4 }, { "pp" } } } } }]]
    assert.truthy(layout.refused(text):find('axis "pp"', 1, true))
  end)
end)
