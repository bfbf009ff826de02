#!/bin/bash
# Run one fuzz target for FUZZ_SECONDS on its stored inputs (tests/fuzz/corpus/NAME) and on new ones.
# They follow from KV_TEST_SEED, so that a verdict can be had again; how far one comes depends on the machine.
# What makes it fail is kept in build/fuzz/NAME.found/; run the program with such a file to repeat it.
program=$1 name=${1##*/} seconds=${FUZZ_SECONDS:-20}
found=${BUILD:-build}/fuzz/$name.found work=${BUILD:-build}/fuzz/$name.corpus stored=tests/fuzz/corpus/${name#fuzz_}
mkdir -p "$found" "$work"
[ -d "$stored" ] || stored=
if "$program" -help=1 2>&1 | grep -q libFuzzer; then
    "$program" -seed="${KV_TEST_SEED:-20261121}" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=1500 -print_final_stats=1 -artifact_prefix="$found/" "$work" $stored 2>&1 | tail -n 60
    status=${PIPESTATUS[0]}
else
    FUZZ_SECONDS=$seconds FUZZ_FOUND=$found "$program" $stored
    status=$?
fi
if [ "$status" = 0 ]; then echo "1 passed, 0 failed"; else echo "0 passed, 1 failed"; exit 1; fi
