#!/bin/bash
# diagnostics_page.sh PGRUN FILE - FILE must be what `pgrun explain all` prints.
set -u
if ! "$1" explain all | diff -u "$2" -; then
    echo "$2 is not what the table of rules gives; mend it: pgrun explain all > $2" >&2
    exit 1
fi
