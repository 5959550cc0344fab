#!/bin/bash
# bundle.sh SOURCE BUILD - makes the bundle of a build, unpacks it under another name in a folder that has a
# shell, libc and nothing else of the system, and runs it there: every library that it asks for is its own,
# the quickstart verifies, also through orted and with a misleading environment. Then on the whole system,
# with a module for the site's own MPI. Exit status 77 where this user may not do that.
set -euo pipefail
source=$(realpath "$1")
build=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "bundle.sh: line $LINENO failed: $BASH_COMMAND" >&2' ERR
unset PGRUN_MODULE_PATH LD_LIBRARY_PATH
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# shellcheck source=tests/install/root.sh
. "$source/tests/install/root.sh"
can_change_root

"$source/scripts/bundle" --build "$build" "$work/made/pgrun-bundle" | tee "$work/said"
floor=$(sed -n 's/^needs glibc \([0-9.]*\) or later.*/\1/p' "$work/said")
[[ $floor == 2.* ]]

make_root readlink env timeout sleep
mkdir "$root/site"
tar -C "$root/opt" -xzf "$work/made/pgrun-bundle.tar.gz"
rm -r "$work/made"
mv "$root/opt/pgrun-bundle" "$root/opt/pg run" # a blank, since homes have them
bundle=$root/opt/pg\ run
bytes=$(find "$bundle" -type f ! -name 'libcu*' ! -name 'libn[cv]*' -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
echo "$bytes bytes unpacked"
[ "$bytes" -lt 60000000 ]
for file in README.md LICENSE START.txt configs/quickstart.lua bin/{mpirun,orted,pgrun}; do
    [ -s "$bundle/$file" ]
done

# What Open MPI asks of a remote shell, on this host and with nothing in the environment.
cat >"$root/bin/remote" <<'END'
#!/bin/sh
shift
exec env -i PATH=/bin OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 sh -c "$*"
END
chmod +x "$root/bin/remote"
# What a cluster's environment may lead to.
echo "no library" >"$root/site/libmpi.so.40"
cp "$root/site/libmpi.so.40" "$root/site/libopen-rte.so.40"

# Every file finds every library, in the bundle or in the family of libc; NVIDIA's are the machine's.
ours="=> /opt/pg run/(libexec/../)?lib/"
(cd "$root" && find "opt/pg run" -type f \( -path '*/lib/*' -o -path '*/libexec/*' \)) >"$root/files"
inside "while read -r file; do LD_TRACE_LOADED_OBJECTS=1 $interpreter \"/\$file\" || echo \"\$file\"; done </files" >"$work/libraries" 2>&1
echo "$(wc -l <"$root/files") files ask for $(grep -c '=>' "$work/libraries") libraries," \
    "$(grep -cE "$ours" "$work/libraries") of them the bundle's"
[ "$(grep -cE "$ours" "$work/libraries")" -gt 500 ]
if grep -vE "$ours|=> $family/lib|^\s$interpreter|^\slinux-vdso|^\sstatically linked" "$work/libraries" |
    grep -vE '^\slib(cu|nccl|nv)[^ ]* => not found'; then
    echo "these are not the bundle's own" >&2
    exit 1
fi

# As START.txt says, from its folder; then from elsewhere.
gives "# 3 workloads verified" "cd '/opt/pg run' && timeout 100 $(tail -n 1 "$bundle/START.txt")"
misled="LD_LIBRARY_PATH=/site OPAL_PREFIX=/nowhere OPAL_PKGLIBDIR=/nowhere PMIX_PREFIX=/nowhere"
flags="--oversubscribe --bind-to none --mca mpi_yield_when_idle 1"
gives "# 3 workloads verified" "$misled timeout 60 '/opt/pg run/bin/mpirun' -n 2 $flags pgrun \
    '/opt/pg run/configs/quickstart-2.lua'"
# Open MPI's command for another host is not proof against blanks.
mv "$bundle" "$root/opt/moved"
bundle=$root/opt/moved
gives "# 3 workloads verified" "timeout 60 /opt/moved/bin/mpirun --host another:2 $flags \
    --mca plm_rsh_agent /bin/remote pgrun /opt/moved/configs/quickstart-2.lua"
gives "3 workloads verified" "/opt/moved/bin/pgrun /opt/moved/configs/quickstart-1.lua"
# Open MPI's own messages come with it.
gives "unable to launch the specified application" "! timeout 60 /opt/moved/bin/mpirun -n 1 /nowhere"

# A module for the site's MPI (here the build's own) gets the site's libraries, under the site's mpirun.
mkdir "$bundle/lib/site"
cp "$bundle/lib/pgrun/libpgrun_cpu.so" "$build/lib/pgrun/libpgrun_mpi.so" "$bundle/lib/site/"
PGRUN_MODULE_PATH=$bundle/lib/site LD_DEBUG=libs LD_DEBUG_OUTPUT=$work/loaded \
    "$source/tests/mpirun.sh" 2 "$bundle/bin/pgrun" "$bundle/configs/quickstart-2.lua" >"$work/out"
grep -F "# 3 workloads verified" "$work/out"
cat "$work"/loaded.* | sed -n 's/.*calling init: //p' | sort -u >"$work/initialised"
grep -x "$bundle/lib/site/libpgrun_mpi.so" "$work/initialised"
grep "libmpi.so" "$work/initialised"
# Of the bundle, only what pgrun and its CPU module need.
if grep -F "$bundle/" "$work/initialised" | grep -vE '/lib(pgrun_|lua|openblas|gfortran|quadmath|gcc_s)[^/]*$'; then
    echo "these should have been the site's" >&2
    exit 1
fi
