#!/bin/bash
# bench.sh GPU_BENCH - the benchmark of GPUs on the stand-in, which is in the program: every row is there or
# says why not, PyTorch's times are taken where they are given, and it is said that no number counts.
set -u
program=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fail() {
    echo "FAIL $*"
    failed=1
}

# rows NAME COUNT - so many lines of the table begin with NAME, each with numbers or a skip's reason.
rows() {
    local all good
    all=$(grep -cE "^$1 " "$work/table")
    good=$(grep -cE "^$1 .* ([0-9.]+ +([0-9.]+|-) .*|skip \(.+\))$" "$work/table")
    [ "$all" = "$2" ] || fail "$all rows of $1, not $2"
    [ "$good" = "$all" ] || fail "$((all - good)) rows of $1 have neither numbers nor a reason"
}

# ended STATUS TEXT COMMAND... - the command ends so and says TEXT.
ended() {
    local status=0
    timeout 60 "${@:3}" >"$work/said" 2>&1 || status=$?
    [ "$status" = "$1" ] || fail "${*:3}: status $status, not $1"
    grep -qF -- "$2" "$work/said" || fail "${*:3}: without \"$2\": $(cat "$work/said")"
}

"$program" --list --tiny >"$work/keys" || fail "--list: status $?"
sort -u "$work/keys" | sed 's/$/ 1000/' >"$work/torch"
echo "# a line of PyTorch's own" >>"$work/torch"
timeout 100 "$program" --tiny --rounds 3 --json "$work/json" --torch "$work/torch" >"$work/table" 2>&1 ||
    fail "status $?"
cat "$work/table"

grep -q "^# THE DEVICE IS A STAND-IN" "$work/table" || fail "it does not say that the device is a stand-in"
grep -q "^# aims: 0 met, 0 missed" "$work/table" || fail "aims are judged on a stand-in"
rows router 24
rows linear 42
rows "(pad|split|gather)" 5
# What the stand-in can do is measured.
grep -qE "^(linear|pad|split|gather).* skip" "$work/table" && fail "a product or a split was skipped"
measured=$(grep -cE '^(router|linear) .* 1000\.00 ' "$work/table")
wanted=$(grep -E '^(router|linear) ' "$work/table" | grep -vc ' skip (')
[ "$measured" = "$wanted" ] || fail "PyTorch's times are in $measured rows of $wanted"
[ "$(grep -c '"bench": "linear".*"torch_us": 1000,' "$work/json")" = 42 ] || fail "nor in the JSON lines"
lua5.4 - "$work/json" <<'END' || fail "not JSON"
local json = require("dkjson")
for line in io.lines(arg[1]) do
  assert(json.decode(line), line)
end
END

ended 2 "not routers" "$program" --only routers
ended 2 "unknown: --fast" "$program" --fast 1
ended 77 "no GPU here" env PGRUN_FAKE_GPUS=0 "$program" --quick
# A bare call that fails ends it with its name; the first calls of that function are not bare ones.
for ((call = 1; call < 40; call++)); do
    PGRUN_FAKE_FAIL=cublasLtMatmul:$call "$program" --tiny --rounds 1 --only linear >"$work/said" 2>&1
    status=$?
    grep -q "error: bare cublasLtMatmul: planted" "$work/said" && break
done
if [ "$call" = 40 ] || [ "$status" != 3 ]; then
    fail "a bare call that fails: status $status, $(tail -n 1 "$work/said")"
fi
exit $failed
