-- `pgrun groups` in its other formats: they say the same, a picture is well-formed and coloured as its
-- groups are, and a million ranks take no more memory than a thousand.
local shell = require("shell")
local json = require("dkjson")
local pgrun = shell.pgrun
local program = shell.quote(os.getenv("PGRUN"))

-- Pipelines with embeddings, optimizer instances and hybrid groups of which the last is smaller.
local layout = shell.file([[
return {
  parallel = { tp = 2, cp = 3, pp = 3, ep = 2, etp = 1, pp_split = 1, optimizer_instances = 2, hybrid_cp = true,
               rank_offset = 5 },
  cluster = { gpus_per_node = 8, nvlink_domain = 16 },
}
]])
local million = shell.file("return { parallel = { tp = 8, cp = 2, pp = 8, ep = 8 } }")

local function groups(...)
  local got = pgrun("groups", ...)
  assert.equal("", got.err)
  assert.equal(0, got.status)
  return got.out
end

-- What each cell of a picture shows, in the order of drawing: panel, class, text of the pointer, colour.
local function cells(svg)
  local found, panel = {}, 0
  for line in svg:gmatch("<g class=\"panel\">.-</text>\n</g>\n") do
    panel = panel + 1
    for class, title, colour in line:gmatch('<g class="cell(.-)"><title>(.-)</title><rect class="(.-)"') do
      found[#found + 1] = { panel = panel, class = class, title = title, colour = colour,
        rank = tonumber(title:match("^rank (%d+), ")), group = tonumber(title:match("group (%d+), ")) }
    end
  end
  return found
end

local function count(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

describe("pgrun groups", function()
  teardown(function()
    os.remove(layout)
    os.remove(million)
  end)

  it("prints CSV that says what the JSON says", function()
    local of_json = json.decode(groups(layout, "--world-size", "108", "--format", "json")).groups
    local of_csv, lines = {}, 0
    local csv = groups(layout, "--world-size", "108", "--format", "csv")
    assert.equal("family,group,place,rank\n", csv:match("^[^\n]*\n"))
    for family, group, place, rank in csv:gmatch("([^,\n]+),(%d+),(%d+),(%d+)\n") do
      lines = lines + 1
      of_csv[family] = of_csv[family] or {}
      of_csv[family][group + 1] = of_csv[family][group + 1] or {}
      of_csv[family][group + 1][place + 1] = tonumber(rank)
    end
    assert.same(of_json, of_csv)
    assert.equal(lines + 1, count(csv, "\n"))
    assert.is_true(lines > 20 * 72)
    assert.is_not_nil(of_csv["dp-cp/hybrid4"])
  end)

  it("prints CSV of one rank's own groups", function()
    assert.equal("family,group,place,rank\ntp,2,0,9\ntp,2,1,10\n",
      groups(layout, "--world-size", "36", "--format", "csv", "--rank", "10", "--group", "tp"))
  end)

  it("sums up what the JSON lists", function()
    local lists = json.decode(groups(layout, "--world-size", "108", "--format", "json")).groups
    local summary = json.decode(groups(layout, "--world-size", "108", "--format", "json", "--summary"))
    local seen = 0
    for _, family in ipairs(summary.families) do
      local crossing = { [8] = 0, [16] = 0 }
      seen = seen + 1
      for _, members in ipairs(lists[family.family]) do
        for block, before in pairs(crossing) do
          for _, rank in ipairs(members) do
            if rank // block ~= members[1] // block then
              crossing[block] = before + 1
              break
            end
          end
        end
      end
      assert.equal(#lists[family.family], family.groups)
      assert.equal(#lists[family.family][1], family.size)
      assert.equal(crossing[8], family.cross_node, family.family)
      assert.equal(crossing[16], family.cross_nvlink_domain, family.family)
    end
    assert.is_true(seen > 20)
  end)

  for _, ranks in ipairs({ 36, 108, 4140 }) do
    it("draws a cell for each of " .. ranks .. " ranks in each panel", function()
      local svg = groups(layout, "--world-size", tostring(ranks), "--format", "svg", "--group", "tp,embedding")
      local found, seen = cells(svg), {}
      assert.equal(2 * ranks, #found)
      assert.equal(2 * ranks + 1, count(svg, "<title>"))
      for _, cell in ipairs(found) do
        local name = cell.panel .. " " .. cell.rank
        assert.is_nil(seen[name])
        seen[name] = true
        assert.is_true(cell.rank >= 5 and cell.rank < 5 + ranks)
        assert.is_truthy(cell.title:find(("node %d, GPU %d\n"):format(cell.rank // 8, cell.rank % 8), 1, true))
      end
    end)
  end

  it("colours a cell as its group, and those in none grey", function()
    local svg = groups(layout, "--world-size", "108", "--format", "svg", "--group", "dp,embedding")
    local lists = json.decode(groups(layout, "--world-size", "108", "--format", "json", "--group",
      "dp,embedding")).groups
    local of_rank, colour_of, group_of, none = { {}, {} }, { {}, {} }, { {}, {} }, 0
    for panel, name in ipairs({ "dp", "embedding" }) do
      for group, members in ipairs(lists[name]) do
        for _, rank in ipairs(members) do
          of_rank[panel][rank] = group - 1
        end
      end
    end
    for _, cell in ipairs(cells(svg)) do
      assert.equal(of_rank[cell.panel][cell.rank], cell.group)
      if not cell.group then
        none = none + 1
        assert.equal("none", cell.colour)
        assert.is_truthy(cell.title:find("in no group", 1, true))
      elseif cell.panel == 1 then -- 18 groups of dp: each has a colour of its own
        assert.equal(cell.colour, colour_of[1][cell.group] or cell.colour)
        assert.equal(cell.group, group_of[1][cell.colour] or cell.group)
        colour_of[1][cell.group], group_of[1][cell.colour] = cell.colour, cell.group
      end
    end
    assert.equal(18, #lists.dp)
    assert.equal(0, none) -- three stages, and all have an embedding
    local middle = cells(groups(layout, "--world-size", "108", "--format", "svg", "--group", "embedding",
      "--set", "parallel.pp=9", "--set", "parallel.pp_split=2"))
    for _, cell in ipairs(middle) do
      none = none + (cell.colour == "none" and 1 or 0)
    end
    assert.equal(72, none) -- of nine stages, six
  end)

  -- WCAG's contrast of two colours, 1 to 21.
  local function luminance(colour)
    local sum = 0
    for part, weight in pairs({ [2] = 0.2126, [4] = 0.7152, [6] = 0.0722 }) do
      local value = tonumber(colour:sub(part, part + 1), 16) / 255
      sum = sum + weight * (value <= 0.04045 and value / 12.92 or ((value + 0.055) / 1.055) ^ 2.4)
    end
    return sum
  end
  local function contrast(a, b)
    local light, dark = luminance(a), luminance(b)
    if light < dark then
      light, dark = dark, light
    end
    return (light + 0.05) / (dark + 0.05)
  end

  it("writes in colours that can be read on every cell", function()
    local svg, colours = groups(layout, "--world-size", "36", "--format", "svg"), 0
    local text = svg:match("text{[^}]*fill:(#%x+)}")
    for colour in svg:gmatch("%.[a-z]+%d*{fill:(#%x+)}") do
      if colour ~= svg:match("%.quiet{fill:(#%x+)}") then
        colours = colours + 1
        assert.is_true(contrast(text, colour) >= 4.5, colour .. " " .. contrast(text, colour))
      end
    end
    assert.equal(22, colours)
    assert.is_true(contrast(svg:match("%.quiet{fill:(#%x+)}"), "#ffffff") >= 4.5)
  end)

  it("draws the borders of a rank and of its group", function()
    local own, near = {}, {}
    for _, cell in ipairs(cells(groups(layout, "--world-size", "36", "--format", "svg", "--rank", "10", "--group",
      "tp"))) do
      if cell.class == " own" then
        own[#own + 1] = cell.rank
      elseif cell.class == " near" then
        near[#near + 1] = cell.rank
      else
        assert.equal(" far", cell.class)
      end
    end
    assert.same({ 10 }, own)
    assert.same({ 9 }, near)
  end)

  it("draws one family where none is picked, and says which", function()
    local svg = groups(layout, "--world-size", "36", "--format", "svg")
    assert.equal(1, count(svg, '<g class="panel">'))
    assert.is_truthy(svg:find("family tp is drawn; --group picks others", 1, true))
    assert.is_nil(svg:find("assumed", 1, true))
    local assumed = groups(million, "--world-size", "512", "--format", "svg")
    assert.is_truthy(assumed:find("a row per node of 8 GPUs (assumed: cluster.gpus_per_node is not given)", 1, true))
  end)

  it("draws the picture of docs/groups.md", function()
    local file = assert(io.open("docs/groups.svg"))
    local text = file:read("a")
    file:close()
    assert.equal(text, groups("configs/quickstart.lua", "--world-size", "32", "--set", "parallel.pp=4", "--set",
      "cluster.gpus_per_node=8", "--group", "tp,dp,pp,embedding", "--format", "svg"))
  end)

  it("shows no grid that would say nothing", function()
    assert.is_nil(groups(layout, "--world-size", "36", "--group", "tp-cp-dp-pp"):find("group of each GPU", 1, true))
    assert.is_truthy(groups(layout, "--world-size", "36", "--group", "tp"):find("group of each GPU", 1, true))
  end)

  it("draws well-formed XML", function()
    for _, words in ipairs({ { "--world-size", "36" },
      { "--world-size", "108", "--group", "dp-cp/hybrid4,cp-tp,edp/inter" },
      { "--world-size", "36", "--rank", "7" } }) do
      local path = shell.file(groups(layout, "--format", "svg", table.unpack(words)))
      assert.same({ status = 0, out = "", err = "" }, shell.command("xmllint --noout " .. shell.quote(path)))
      os.remove(path)
    end
  end)

  it("refuses a picture of too many ranks, and names the limit", function()
    local got = pgrun("groups", million, "--world-size", "131072", "--format", "svg")
    assert.same({ status = 3, out = "", err = "pgrun: error: --format svg draws at most 65536 ranks, not 131072; "
      .. "take a smaller --world-size, or --summary, or --format csv\n" }, got)
  end)

  -- The most memory that was resident, in KiB.
  local function peak(words)
    local line = ("/usr/bin/time -f %%M %s groups %s %s >/dev/null"):format(program, million, words)
    local got = shell.command(line)
    assert.equal(0, got.status)
    return assert(tonumber(got.err:match("(%d+)\n$")), got.err)
  end

  for _, words in ipairs({ "--format json", "--format csv", "--summary", "--format text", "--rank 7 --format json" }) do
    it("takes no more memory for a million ranks than for a thousand: " .. words, function()
      local small, large = peak(words .. " --world-size 1024"), peak(words .. " --world-size 1048576")
      assert.is_true(large < small + 1024, ("%d KiB against %d KiB"):format(large, small))
    end)
  end

  it("prints every family of a layout that has a hundred", function()
    local levels = ("2,"):rep(40)
    local path = shell.file(("return { parallel = { cp = 2^40 // 1 | 0, hierarchical_cp = { %s }, hybrid_cp = true } }")
      :format(levels))
    local summary = json.decode(groups(path, "--world-size", tostring(1 << 60), "--summary", "--format", "json"))
    os.remove(path)
    assert.is_true(#summary.families > 110, #summary.families)
    assert.equal("dp-cp/hybrid576460752303423488", summary.families[#summary.families].family)
    assert.equal(2, summary.families[#summary.families - 58].size)
  end)

  it("counts in 64 bits, or refuses", function()
    local summary = json.decode(groups(million, "--world-size", "4611686018427387904", "--summary", "--format", "json",
      "--group", "tp,cp-dp", "--set", "cluster.gpus_per_node=8"))
    assert.equal(576460752303423488, summary.families[1].groups)
    assert.equal(0, summary.families[1].cross_node)
    assert.equal(64, summary.families[2].cross_node)
    for _, words in ipairs({
      { "--world-size", "4611686018427387904", "--set", "parallel.rank_offset=4611686018427387905" },
      { "--set", "parallel.tp=1099511627776", "--set", "parallel.pp=1099511627776" },
      { "--world-size", "9223372036854775807" },
    }) do
      local got = pgrun("groups", million, "--summary", table.unpack(words))
      assert.equal("", got.out)
      assert.is_true(got.status == 1 or got.status == 3, got.err)
      assert.equal("pgrun: error: ", got.err:sub(1, 14))
    end
  end)
end)
