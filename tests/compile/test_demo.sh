#!/bin/bash
# Goal: the demo takes any file of lines, shows one row for each store, says what it leaves out, and
# fails in words.
# Method: small files with what is unusual in them.
. tests/compile/jobs.sh
passed=0 failed=0
check() { if ( eval "$2" ) > "$out/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1"; head -20 "$out/log"; fi; }
demo=$out/demo
rows="mem|art|fst|compressed\((mem|art)\)|lsm"

if ! $CC -std=gnu11 $CPPFLAGS -Wall -Wextra -O1 -o "$demo" examples/demo.c $LDFLAGS $LIBS 2> "$out/errors" || [ -s "$out/errors" ]; then
    echo "FAIL examples/demo.c does not compile without a word"; head -20 "$out/errors"; echo "0 passed, 1 failed"; exit 1
fi
run() { "$demo" "$@" > "$out/table" 2> "$out/stderr"; echo $? > "$out/status"; }
ended() { [ "$(cat "$out/status")" = "$1" ] || { cat "$out/stderr" "$out/table"; return 1; }; }
row_count=0
for m in mem art fst lsm; do grep -qs "_IMPLEMENTED 1" kv_$m.h && row_count=$((row_count + 1)); done
grep -qs "_IMPLEMENTED 1" kv_compress.h && for m in mem art; do grep -qs "_IMPLEMENTED 1" kv_$m.h && row_count=$((row_count + 1)); done
each_row_says() { [ "$(grep -cE "^($rows) " "$out/table")" = $row_count ] && [ "$(grep -E "^($rows) " "$out/table" | grep -vc ": " )" = $row_count ] && ! grep -E "^($rows) " "$out/table" | grep -vqE "^[^ ]+ +$1 "; }

# duplicates (the last counts), empty lines, binary bytes, prefixes of each other, no newline at the end
printf 'b\na\na\0\nb\n\nabc\nab\n\n\377\376\nb\nlast' > "$out/odd"
run "$out/odd"
check "odd lines: ends well"                     "ended 0"
check "odd lines: each store has 8 of the 11"    "each_row_says 8 || { cat $out/table; false; }"
check "odd lines: nothing on stderr, which is no terminal" "[ ! -s $out/stderr ]"

{ head -c 65535 /dev/zero | tr '\0' x; echo; head -c 65536 /dev/zero | tr '\0' y; echo; echo short; } > "$out/long"
run "$out/long"
check "a line over the limit: ends well"         "ended 0"
check "a line over the limit: two are taken"     "each_row_says 2 || { cat $out/table; false; }"
check "a line over the limit: one is left out"   "grep -q '^1 left out' $out/table"

: > "$out/empty"
run "$out/empty"
check "an empty file: ends well"                 "ended 0"
check "an empty file: each store has none"       "each_row_says 0 || { cat $out/table; false; }"

seq 1 20000 | awk '{ print "key/" $1 * 7919 % 20011 "/" $1 % 13 }' > "$out/many"
run "$out/many"
check "twenty thousand lines: ends well"         "ended 0"
check "twenty thousand lines: each store has them" "each_row_says 20000 || { cat $out/table; false; }"

run "$out/there is no such file"
check "a file that is not there: exit 1, in words" "ended 1 && grep -q 'no such file: No such file' $out/stderr"
run "$out"
check "a directory: exit 1, in words"            "ended 1 && grep -q 'Is a directory' $out/stderr"
run one two
check "two arguments: exit 1 and how to use it"  "ended 1 && grep -q '^usage' $out/stderr"
if script -qc true /dev/null >/dev/null 2>&1; then
    script -qc "$demo $out/many" /dev/null > "$out/terminal" < /dev/null
    check "on a terminal there is a bar"         "grep -q '\[[# ]*\] *[0-9]* %' $out/terminal || [ $row_count = 0 ]"
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
