#!/bin/bash
# Goal: every header compiles alone, repeated, in any order and company, in every standard and with
# every switch, without a warning, and leaves nothing behind in the user's file.
# Method: small files made here, compiled with all warnings as errors; `nm` and `-dM -E` where the
# question is what came out.
. tests/compile/jobs.sh

c_standards="c99 c11" cxx_standards="c++11 c++17"      # in the short form: gcc the first, clang the second
[ -z "$full" ] || { c_standards="c99 c11 c17 c2x gnu17"; cxx_standards="c++11 c++17 c++20 c++23"; }
standards() { if [ -n "$full" ]; then echo $2; elif [ $1 = gcc ]; then echo ${2%% *}; else echo ${2##* }; fi; }
compilers="gcc"; [ -z "$CLANG" ] && note_skip clang "not installed; only gcc was tried" || compilers="gcc clang"
c_of()   { [ $1 = gcc ] && echo "$CC $CPPFLAGS" || echo "$CLANG $CPPFLAGS"; }
cxx_of() { [ $1 = gcc ] && echo "$CXX $CPPFLAGS" || echo "$CLANGXX $CPPFLAGS"; }
knows() { echo 'int x;' | $1 -std=$2 -fsyntax-only -x$3 - 2>/dev/null; }

# ---- each header alone, first and repeated, declared and implemented; all of them in both directions ----
for h in $headers; do
    printf '#include "%s.h"\n#include "%s.h"\ntypedef int kv_user_of_this_file;\n' $h $h > "$out/$h.declare.c"
    printf '#define %s\n#include "%s.h"\n#include "%s.h"\n' "$(switch_of $h)" $h $h > "$out/$h.implement.c"
    printf '#include "%s.h"\n#define %s\n#include "%s.h"\n#undef %s\n#include "%s.h"\n' $h "$(switch_of $h)" $h "$(switch_of $h)" $h > "$out/$h.later.c"
done
includes=$(for h in $headers; do echo "#include \"$h.h\""; done)
printf '#define KV_IMPLEMENTATION\n%s\n' "$includes" > "$out/all.implement.c"
printf '#define KV_IMPLEMENTATION\n%s\n' "$(echo "$includes" | tac)" > "$out/all_reversed.implement.c"
printf '%s\n#define KV_IMPLEMENTATION\n%s\n' "$includes" "$(echo "$includes" | tac)" > "$out/all.later.c"
for h in all ${full:+$headers}; do
    printf '#include "tests/compile/hostile.h"\n%s\n#if !defined(kv_init) || !defined(kv_size) || !defined(kv_pop)\n#error "a macro of the user is gone"\n#endif\n' "$(cat "$out/$h.implement.c")" > "$out/$h.hostile.c"
done
for compiler in $compilers; do
    for std in $(standards $compiler "$c_standards"); do
        knows "$(c_of $compiler)" $std c || continue
        for h in $headers; do
            for form in declare implement; do
                job "$h.h, $form, $compiler $std" "$(c_of $compiler) -std=$std $strict_c -I. -fsyntax-only $out/$h.$form.c"
            done
        done
        job "all, $compiler $std" "$(c_of $compiler) -std=$std $strict_c -I. -fsyntax-only $out/all.implement.c"
    done
    for std in $(standards $compiler "$cxx_standards"); do
        knows "$(cxx_of $compiler)" $std c++ || continue
        for h in $headers; do
            for form in declare implement; do
                job "$h.h, $form, $compiler $std" "$(cxx_of $compiler) -std=$std $strict -I. -fsyntax-only -xc++ $out/$h.$form.c"
            done
        done
        job "all, $compiler $std" "$(cxx_of $compiler) -std=$std $strict -I. -fsyntax-only -xc++ $out/all.implement.c"
    done
    [ -z "$full" ] && [ $compiler = clang ] && continue
    for h in $headers all; do
        job "$h.h, declared and then implemented, $compiler" "$(c_of $compiler) -std=c99 $strict_c -I. -fsyntax-only $out/$h.later.c"
    done
    job "all, the other way round, $compiler" "$(c_of $compiler) -std=c99 $strict_c -I. -fsyntax-only $out/all_reversed.implement.c"
    for h in all ${full:+$headers}; do
        job "$h.h after klib and min/max, $compiler" "$(c_of $compiler) -std=c99 $strict_c -I. -fsyntax-only $out/$h.hostile.c"
        job "$h.h after klib and min/max, C++, $compiler" "$(cxx_of $compiler) -std=c++11 $strict -I. -fsyntax-only -xc++ $out/$h.hostile.c"
    done
done

# ---- optimisation finds other warnings (maybe-uninitialized, array-bounds, stringop-overflow) ----
if [ -n "$full" ]; then
    native=$($CC -march=native -fsyntax-only -xc /dev/null 2>/dev/null && echo -march=native)
    for h in $headers; do
        for level in -O0 -O2 "-O3 $native"; do
            job "$h.h, gcc $level" "$(c_of gcc) -std=c99 $level $strict_c -I. -c -o $out/$h.gcc${level%% *}.o $out/$h.implement.c"
        done
        job "$h.h, gcc C++ -O2" "$(cxx_of gcc) -std=c++11 -O2 $strict -I. -c -o $out/$h.gcc.cxx.o -xc++ $out/$h.implement.c"
        [ -z "$CLANG" ] || job "$h.h, clang -O3" "$(c_of clang) -std=c99 -O3 $strict_c -I. -c -o $out/$h.clang.o $out/$h.implement.c"
    done
fi

# ---- every order of every two headers; one declared, the other implemented; both implemented ----
for a in ${full:+$headers}; do
    for b in $headers; do
        [ $a = $b ] && continue
        printf '#include "%s.h"\n#define %s\n#include "%s.h"\n#include "%s.h"\n' $a "$(switch_of $b)" $b $a > "$out/$a-$b.c"
        printf '#define %s\n#include "%s.h"\n#define %s\n#include "%s.h"\n' "$(switch_of $a)" $a "$(switch_of $b)" $b > "$out/$a+$b.c"
        job "$a.h declared, then $b.h implemented" "$(c_of gcc) -std=c99 $strict_c -I. -fsyntax-only $out/$a-$b.c"
        job "$a.h implemented, then $b.h implemented" "$(c_of gcc) -std=c99 $strict_c -I. -fsyntax-only $out/$a+$b.c"
        job "$a.h and $b.h implemented, C++" "$(cxx_of gcc) -std=c++11 $strict -I. -fsyntax-only -xc++ $out/$a+$b.c"
    done
done

# ---- -std=c99 where a system header came first and hid POSIX ----
firsts="stdio.h" features="_POSIX_C_SOURCE=200809L _XOPEN_SOURCE=700" feature_standards=c99
[ -z "$full" ] || { firsts="stdio.h stdlib.h string.h sys/types.h unistd.h pthread.h time.h" feature_standards="c99 gnu17"
                    features="_POSIX_C_SOURCE=199309L _POSIX_C_SOURCE=200112L _POSIX_C_SOURCE=200809L _XOPEN_SOURCE=500 _XOPEN_SOURCE=700 _DEFAULT_SOURCE _GNU_SOURCE _FILE_OFFSET_BITS=64"; }
for first in $firsts; do
    { echo "#include <$first>"; cat "$out/all.implement.c"; } > "$out/after_$(basename $first .h).c"
    job "strict C99 after <$first>" "$(c_of gcc) -std=c99 $strict_c -I. -fsyntax-only $out/after_$(basename $first .h).c"
done
for feature in $features; do
    for std in $feature_standards; do job "$std with -D$feature" "$(c_of gcc) -std=$std -D$feature $strict_c -I. -fsyntax-only $out/after_stdio.c"; done
done

# ---- the switches, alone and all together ----
switches="KV_NO_THREADS KV_NO_STDIO KV_NO_MALLOC KV_NO_FILES KV_NO_LZ4 KV_NO_ZSTD KV_STATIC NDEBUG"
bare="-DKV_NO_THREADS -DKV_NO_STDIO -DKV_NO_MALLOC -DKV_NO_FILES"
for h in all ${full:+$headers}; do
    for s in $switches; do
        job "$h.h with $s" "$(c_of gcc) -std=c99 $strict_c -I. -D$s -fsyntax-only $out/$h.implement.c"
        if [ -n "$full" ]; then
            job "$h.h with $s, C++" "$(cxx_of gcc) -std=c++11 $strict -I. -D$s -fsyntax-only -xc++ $out/$h.implement.c"
            [ -z "$CLANG" ] || job "$h.h with $s, clang" "$(c_of clang) -std=c99 $strict_c -I. -D$s -fsyntax-only $out/$h.implement.c"
        fi
    done
    job "$h.h bare" "$(c_of gcc) -std=c99 $strict_c -I. $bare -fsyntax-only $out/$h.implement.c"
    job "$h.h bare, C++" "$(cxx_of gcc) -std=c++11 $strict -I. $bare -fsyntax-only -xc++ $out/$h.implement.c"
done

# ---- what can be left out of one module: each by itself, all of it, and with all that is left out of kv.h ----
mem_less="-DKV_MEM_NO_SAVE -DKV_MEM_NO_WATCH -DKV_MEM_NO_TTL -DKV_MEM_NO_LIMIT"
for s in $mem_less "$mem_less" "-Os $mem_less $bare" -Os; do
    job "kv_mem.h with $s" "$(c_of gcc) -std=c99 $strict_c -I. $s -fsyntax-only $out/kv_mem.implement.c"
    job "kv_mem.h with $s, C++" "$(cxx_of gcc) -std=c++11 $strict -I. $s -fsyntax-only -xc++ $out/kv_mem.implement.c"
    [ -z "$CLANG" ] || job "kv_mem.h with $s, clang" "$(c_of clang) -std=c99 $strict_c -I. $s -fsyntax-only $out/kv_mem.implement.c"
done

lsm_less="-DKV_LSM_NO_REPAIR -DKV_LSM_NO_INGEST -DKV_LSM_NO_CHECKPOINT -DKV_LSM_NO_RESUME -DKV_LSM_NO_STATS -DKV_LSM_NO_CACHE -DKV_LSM_NO_FILTER -DKV_LSM_NO_TEXT"
for s in $lsm_less "$lsm_less" "-Os $lsm_less -DKV_NO_LZ4 -DKV_NO_ZSTD $bare" "-Os $bare" -Os; do
    job "kv_lsm.h with $s" "$(c_of gcc) -std=c99 $strict_c -I. $s -fsyntax-only $out/kv_lsm.implement.c"
    job "kv_lsm.h with $s, C++" "$(cxx_of gcc) -std=c++11 $strict -I. $s -fsyntax-only -xc++ $out/kv_lsm.implement.c"
    [ -z "$CLANG" ] || job "kv_lsm.h with $s, clang" "$(c_of clang) -std=c99 $strict_c -I. $s -fsyntax-only $out/kv_lsm.implement.c"
done

# ---- every SIMD level compiles, also those that this processor does not run ----
case $(uname -m) in x86_64|amd64) simd="SCALAR: SSE2: AVX2:-mavx2 AVX512:-mavx512f,-mavx512bw,-mavx512dq,-mavx512vl AVX512:-mavx512f,-mavx512bw,-mavx512dq,-mavx512vl,-mavx512vbmi,-mavx512vbmi2,-mgfni";; *) simd="SCALAR:";; esac
for level in $simd; do
    name=${level%%:*} options=$(echo "${level#*:}" | tr , ' ')
    for h in all ${full:+$headers}; do
        [ $h = kv ] && continue
        job "$h.h, $name" "$(c_of gcc) -std=c99 -O1 $strict_c -I. -DKV_SIMD=KV_SIMD_$name $options ${full:+-c -o $out/$h.$name.o} ${quick:+-fsyntax-only} $out/$h.implement.c"
        [ -z "$full" ] || [ -z "$CLANG" ] || job "$h.h, $name, clang" "$(c_of clang) -std=c99 $strict_c -I. -DKV_SIMD=KV_SIMD_$name $options -fsyntax-only $out/$h.implement.c"
    done
done

# ---- nothing stays behind: no macro of ours but KV_ and KVI_, no warning switched off ----
sort_macros() { awk '{ sub(/\(.*/, "", $2); print $2 }' | sort -u; }
export -f sort_macros
for h in $headers; do
    # what the headers themselves include, by <>, is the baseline
    cat kv.h kv_simd.h $([ -e $h.h ] && echo $h.h) | sed -n '/KV_CORE_IMPLEMENTED/q;s/^# *include \(<.*>\).*/#include \1/p' | sort -u > "$out/$h.base.c"
    job "$h.h declares no macro but KV_ and KVI_" "$(c_of gcc) -std=gnu99 -dM -E -I. $out/$h.base.c | sort_macros > $out/$h.before; $(c_of gcc) -std=gnu99 -dM -E -I. $out/$h.declare.c | sort_macros > $out/$h.after; comm -13 $out/$h.before $out/$h.after | grep -vE '^(KV_|KVI_)'; true"
    { echo '#define XXH_INLINE_ALL'; cat kv*.h | sed -n 's/^ *# *include \(<[a-z0-9_/]*\.h>\).*/\1/p' | sort -u | while read -r i; do printf '#if __has_include(%s)\n#include %s\n#endif\n' "$i" "$i"; done; } > "$out/$h.base2.c"
    job "$h.h implemented leaves no macro but KV_ and KVI_" "$(c_of gcc) -std=gnu99 -dM -E -I. $out/$h.base2.c | sort_macros > $out/$h.before2; $(c_of gcc) -std=gnu99 -dM -E -I. $out/$h.implement.c | sort_macros > $out/$h.after2; comm -13 $out/$h.before2 $out/$h.after2 | grep -vE '^(KV_|KVI_|ZSTD_|ZSTDLIB_|ZDICT|LZ4)'; grep -xE 'XXH_INLINE_ALL|(ZSTD|ZDICT|LZ4F?)_STATIC_LINKING_ONLY' $out/$h.after2; true"
done
{   # every one of these must still be warned of behind our headers
    cat "$out/all.implement.c"
    echo 'unsigned char kv_u1(int a); unsigned char kv_u1(int a) { return a; }                     /* conversion */'
    echo 'unsigned kv_u2(int a); unsigned kv_u2(int a) { return a; }                               /* sign-conversion */'
    echo 'int kv_u3(int a); int kv_u3(int a) { { int a = 1; (void)a; } return a; }                 /* shadow */'
    echo 'void kv_u4(void); void kv_u4(void) { int a; }                                            /* unused-variable */'
    echo 'static int kv_u5(void) { return 1; }                                                     /* unused-function */'
    echo 'int kv_u6(int a); int kv_u6(int a) { return 1; }                                         /* unused-parameter */'
    echo 'void kv_u7(void); void kv_u7(void) { };                                                  /* pedantic */'
    echo 'int kv_u8(); int kv_u8() { return 1; }                                                   /* strict-prototypes */'
    printf '#if KV_NOBODY_DEFINES_THIS\n#endif\n'
} > "$out/bad.c"
for compiler in $compilers; do
    names="sign-conversion shadow unused-variable unused-function unused-parameter strict-prototypes undef"
    [ $compiler = gcc ] && names="$names conversion pedantic" || names="$names implicit-int-conversion extra-semi"
    job "$compiler still warns behind our headers" "$(c_of $compiler) -std=c99 ${strict_c%%-Werror*} -Wstrict-prototypes -I. -c -o /dev/null $out/bad.c 2> $out/bad.$compiler
        for w in $names; do grep -q -F -e '[-W'\$w] $out/bad.$compiler || echo no warning of \$w; done"
done
run_jobs
