#!/bin/bash
# Each module as firmware has it: alone in an object, with KV_NO_THREADS KV_NO_MALLOC KV_NO_STDIO
# KV_NO_FILES, at -Os, for Cortex-M0, Cortex-M3 and RV32IMAC.
#
#     library.sh symbols      no warning at any of the levels of the house; every symbol that an object
#                             needs is of string.h or the compiler's own arithmetic: no malloc, no
#                             atomics helper, no stdio, no file; no recursion, no unbounded frame
#     library.sh sizes        the table of sizes, in markdown
#     library.sh check        symbols, aims, and the table in README.md is what is measured (by the same compilers)
#     library.sh update       puts the table there, between <!-- sizes --> and <!-- /sizes -->
#
# text    the module with every public function of it, and what it needs of the headers below; what
#         nobody calls is dropped, as in any firmware (-ffunction-sections, --gc-sections). The C
#         library and the compiler's arithmetic are not counted.
# basic   the same for a program that opens, gets, sets, deletes, scans and closes
# stack   the deepest chain of calls (-fcallgraph-info=su); an allocator, a kv_io or a callback
#         that is called through a pointer comes on top.
# RAM     the most that the arena ever held while the firmware program fw_MODULE.c ran: a thousand
#         keys of 12 bytes with values of 8.

cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build}
mode=${1:-sizes}
modules="simd mem mem_less art fst_lookup fst_reader fst compress lsm lsm_less"
allowed='^(memcpy|memmove|memset|memcmp|memchr|strlen|strcmp|strncmp|strchr|strrchr|__aeabi_.*|__gnu_thumb1_case_.*|__(u|)(div|mod|divmod)[sd]i[34]|__(mul|ash[lr]|lshr|clz|ctz|popcount|ffs|bswap)[sdv]*i[23]|__(add|sub|mul|div|neg|eq|ne|lt|le|gt|ge|unord)[sd]f[23]|__(fix|fixuns|float|floatun|extend|trunc)[sdfi]*2?|__udivmoddi4|LZ4_.*)$'
# recursion with a bound: groups of a pattern, at most KV_REGEX_DEPTH_MAX; levels of the tree that the
# builder writes, each of them at least twice as small as the one below
bounded="kvi_fst_regex_either kvi_fst_window_room"
passed=0 failed=0
good() { passed=$((passed + 1)); }
bad()  { failed=$((failed + 1)); echo "FAIL $*"; }

header_of() { case $1 in mem*) echo kv_mem.h;; lsm*) echo kv_lsm.h;; fst*) echo kv_fst.h;; *) echo "kv_$1.h";; esac; }
targets=
for t in m0 m3 rv32; do if sh tests/port/build.sh $t there; then targets="$targets $t"; fi; done
[ -n "$targets" ] || { echo "0 passed, 0 failed"; exit 0; }
sh tests/port/sources.sh

compile() {     # target, module
    local object=$BUILD/port/$1/library_$2.o
    rm -f "$object"; mkdir -p "$BUILD/port/$1"
    OPTIONS="-Os -DLIBRARY_$(echo "$2" | tr a-z A-Z) -fcallgraph-info=su" sh tests/port/build.sh "$1" tests/port/library.c "$object" > "${object%.o}.said" 2>&1 || rm -f "$object"
}
export -f compile
for m in lsm lsm_less fst compress mem mem_less art fst_reader fst_lookup simd; do for t in $targets; do echo "$t $m"; done; done | xargs -P "${JOBS:-2}" -L 1 bash -c 'compile "$1" "$2"' bash

declare -A core text data bss stack chain ram
for t in $targets; do
    case $t in m0|m3) tools=arm-none-eabi-;; *) tools=riscv64-unknown-elf-;; esac
    case $t in m0) emulate="-mcpu=cortex-m0 -mthumb";; m3) emulate="-mcpu=cortex-m3 -mthumb";; rv32) emulate="-march=rv32imac -mabi=ilp32";; esac
    for m in $modules; do
        [ -e "$(header_of "$m")" ] || continue
        object=$BUILD/port/$t/library_$m.o
        if [ ! -e "$object" ]; then bad "$t $m does not compile without warnings"; cat "${object%.o}.said"; continue; fi
        good
        foreign=$(${tools}nm -u "$object" | awk '{ print $NF }' | grep -vE "$allowed" | tr '\n' ' ')
        if [ -n "$foreign" ]; then bad "$t $m needs $foreign"; else good; fi
        if line=$(awk -v bounded="$bounded" -f tests/port/stack.awk "${object%.o}.ci"); then good; else bad "$t $m: $line"; fi
        line=$(echo "$line" | tail -1)
        stack[$t,$m]=${line%% *} chain[$t,$m]=${line#* }
        roots=$(${tools}nm "$object" | awk '$2 == "T" && $3 ~ /^kv_/ { printf " -Wl,-u,%s", $3 }')
        ${tools}gcc $emulate -nostdlib -r -Wl,--gc-sections $roots "$object" -o "${object%.o}.whole.o" || { bad "$t $m does not link"; continue; }
        if [ $t = m3 ]; then
            some=
            for name in open open_memory close get set delete scan iter_open; do
                echo "$roots" | grep -q -- "-u,kv_${m%%_*}_$name\b" && some="$some -Wl,-u,kv_${m%%_*}_$name"
            done
            [ -z "$some" ] || { ${tools}gcc $emulate -nostdlib -r -Wl,--gc-sections $some "$object" -o "${object%.o}.some.o" &&
                core[$m]=$(${tools}size "${object%.o}.some.o" | awk 'END { print $1 }'); }
        fi
        read -r text[$t,$m] data[$t,$m] bss[$t,$m] _ < <(${tools}size "${object%.o}.whole.o" | tail -1)
    done
    while read -r name bytes; do ram[$t,$name]=$bytes; done < <(
        for program in "$BUILD/port/$t"/"$t".fw_*.sh; do [ -e "$program" ] && timeout 100 sh "$program" 2>&1 | sed -n 's/^RAM //p'; done)
done

ram_of() {      # target, module
    case $2 in
    fst_lookup|fst_reader) echo "${ram[$1,fst-reader]:-}";;
    mem_less)   echo "${ram[$1,mem]:-}";;
    lsm_less)   echo "${ram[$1,lsm]:-}";;
    fst)        echo "${ram[$1,fst-builder]:-}";;
    compress)   echo "${ram[$1,compress-none]:-}";;
    *)          echo "${ram[$1,$2]:-}";;
    esac
}
title() {
    case $1 in
    simd)       echo '`kv_simd.h`: the hash';;
    mem_less)   echo '`kv_mem.h` without snapshots, watches, time to live and limit (`KV_MEM_NO_...`)';;
    fst_lookup) echo '`kv_fst.h`, lookups (`KV_FST_LOOKUP_ONLY`)';;
    fst_reader) echo '`kv_fst.h`, reader (`KV_FST_READER_ONLY`)';;
    fst)        echo '`kv_fst.h`, reader and builder';;
    compress)   echo '`kv_compress.h`, without the LZ4 library';;
    lsm)        echo '`kv_lsm.h`, with `kv_compress.h`';;
    lsm_less)   echo '`kv_lsm.h` without check, repair, ingest, checkpoint, resume, statistics, cache, filters, texts (`KV_LSM_NO_...`) and codecs';;
    *)          echo "\`kv_$1.h\`";;
    esac
}
compilers() { echo "Compiled by arm-none-eabi-gcc $(arm-none-eabi-gcc -dumpversion) and riscv64-unknown-elf-gcc $(riscv64-unknown-elf-gcc -dumpversion)."; }
readme_table() { sed -n '/^<!-- sizes -->$/,/^<!-- \/sizes -->$/p' README.md | sed '1d;$d'; }
table() {
    compilers
    echo
    echo "| module | text M0 | text M3 | text RV32 | text M3, basic | data + bss | stack M0 | stack M3 | stack RV32 | RAM, 1,000 keys |"
    echo "|---|---|---|---|---|---|---|---|---|---|"
    for m in $modules; do
        [ -n "${text[m3,$m]}" ] || continue
        r=$(ram_of m3 $m)
        echo "| $(title $m) | ${text[m0,$m]} | ${text[m3,$m]} | ${text[rv32,$m]} | ${core[$m]:--} | $((data[m3,$m] + bss[m3,$m])) | ${stack[m0,$m]} | ${stack[m3,$m]} | ${stack[rv32,$m]} | ${r:--} |"
    done
}
if [ "$mode" = check ]; then
    for t in $targets; do
        OPTIONS="-I. -Itests/port/lfs" sh tests/port/build.sh $t examples/firmware/littlefs_io.c "$BUILD/port/$t/littlefs_io.o" && good || bad "$t: littlefs_io.c has warnings"
        { printf '#define KV_NO_THREADS\n#define KV_NO_MALLOC\n#define KV_NO_STDIO\n#define KV_NO_FILES\n'; sed -n '/^```c$/,/^```$/p' examples/firmware/README.md | sed '/^```/d'; } > "$BUILD/port/$t/readme.c"
        OPTIONS="-I." sh tests/port/build.sh $t "$BUILD/port/$t/readme.c" "$BUILD/port/$t/readme.o" && good || bad "$t: the program in examples/firmware/README.md does not compile"
    done
fi
case $mode in
sizes)
    table
    echo
    for m in $modules; do [ -z "${chain[m3,$m]}" ] || echo "deepest on M3, $m: ${chain[m3,$m]}"; done
    exit 0;;
check)
    # aims are said, not enforced: what is enforced is that the README tells what is measured
    aim() { [ -z "${text[m3,$1]}" ] || echo "$1 on Cortex-M3: ${text[m3,$1]} bytes of text, ${core[$1]:-all} of them basic; the aim was under $2"; }
    aim fst_lookup 6144; aim fst_reader 6144; aim art 12288; aim mem 10240; aim mem_less 10240; aim lsm 40960; aim lsm_less 40960
    if [ "$targets" != " m0 m3 rv32" ]; then echo "SKIP the table of sizes: not all of m0, m3 and rv32 are here"
    elif [ "$(readme_table | head -1)" != "$(compilers)" ]; then echo "SKIP the table of sizes: the compilers are others"
    elif diff <(readme_table) <(table); then good
    else bad "the table of sizes in README.md is not what is measured (make sizes-update puts it there)"; fi;;
update)
    [ "$targets" = " m0 m3 rv32" ] || exit 1
    table > "$BUILD/port/sizes.md"
    sed -i -e "/^<!-- sizes -->$/r $BUILD/port/sizes.md" -e '/^<!-- sizes -->$/,/^<!-- \/sizes -->$/{/^<!-- /!d}' README.md
    readme_table;;
esac
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
