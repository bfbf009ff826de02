#!/bin/bash
# Goal: files do not depend on the machine. Method: golden.c writes every format on each machine that
# is there; the bytes of fst and of packed values must be the same everywhere; this machine reads all the others' files, and each
# of the others reads this one's.
cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build}
port=$BUILD/port files=$PWD/$BUILD/port/golden
passed=0 failed=0
check() { if "${@:2}" > "$files/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1"; tail -5 "$files/log"; fi; }
rm -rf "$files"; mkdir -p "$files"
sh tests/port/sources.sh

names() { (cd "$files/$1" && find . -name 'fst.*' -o -name compress.none | sort | xargs sha256sum); }
for t in native i386 s390x mips armhf wasm windows; do
    sh tests/port/build.sh $t there || continue
    [ -e "$port/$t/codecs.a" ] || sh tests/port/build.sh $t codecs "$port/$t/codecs.a" || continue
    mkdir -p "$files/$t"
    check "$t: golden.c compiles" sh tests/port/build.sh $t tests/port/golden.c "$port/$t/$t.golden.sh"
    # WASI sees one directory and calls it /tmp
    case $t in wasm*) export PORT_FILES=$files; in=/tmp;; *) in=$files;; esac
    check "$t writes" sh "$port/$t/$t.golden.sh" write "$in/$t"
    [ $t = native ] || {
        check "this machine reads what $t wrote" sh "$port/native/native.golden.sh" read "$files/$t"
        check "$t reads what this machine wrote" sh "$port/$t/$t.golden.sh" read "$in/native"
        check "$t writes the same bytes as this machine" diff <(names native) <(names $t)
    }
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
