-- The quickstart at 16 and 64 ranks.
local shell = require("shell")
local program = shell.quote(os.getenv("PGRUN"))

describe("the quickstart", function()
  for _, ranks in ipairs({ 16, 64 }) do
    it("verifies on " .. ranks .. " ranks", function()
      local got = shell.command(("PGRUN_TEST_TIMEOUT=240 tests/mpirun.sh %d %s configs/quickstart.lua "
        .. "--set run.warmup=1 --set run.iterations=2"):format(ranks, program))
      assert.equal(0, got.status, got.err .. got.out)
      assert.is_truthy(got.out:find("3 workloads verified", 1, true))
    end)
  end
end)
