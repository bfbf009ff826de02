#!/bin/bash
# Goal: static analysers find nothing in the headers that nobody has looked at.
# Method: gcc -fanalyzer, clang-tidy and cppcheck over the implementation of each header. What they say is
# held against lint.accepted, which gives a reason for each kind of finding that is accepted in a header;
# anything else fails. What is not installed is skipped by name. The searches of both analysers are
# bounded, so that all of it takes some minutes.
. tests/compile/jobs.sh
accepted=tests/compile/lint.accepted
checks='-*,bugprone-*,cert-*,clang-analyzer-*,misc-*,performance-*,portability-*'
tidy=$(for v in '' -19 -18 -17 -16 -15 -14; do command -v clang-tidy$v && break; done)
nodes=${LINT_NODES:-40000}      # of a function's states that clang looks at: its default is 225000

# each tool prints `FILE:LINE: CHECK: message` for each finding
analyse() {     # tool, header
    local h=$2.h switch; switch=-D$(switch_of "$2")
    case $1 in
    gcc)        gcc -std=c99 $CPPFLAGS $switch -O0 -fanalyzer --param=analyzer-bb-explosion-factor=1 -x c -c -o /dev/null "$h" 2>&1 |
                    sed -n 's/^\([^: ]*:[0-9]*\):.*warning: \(.*\) \[-W\([a-z0-9+-]*\)\]$/\1: \3: \2/p';;
    clang-tidy) "$tidy" --quiet --checks="$checks" "$h" -- -x c -std=c99 $CPPFLAGS $switch -Xclang -analyzer-config -Xclang max-nodes="$nodes" 2>/dev/null |
                    sed -n 's/^\([^: ]*:[0-9]*\):[0-9]*: [a-z]*: \(.*\) \[\([a-zA-Z0-9.,-]*\)\]$/\1: \3: \2/p';;
    cppcheck)   cppcheck --quiet --enable=warning,performance,portability --std=c99 --language=c $switch -D__GNUC__=12 -D__linux__=1 -D__x86_64__=1 \
                    -D__SIZEOF_POINTER__=8 -D__BYTE_ORDER__=1234 -D__ORDER_LITTLE_ENDIAN__=1234 --suppress=missingIncludeSystem \
                    --template='{file}:{line}: {id}: {severity}: {message}' "$h" 2>&1 | grep -E '^kv[a-z_]*\.h:[0-9]+: ';;
    esac | sed "s|^$PWD/||;s|^\./||" | sort -u > "$out/$2.$1"
}
export -f analyse switch_of; export tidy checks nodes out CPPFLAGS
tools=
for tool in gcc clang-tidy cppcheck; do
    case $tool in clang-tidy) [ -n "$tidy" ];; *) command -v $tool >/dev/null;; esac && tools="$tools $tool" || note_skip $tool "not installed"
done
for tool in $tools; do for h in $headers; do echo "$tool $h"; done; done | tac | xargs -P "${MATRIX_JOBS:-${JOBS:-2}}" -L 1 bash -c 'analyse "$1" "$2"' bash

passed=0 failed=0
for tool in $tools; do
    for h in $headers; do
        new=$(awk -v list="$accepted" -v header="$h.h" '
            BEGIN { while ((getline line < list) > 0) { n = split(line, word, " "); if (n > 2 && word[1] !~ /^#/) ok[word[1] " " word[2]] = 1 } }
            { file = $1; sub(/:.*/, "", file); if (file !~ /^kv/) file = header; check = $2; sub(/:$/, "", check); if (!(("*" " " check) in ok) && !((file " " check) in ok)) print }' "$out/$h.$tool")
        if [ -z "$new" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $tool, $h.h"; echo "$new" | head -20; fi
    done
done
if [ $skip_count != 0 ]; then echo "$passed passed, $failed failed, $skip_count skipped"; else echo "$passed passed, $failed failed"; fi
[ $failed = 0 ]
