#!/bin/bash
# Goal: what the documentation shows works when it is pasted.
# Method: every ```c block of README.md and every header's QUICK START is taken out, compiled and run
# in an empty directory, and compiled as C++ too. A block without `main` goes into one, behind includes
# of what exists (and a `fail` that prints a text and gives 1). A block whose fence is "```c compile" is
# only compiled. A QUICK START finds nothing in its directory but the headers that its header's first
# lines name, and is linked with the libraries that they name.
. tests/compile/jobs.sh
root=$PWD warnings="-Wall -Wextra -Wno-unused-variable -Wno-unused-parameter -Wno-unused-function"

# blocks that do not implement are linked with one object that does
{ echo '#define KV_IMPLEMENTATION'; for h in $headers; do echo "#include \"$h.h\""; done; } > "$out/all.c"
$CC $CPPFLAGS -std=c99 -w -I. -O0 -c -o "$out/all.o" "$out/all.c"

build_block() {         # file of the block, name, run or compile, header it belongs to or nothing
    local block=$1 name=$2 how=$3 header=$4 source="$out/$2.c" object
    {
        if ! grep -q '_IMPLEMENTATION' "$block"; then
            [ -n "$header" ] && printf '#define %s\n#include "%s.h"\n' "$(switch_of "$header")" "$header"
            [ -n "$header" ] || for h in $headers; do echo "#include \"$h.h\""; done
        fi
        if grep -qE '\bmain *\(' "$block"; then cat "$block"
        else
            grep -E '^ *#' "$block"
            printf '#include <stdio.h>\n#include <string.h>\n'
            printf 'static int fail(const char *text) { fprintf(stderr, "%%s\\n", text); return 1; }\n'
            printf 'int main(void)\n{\n    (void)fail;\n'; grep -vE '^ *#' "$block"; printf '    return 0;\n}\n'
        fi
    } > "$source"
    job "$name compiles as C++" "$CXX $CPPFLAGS -std=c++11 $warnings -Wno-missing-field-initializers -I. -fsyntax-only -x c++ $source"
    [ -z "$header" ] || return 0
    mkdir -p "$out/$name.dir"
    object=; grep -q '_IMPLEMENTATION' "$source" || object=$out/all.o
    job "$name compiles$([ "$how" = run ] && echo ' and runs')" "$CC $CPPFLAGS -std=c99 $warnings -I. -O0 -o $out/$name.bin $source $object $LDFLAGS $LIBS $([ "$how" = run ] && echo "&& cd $out/$name.dir && timeout 60 $root/$out/$name.bin > output")"
}
copy_alone() {          # header
    local first alone=$out/$1.alone
    first=$(sed -n 1,6p "$1.h")
    mkdir -p "$alone"
    cp $(echo "$1.h $first" | grep -oE 'kv[a-z_]*\.h' | sort -u) "$alone"
    cp "$out/quick_start_$1.c" "$alone/app.c"
    job "QUICK START of $1.h, with nothing but what it names" "cd $alone && $CC $CPPFLAGS -std=c99 $warnings -O0 -o app app.c $LDFLAGS $(echo "$first" | grep -oE -- '-l[a-z0-9]+' | tr '\n' ' ') -pthread && timeout 60 ./app > output"
}

for h in $headers; do
    sed -n '/^ *QUICK START/,/^ *CONTENTS/{/QUICK START/d;/CONTENTS/d;p}' $h.h > "$out/$h.block"
    build_block "$out/$h.block" "quick_start_$h" run $h
    copy_alone $h
done
if [ -e README.md ]; then
    awk -v out="$out" '
        /^```c( |$)/ { n++; file = out "/readme_" n ".block"; how = ($0 ~ /compile/) ? "compile" : "run"; printf "" > file; print NR, how > (file ".how"); inside = 1; next }
        /^```/       { if (inside) { close(file); close(file ".how") } inside = 0; next }
        inside       { print > file }' README.md
    for block in "$out"/readme_*.block; do
        [ -e "$block" ] || continue
        read -r line how < "$block.how"
        missing=
        for used in $(sed -n 's/.*#include "\(kv[a-z_]*\.h\)".*/\1/p' "$block"); do [ -e "$used" ] || missing=$used; done
        if [ -n "$missing" ]; then note_skip "README.md line $line" "$missing is not there"; continue; fi
        build_block "$block" "README_line_$line" "$how"
    done
fi
run_jobs
