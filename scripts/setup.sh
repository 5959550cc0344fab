# setup.sh - what quickstart, test and bench share: packages and building. Sourced, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
script=$(basename "$0")

say() { printf '%s: %s\n' "$script" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# packages run|bundle|tests - the names in packages.txt, up to the end of that part.
packages() {
    local line
    while read -r line; do
        case $line in
        '# bundle') [ "$1" != run ] || return 0 ;;
        '# tests') [ "$1" = tests ] || return 0 ;;
        '' | '#'*) ;;
        *) echo "$line" ;;
        esac
    done <"$root/scripts/packages.txt"
}

# The packages of that part which are not installed.
missing_packages() {
    local name
    for name in $(packages "$1"); do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] ||
            echo "$name"
    done
}

# install_packages run|bundle|tests - installs what is missing, and touches neither apt nor the network
# where nothing is.
install_packages() {
    local missing log as_root=()
    if ! command -v dpkg-query >/dev/null; then
        say "not a Debian system: taking it that these are here: $(packages "$1" | xargs)"
        return 0
    fi
    missing=$(missing_packages "$1" | xargs)
    [ -n "$missing" ] || return 0

    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null ||
            die "missing packages and neither root nor sudo to install them; as root: apt-get install $missing"
        as_root=(sudo)
        # Where nobody can type a password, sudo must not wait for one.
        [ -t 0 ] && [ -t 2 ] || as_root=(sudo -n)
    fi
    say "installing $missing"
    log=$(mktemp)
    # A stale index is only a problem if the installation then fails.
    "${as_root[@]}" apt-get -q update >"$log" 2>&1 || true
    # shellcheck disable=SC2086 # a list of names
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends install $missing >>"$log" 2>&1; then
        local reason
        reason=$(grep -E '^(E:|sudo:)' "$log" | tail -n 1)
        rm -f "$log"
        die "could not install $missing (${reason:-apt-get failed}); as root: apt-get update && apt-get install $missing"
    fi
    rm -f "$log"
    missing=$(missing_packages "$1" | xargs)
    [ -z "$missing" ] || die "still missing after the installation: $missing"
}

# quietly COMMAND... - shows the output only where the command fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

# build PRESET FOLDER [CMAKE OPTION...] - configures and builds. A folder that is of no use any more
# (of another place, generator or compiler) is made anew.
build() {
    local preset=$1 folder=$2
    shift 2
    local configure=(cmake -S "$root" -B "$folder" --preset "$preset" "$@")
    local before=
    [ ! -e "$folder/CMakeCache.txt" ] || before=yes
    mkdir -p "$folder" 2>/dev/null || true
    [ -w "$folder" ] || die "cannot write to $folder: remove it, or make it yours (chown)"
    # The preset's file is looked for in the current folder.
    cd "$root" || exit 1
    if ! "${configure[@]}" >/dev/null 2>&1; then
        [ -z "$before" ] || say "$folder is stale: starting it anew"
        rm -rf "$folder"
        quietly "${configure[@]}" || die "could not configure the build (preset $preset), see above"
    fi
    say "building preset $preset in ${folder#"$root"/}"
    local log status=0
    log=$(mktemp)
    cmake --build "$folder" >"$log" 2>&1 || status=$?
    # A command that FAILED is our code's fault; anything else that ninja refuses is the folder's.
    if [ "$status" != 0 ] && ! grep -q '^FAILED:' "$log"; then
        say "$folder is stale: starting it anew"
        rm -rf "$folder"
        quietly "${configure[@]}" || die "could not configure the build (preset $preset), see above"
        status=0
        cmake --build "$folder" >"$log" 2>&1 || status=$?
    fi
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
    [ "$status" = 0 ] || die "could not build (preset $preset), see above"
    cd "$OLDPWD" || exit 1
}
