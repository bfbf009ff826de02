#!/bin/sh
# Build one benchmark for this processor:  build.sh tests/bench/bench_X.c[pp] OUTPUT
# MACHINE=haswell: for what -march=haswell is (AVX2); MACHINE=x86-64: SSE2
#
# A benchmark names the peers that it can compare with in its first 40 lines:
#     bench-pkgs: absl_flat_hash_map tbb        by pkg-config
#     bench-libs: Judy marisa                   by -lNAME
# For each one that is installed it is compiled with -DHAVE_NAME=1 (letters, digits and _ of the name)
# and linked with it; the others are named as skipped.
source=$1 output=$2
case $source in
*.cpp) compile="${CXX:-g++} -std=gnu++17";;
*)     compile="${CC:-gcc} -std=gnu11";;
esac
flags= libs= missing=
have() { flags="$flags -DHAVE_$(echo "$1" | sed 's/[^A-Za-z0-9]/_/g')=1"; }
for name in $(sed -n '1,40s/.*bench-pkgs:\([^*]*\).*/\1/p' "$source"); do
    if pkg-config --exists "$name" 2>/dev/null; then
        have "$name"
        flags="$flags $(pkg-config --cflags "$name")"
        libs="$libs $(pkg-config --libs "$name")"
    else missing="$missing $name"; fi
done
for name in $(sed -n '1,40s/.*bench-libs:\([^*]*\).*/\1/p' "$source"); do
    if echo 'int main(void) { return 0; }' | ${CC:-gcc} $LDFLAGS -xc - -xnone -o /dev/null "-l$name" 2>/dev/null; then
        have "$name"
        libs="$libs -l$name"
    else missing="$missing $name"; fi
done
[ -z "$missing" ] || echo "$source: without$missing (make bench-deps installs them)" >&2
machine=${MACHINE:-native}
native=$(echo "int x;" | ${CC:-gcc} "-march=$machine" -fsyntax-only -xc - 2>/dev/null && echo "-march=$machine")
rm -f "$output"
exec $compile $CPPFLAGS -O3 $native -g -Wall -Wextra $flags -o "$output" "$source" $LDFLAGS $libs -Wl,--as-needed -llz4 -lzstd -lpthread -lm
