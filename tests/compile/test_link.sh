#!/bin/bash
# Goal: implementation files link together in every combination; only kv_ symbols leave an object;
# what a switch turns off is not referenced.
# Method: two headers in two files of one program (C and C, C and C++, static and shared), run; `nm`.
. tests/compile/jobs.sh
modules=; for h in kv_mem kv_art kv_fst kv_compress kv_lsm kv_simd kv; do [ -e $h.h ] && modules="$modules $h"; done

# ---- objects, once each ----
for h in $modules; do
    printf '#define %s\n#include "%s.h"\nconst char *use_%s(void);\nconst char *use_%s(void) { return kv_status_text(KV_OK); }\n' "$(switch_of $h)" $h $h $h > "$out/$h.c"
    sed 's/^const char/extern "C" const char/;s/use_/use_cxx_/g' "$out/$h.c" > "$out/$h.cpp"
    sed 's/use_/use_static_/g' "$out/$h.c" > "$out/$h.static.c"
done
{ echo '#define KV_IMPLEMENTATION'; for h in $modules; do echo "#include \"$h.h\""; done; } > "$out/all.c"
variants=$modules; [ -n "$full" ] || variants="kv_mem kv_lsm"      # of which there is a static and a C++ object too
make_objects() {
    $CC $CPPFLAGS -std=c99 -O0 -I. -c -o "$out/$1.o" "$out/$1.c"
    case " $variants " in *" $1 "*) ;; *) return;; esac
    $CC $CPPFLAGS -std=c99 -O0 -I. -DKV_STATIC -c -o "$out/$1.static.o" "$out/$1.static.c"
    $CXX $CPPFLAGS -std=c++11 -O0 -I. -c -o "$out/$1.cxx.o" "$out/$1.cpp"
}
export -f make_objects; export CC CXX CPPFLAGS out variants
echo "$modules" | xargs -n 1 | xargs -P "${MATRIX_JOBS:-2}" -I{} bash -c 'make_objects {}' 2>&1 | head -5
link() {        # name, object and function pairs...
    local name=$1 objects= main; shift
    main=$out/main_$job_count.c
    { while [ $# -gt 0 ]; do echo "const char *$2(void);"; objects="$objects $1"; echo "$2" >> "$main.list"; shift 2; done
      echo 'int main(void) { return'; sed 's/.*/ !*&() ||/' "$main.list"; echo ' 0; }'; } > "$main"
    job "$name" "$CC -c -o $main.o $main && $CXX -o $main.out $main.o $objects $LDFLAGS $LIBS && $main.out"
}
# what stands in one object by its own switch cannot stand in another: kv_lsm brings kv_compress along
# weakly, so asking for both by name in two files is fine as well
exported='nm -g --defined-only "$1" | awk "{print \$NF}"'
for a in $modules; do
    for b in $modules; do
        [ $a = $b ] && continue
        [ -z "$full" ] && [[ $a > $b ]] && continue
        link "$a and $b in two files" "$out/$a.o" use_$a "$out/$b.o" use_$b
        [ -z "$full" ] || link "$a in C and $b in C++" "$out/$a.o" use_$a "$out/$b.cxx.o" use_cxx_$b
    done
done
for a in $variants; do
    link "$a in C++, the program in C" "$out/$a.cxx.o" use_cxx_$a
    link "$a shared beside $a static" "$out/$a.o" use_$a "$out/$a.static.o" use_static_$a
    job "$a.h static exports nothing" "set -- $out/$a.static.o; $exported | grep -vE '^use_static_'; true"
done
link "all static copies" $(for h in $variants; do echo "$out/$h.static.o" use_static_$h; done)
link "all shared" $(for h in $modules; do echo "$out/$h.o" use_$h; done)

# ---- what the objects say ----
for h in $modules; do
    job "$h.h exports only kv_"           "set -- $out/$h.o; $exported | grep -vE '^(kv_|use_)'; true"
    job "$h.h declared makes no symbol"   "printf '#include \"$h.h\"\n' > $out/$h.declared.c; $CC $CPPFLAGS -std=c99 -I. -c -o $out/$h.declared.o $out/$h.declared.c && nm $out/$h.declared.o"
done

allocation='malloc|calloc|realloc|free|posix_memalign|aligned_alloc|memalign|strdup'
stdio='v?[fsd]?n?printf|(__)?v?[fs]?n?printf_chk|puts|fputs|putc|putchar|fputc|fwrite|fread|fopen|fdopen|fclose|fflush|fseek|ftell|perror|std(in|out|err)|__assert(_fail|_rtn)?|abort'
threads='pthread_.*|sched_.*|__atomic_.*|__sync_.*|nanosleep|sysconf'
files='open|open64|openat|close|read|write|pread|pread64|pwrite|pwrite64|lseek|lseek64|ftruncate|ftruncate64|fsync|fdatasync|fcntl|fcntl64|flock|rename|unlink|remove|link|mkdir|rmdir|opendir|readdir|readdir64|closedir|stat|fstat|fstat64'
maps='mmap|mmap64|munmap'      # also a source of memory: gone with the rest, not with files alone
off() {         # header, options, pattern, levels of optimisation
    local h=$1 name level
    for level in ${4:--O0}; do
        name=$out/$h.off$job_count$level.o
        job "$h.h with $2 ($level) references none of it" "$CC $CPPFLAGS -std=c99 $level -I. $2 -c -o $name $out/$h.c && nm -u $name | awk '{print \$NF}' | sed 's/@.*//' | grep -xE '$3'; [ -e $name ]"
    done
}
everything="-DKV_NO_THREADS -DKV_NO_STDIO -DKV_NO_MALLOC -DKV_NO_FILES -DKV_NO_LZ4 -DKV_NO_ZSTD"
for h in all ${full:+$modules}; do
    off $h -DKV_NO_MALLOC  "$allocation"
    off $h -DKV_NO_STDIO   "$stdio"
    off $h -DKV_NO_THREADS "$threads"
    off $h -DKV_NO_FILES   "$files"
    off $h -DKV_NO_LZ4     'LZ4.*'
    off $h -DKV_NO_ZSTD    '(ZSTD|ZDICT|HUF|FSE).*'
done
for h in $modules; do off $h "$everything" "$allocation|$stdio|$threads|$files|$maps|LZ4.*|(ZSTD|ZDICT|HUF|FSE).*" "-O0 ${full:+-O2}"; done
run_jobs
