# root.sh - another root, with a shell, a few programs, the family of libc and nothing else of the system, in
# which a bundle must run. Sourced by bundle.sh and gpu.sh, which have made the folder $work.
# shellcheck shell=bash
# shellcheck disable=SC2154

# Another root with /proc, /dev and /sys, and no mount left behind.
within=(unshare --mount --pid --fork --kill-child)
[ "$(id -u)" = 0 ] || within+=(--map-root-user)
root=$work/root

# can_change_root - ends with status 77 where this user may not, or patchelf is missing.
can_change_root() {
    if ! "${within[@]}" mount --rbind /dev /dev 2>"$work/said"; then
        echo "skipped: ${within[*]}: $(cat "$work/said")"
        exit 77
    fi
    if ! command -v patchelf >/dev/null; then
        echo "skipped: patchelf is not installed"
        exit 77
    fi
}

# copy_libraries FILE - what the file is linked with, to the folder of libc.
copy_libraries() {
    local name
    ldd "$1" | sed -n 's/.* => \(\/[^ ]*\).*/\1/p' | while read -r name; do
        [ -e "$root$family/$(basename "$name")" ] || cp -L "$name" "$root$family/"
    done
}

# make_root PROGRAM... - with /bin/sh, these programs and what they are linked with.
make_root() {
    local program name file
    mkdir -p "$root"/{opt,tmp,proc,dev,sys,bin}
    interpreter=$(patchelf --print-interpreter /bin/sh)
    family=$(dirname "$(ldd /bin/sh | awk '$1 == "libc.so.6" { print $3 }')")
    mkdir -p "$root$family" "$root$(dirname "$interpreter")"
    for name in c m mvec dl rt pthread util resolv; do
        find "$family" -maxdepth 1 -name "lib$name.so.[0-9]*" -exec cp -L {} "$root$family/" \;
    done
    cp -L "$interpreter" "$root$interpreter"
    for program in sh "$@"; do
        file=$(command -v "$program")
        cp -L "$file" "$root/bin/$program"
        copy_libraries "$file"
    done
}

# inside COMMAND - a line of shell in that root.
inside() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    "${within[@]}" /bin/bash -c '
        mount --rbind /dev "$1/dev" && mount --rbind /sys "$1/sys" && mount -t proc proc "$1/proc" &&
            exec chroot "$1" /bin/env -i PATH=/bin \
                OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 /bin/sh -c "$2"' - "$root" "$1"
}

# gives TEXT COMMAND - the line of shell ends well and says TEXT.
gives() {
    echo "+ $2"
    inside "$2" >"$work/out" 2>&1 && grep -qF -- "$1" "$work/out" && return
    printf '%s\nfailed, or was without "%s":\n' "$2" "$1" >&2
    cat "$work/out" >&2
    return 1
}
