#!/bin/bash
# Goal: every header reads as STYLE.md says: what it is, its licence, a table of contents that is true;
# unit_api.c knows the type of every public function.
# Method: text tools.
. tests/compile/jobs.sh
passed=0 failed=0
check() { if eval "$2"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1"; fi; }
version=$(sed -n 's/^#define KV_VERSION_STRING "\(.*\)"/\1/p' kv.h)
licence() { sed -n '/^\/\* MIT License/,$p' "$1" | sed 's/^\/\* *//;s/ *\*\/$//;s/^ *//' | tr -s '\n ' '  '; }

for h in $headers; do
    f=$h.h
    check "$f: the first line names file, version and purpose" "head -1 $f | grep -qE '^/\* $f - v$version - .+'"
    check "$f: SPDX line"           "sed -n 2p $f | grep -q 'SPDX-License-Identifier: MIT'"
    check "$f: QUICK START within 15 lines" "head -15 $f | grep -q 'QUICK START'"
    listed=$(sed -n '/^ *CONTENTS/,/^ *$/p' $f | grep -o '>>[a-z_0-9]*' | tr '\n' ' ')
    there=$(sed '1,/^ *CONTENTS/d' $f | sed '1,/^ *$/d' | grep -oE '^   >>[a-z_0-9]+(  |$| *\*/)' | grep -o '>>[a-z_0-9]*' | tr '\n' ' ')
    check "$f: CONTENTS ($listed) is what is there ($there)" "[ -n '$listed' ] && [ '$listed' = '$there' ]"
    check "$f: the licence is at the end, the same as kv.h's" "[ -n \"\$(licence $f)\" ] && [ \"\$(licence $f)\" = \"\$(licence kv.h)\" ]"
    check "$f: nobody left a note to himself" "! grep -nE 'TODO|FIXME|XXX|HACK|for now|not implemented|placeholder' $f"
    check "$f: plain ASCII, no tabs, no trailing blanks" "! LC_ALL=C grep -nP '[^ -~]|\s\$' $f"
done
functions=$(for h in $headers; do sed -nE 's/^KV_API [^(]*(kv_[a-z0-9_]+) *\(.*/\1/p' $h.h; done)
check "the headers declare functions" "[ $(echo "$functions" | wc -l) -ge 213 ]"
for f in $functions; do check "tests/unit/unit_api.c has the type of $f" "grep -q 'SAME(.*, $f);' tests/unit/unit_api.c"; done
for f in tests/unit/* tests/model/* tests/race/* tests/crash/* tests/fuzz/fuzz_*.c; do
    [ -f "$f" ] || continue
    check "$f says its goal and method" "head -12 $f | grep -q 'Goal:' && head -25 $f | grep -q 'Method:'"
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
