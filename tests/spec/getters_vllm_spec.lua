-- The answers of the rows of docs/getters.md for vLLM's older parallel state and for MindSpore's CommGroup, asked
-- in Lua for every rank, against what those systems answer: computed here by their rules, with plain loops.
local page = require("getters_page")

-- The lists of ranks of vLLM's initialize_model_parallel: blocks of world/pp ranks are stages, in which data
-- parallel ranks lie tp apart.
local function lists_of(s)
  local per_stage = s.world // s.pp
  local lists = { data = {}, tensor = {}, pipeline = {}, model = {}, embedding = {}, position = {} }
  for stage = 0, s.pp - 1 do
    for t = 0, s.tp - 1 do
      local ranks = {}
      for rank = stage * per_stage + t, (stage + 1) * per_stage - 1, s.tp do
        ranks[#ranks + 1] = rank
      end
      table.insert(lists.data, ranks)
    end
  end
  for i = 1, per_stage // s.tp do
    local ranks = {}
    for _, group in ipairs(lists.data) do
      ranks[#ranks + 1] = group[i]
    end
    table.insert(lists.model, ranks)
  end
  for first = 0, s.world - 1, s.tp do
    local ranks = {}
    for rank = first, first + s.tp - 1 do
      ranks[#ranks + 1] = rank
    end
    table.insert(lists.tensor, ranks)
  end
  for first = 0, per_stage - 1 do
    local ranks = {}
    for rank = first, s.world - 1, per_stage do
      ranks[#ranks + 1] = rank
    end
    table.insert(lists.pipeline, ranks)
    local held, position = { ranks[1] }, { ranks[1] }
    if s.split and s.split ~= 0 then
      table.insert(position, ranks[s.split + 1])
      if s.split ~= s.pp - 1 then
        table.insert(held, ranks[s.split + 1])
      end
    end
    if s.pp > 1 then
      table.insert(held, ranks[s.pp])
    end
    table.insert(lists.embedding, held)
    table.insert(lists.position, position)
  end
  return lists
end

-- The list that the rank is in and its place there from 0; an empty list where it is in none.
local function group_of(lists, rank)
  for _, ranks in ipairs(lists) do
    for i, member in ipairs(ranks) do
      if member == rank then
        return ranks, i - 1
      end
    end
  end
  return {}, nil
end

local function text(ranks)
  return table.concat(ranks, " ")
end

-- What vLLM answers for a rank at a virtual stage, by the names of its functions.
local function answers(s, lists, rank, virtual)
  local tensor, tensor_rank = group_of(lists.tensor, rank)
  local data, data_rank = group_of(lists.data, rank)
  local pipeline, stage = group_of(lists.pipeline, rank)
  local held = group_of(lists.embedding, rank)
  local first = stage == 0 and (not s.vpp or virtual == 0)
  local last = stage == s.pp - 1 and (not s.vpp or virtual == s.vpp - 1)
  local in_embedding = #held > 0
  if rank == held[1] then
    in_embedding = first
  elseif rank == held[#held] then
    in_embedding = last
  end
  local before = s.pp == 1 or not s.split or stage < s.split
  local after = s.pp == 1 or not s.split or stage >= s.split
  local next_after = s.pp == 1 or not s.split or stage + 1 >= s.split
  return {
    get_model_parallel_group = text((group_of(lists.model, rank))),
    get_tensor_model_parallel_group = text(tensor),
    get_pipeline_model_parallel_group = text(pipeline),
    get_data_parallel_group = text(data),
    get_embedding_group = text(held),
    get_position_embedding_group = text((group_of(lists.position, rank))),
    get_tensor_model_parallel_world_size = #tensor,
    get_pipeline_model_parallel_world_size = #pipeline,
    get_tensor_model_parallel_rank = tensor_rank,
    get_pipeline_model_parallel_rank = stage,
    is_pipeline_first_stage = first,
    is_pipeline_last_stage = last,
    is_rank_in_embedding_group = in_embedding,
    is_rank_in_position_embedding_group = #group_of(lists.position, rank) > 0,
    is_pipeline_stage_before_split = before,
    is_pipeline_stage_after_split = after,
    is_pipeline_stage_at_split = before and next_after,
    get_virtual_pipeline_model_parallel_rank = s.vpp and virtual or nil,
    get_virtual_pipeline_model_parallel_world_size = s.vpp,
    get_tensor_model_parallel_src_rank = rank // s.tp * s.tp,
    get_data_parallel_src_rank = data[1],
    get_pipeline_model_parallel_first_rank = pipeline[1],
    get_pipeline_model_parallel_last_rank = pipeline[s.pp],
    get_pipeline_model_parallel_next_rank = pipeline[(stage + 1) % s.pp + 1],
    get_pipeline_model_parallel_prev_rank = pipeline[(stage - 1) % s.pp + 1],
    get_data_parallel_world_size = #data,
    get_data_parallel_rank = data_rank,
  }
end

-- The rows of a section that ask, of those that are in `others` too: getter and expression.
local function asking(section, others)
  local found = {}
  for _, row in ipairs(section.rows) do
    local expression = page.ticked(row.lua)[1]
    if expression and others[row.getter] and not row.getter:find("^set_") then
      found[row.getter] = expression
    end
  end
  return found
end

-- A script that asks all expressions for all ranks (and virtual stages) and tells "rank:virtual:getter=value".
local function script_of(expressions, vpp)
  local lines = { "for rank = 0, pg.world_size - 1 do", ("for virtual = 0, %d do"):format((vpp or 1) - 1),
    "local own = pg.at(rank)", vpp and "own.set_virtual_stage(virtual)" or "" }
  for getter, expression in pairs(expressions) do
    lines[#lines + 1] = ("tell(rank .. ':' .. virtual .. ':' .. %q, ask(own, %q))"):format(getter, expression)
  end
  lines[#lines + 1] = "end end"
  return table.concat(lines, "\n")
end

-- How many answers of the layout are compared; all are as vLLM's.
local function compare(s, expressions)
  local config = ("return { parallel = { tp = %d, pp = %d, pp_split = %s, vpp = %s } }"):format(
    s.tp, s.pp, s.split, s.vpp)
  local told = page.evaluate(config, s.world, 0, script_of(expressions, s.vpp))
  local lists, count = lists_of(s), 0
  for rank = 0, s.world - 1 do
    for virtual = 0, (s.vpp or 1) - 1 do
      local want = answers(s, lists, rank, virtual)
      for getter in pairs(expressions) do
        count = count + 1
        local name = ("%d:%d:%s"):format(rank, virtual, getter)
        assert.equal(tostring(want[getter]), told[name], name .. " by " .. expressions[getter])
      end
    end
  end
  return count
end

local megatron, former, vllm, mindspore = page.sections[1], page.sections[2], page.sections[3], page.sections[5]

describe("every rank is answered as by vLLM's older parallel state with", function()
  for _, s in ipairs({
    { world = 16, tp = 2, pp = 4 }, -- the example of its documentation
    { world = 16, tp = 2, pp = 4, split = 2 },
    { world = 16, tp = 2, pp = 4, split = 1, vpp = 2 },
    { world = 16, tp = 2, pp = 4, split = 3, vpp = 3 },
    { world = 24, tp = 4, pp = 3, vpp = 2 },
    { world = 12, tp = 1, pp = 6, split = 4 },
    { world = 8, tp = 8, pp = 1 },
    { world = 8, tp = 1, pp = 2, split = 1 },
  }) do
    it(("%d ranks, tp %d, pp %d, split %s, vpp %s"):format(s.world, s.tp, s.pp, s.split, s.vpp), function()
      assert.equal(27 * s.world * (s.vpp or 1), compare(s, asking(vllm, vllm.row)))
      if not s.vpp then -- with virtual stages, Megatron-Core's now ignore them unless told
        assert.equal(24 * s.world, compare(s, asking(megatron, vllm.row)))
        assert.equal(3 * s.world, compare(s, asking(former, vllm.row)))
      end
    end)
  end

  it("the groups that its documentation lists", function()
    local lists = lists_of({ world = 16, tp = 2, pp = 4 })
    assert.same({ { 0, 2 }, { 1, 3 }, { 4, 6 }, { 5, 7 }, { 8, 10 }, { 9, 11 }, { 12, 14 }, { 13, 15 } }, lists.data)
    assert.same({ { 0, 1 }, { 2, 3 }, { 4, 5 }, { 6, 7 }, { 8, 9 }, { 10, 11 }, { 12, 13 }, { 14, 15 } }, lists.tensor)
    assert.same({ { 0, 4, 8, 12 }, { 1, 5, 9, 13 }, { 2, 6, 10, 14 }, { 3, 7, 11, 15 } }, lists.pipeline)
  end)
end)

describe("MindSpore's names", function()
  local function named(config, world, rank)
    local script = {}
    for getter, expression in pairs(asking(mindspore, mindspore.row)) do
      script[#script + 1] = ("tell(%q, ask(pg, %q))"):format(getter, expression)
    end
    return page.evaluate(config, world, rank, table.concat(script, "\n"))
  end

  it("are the family and its members", function()
    local told = named("return { parallel = { tp = 2, cp = 2 } }", 8, 5)
    assert.equal("tp-4-5", told.get_tensor_parallel_group_name)
    assert.equal("cp-5-7", told.get_context_parallel_group_name)
    assert.equal("dp-1-5", told.get_data_parallel_group_name)
    assert.equal("dp-cp-1-3-5-7", told.get_data_context_parallel_group_name)
    assert.equal("2", told.get_data_context_parallel_rank)
    assert.equal("4", told.get_data_context_parallel_world_size)
    assert.equal("1 3 5 7", told.get_data_context_parallel_group)
  end)

  it("stand for no communicator where the group has one rank", function()
    local config = "return { parallel = { tp = 2 } }"
    local told = page.evaluate(config, 2, 0, [[
      tell("cp", ask(pg, 'pg.group("cp").group_name'), ask(pg, 'pg.group("cp").has_communicator'))
      tell("tp", ask(pg, 'pg.group("tp").group_name'), ask(pg, 'pg.group("tp").has_communicator'))]])
    assert.same({ cp = "cp-0|false", tp = "tp-0-1|true" }, told)
    assert.equal("0", named(config, 2, 0).get_context_parallel_rank)
    assert.equal("1", named(config, 2, 0).get_context_parallel_world_size)
  end)
end)
