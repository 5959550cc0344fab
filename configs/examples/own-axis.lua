-- The general form of a layout, with an axis of one's own between tensor and data parallelism, and
-- experts spread over tp and half of it. docs/grid.md explains it. Any multiple of 8 ranks.
return {
  parallel = {
    grid = { { "tp", 2 }, { "my_axis", 4 }, { "dp" } },
    views = { expert = { { "ep", 4 }, { "edp" } } },
  },
}
