#!/bin/bash
# luacats.sh PGRUN FILE - FILE must be what `pgrun --help luacats` prints.
set -u
if ! "$1" --help luacats | diff -u "$2" -; then
    echo "$2 is not what the table of keys gives; mend it: pgrun --help luacats > $2" >&2
    exit 1
fi
