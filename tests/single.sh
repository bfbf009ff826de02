#!/bin/sh
# Write dist/HEADER.h for each header: one file that carries every header of ours that it needs.
# `#include "kv_..."` lines are replaced in place, the first of each header; the guards inside make
# such files work together, and beside the plain headers.
#     sh tests/single.sh OUTPUT-DIRECTORY HEADER.h...
out=$1; shift
mkdir -p "$out"
for header in "$@"; do
    awk -v top="$header" '
        function put(file, line, name) {
            while ((getline line < file) > 0) {
                if (line ~ /^#include "kv[a-z_]*\.h"/) {
                    name = line; sub(/^#include "/, "", name); sub(/".*/, "", name)
                    if (seen[name]++) continue
                    print "/* ---- " name " ---- */"
                    put(name)
                    print "/* ---- back in " file " ---- */"
                } else print line
            }
            close(file)
        }
        BEGIN { put(top) }' /dev/null > "$out/$header"
done
