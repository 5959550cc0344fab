-- Every config of the repository is read and gives groups at its own world size.
local shell = require("shell")

describe("the config", function()
  local found = shell.command("find configs -name '*.lua' | sort").out
  local count = 0
  for file in found:gmatch("[^\n]+") do
    count = count + 1
    it(file .. " is a legal layout", function()
      local got = shell.pgrun("groups", file, "--group", "tp,dp")
      assert.equal("", got.err)
      assert.equal(0, got.status)
    end)
  end
  it("is not alone", function()
    assert.is_true(count > 30)
  end)
end)
