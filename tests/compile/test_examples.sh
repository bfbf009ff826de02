#!/bin/bash
# Compile every example, strictly, run it in a directory of its own, and compare what it prints with
# NAME.expected beside it. The demo is run on a small file of keys instead.
CC=${CC:-gcc} BUILD=${BUILD:-build} LIBS=${LIBS:--Wl,--as-needed -llz4 -lzstd -lpthread -lm}
strict="-std=c99 -Wall -Wextra -Wpedantic -Wshadow"
root=$PWD out=$PWD/$BUILD/examples passed=0 failed=0
mkdir -p "$out"
fail() { failed=$((failed + 1)); echo "FAIL $1"; }

for source in examples/*.c; do
    name=$(basename "$source" .c)
    [ "$name" = demo ] && continue
    [ -e "$source" ] || continue
    rm -rf "$out/$name" "$out/$name.dir"; mkdir -p "$out/$name.dir"
    if ! $CC $strict $CPPFLAGS -O0 -g -o "$out/$name" "$source" $LDFLAGS $LIBS 2> "$out/$name.errors" || [ -s "$out/$name.errors" ]; then
        fail "$source does not compile without a word"; cat "$out/$name.errors"; continue
    fi
    if [ ! -e "examples/$name.expected" ]; then fail "examples/$name.expected is missing"; continue; fi
    (cd "$out/$name.dir" && "$out/$name") > "$out/$name.output" 2>&1
    status=$?
    if [ $status != 0 ]; then fail "$source ended with status $status"; tail -5 "$out/$name.output"; continue; fi
    if ! diff "examples/$name.expected" "$out/$name.output"; then fail "$source prints something else"; continue; fi
    rm -rf "$out/$name.dir"
    passed=$((passed + 1))
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
