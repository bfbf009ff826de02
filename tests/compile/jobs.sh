# jobs.sh - read by the scripts of this directory: many small compiler runs, a few at a time
#
#     job NAME 'shell command'        must succeed, and say nothing on stderr
#     job_fails NAME 'shell command'  must not succeed
#     note_skip NAME WHY              was not run
#     run_jobs                        runs them, prints failures and `N passed, N failed`, and exits
#
# $out is an empty directory for the script. KV_MATRIX=full asks for every combination; without it a
# script keeps to those that most often find something. KV_MATRIX_ONLY, KV_MATRIX_NOT: regular
# expressions, for those jobs alone whose names match, and match not.
CC=${CC:-gcc} CXX=${CXX:-g++} BUILD=${BUILD:-build}
LIBS=${LIBS:--Wl,--as-needed -llz4 -lzstd -lpthread -lm}
CLANG=${CLANG-$(command -v clang || command -v clang-14)}
CLANGXX=${CLANG:+$(echo "$CLANG" | sed 's/clang\(-[0-9]*\)\{0,1\}$/clang++\1/')}
full= quick=yes; [ "$KV_MATRIX" = full ] && full=yes quick=
strict="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wundef -Werror"
strict_c="$strict -Wstrict-prototypes"
out=$BUILD/compile/$(basename "${KV_JOBS:-$0}" .sh)
rm -rf "$out"; mkdir -p "$out/jobs"
headers=; for h in kv kv_simd kv_mem kv_art kv_fst kv_compress kv_lsm; do [ -e $h.h ] && headers="$headers $h"; done
switch_of() { case $1 in kv) echo KV_CORE_IMPLEMENTATION;; *) echo "$(echo "$1" | tr a-z A-Z)_IMPLEMENTATION";; esac; }

job_count=0 skip_count=0
wanted_job() { [[ -z $KV_MATRIX_ONLY || $1 =~ $KV_MATRIX_ONLY ]] && [[ -z $KV_MATRIX_NOT || ! $1 =~ $KV_MATRIX_NOT ]]; }
job()       { wanted_job "$1" || return 0; job_count=$((job_count + 1)); printf '%s\n%s\n%s\n' "$1" 0 "$2" > "$out/jobs/$job_count"; }
job_fails() { wanted_job "$1" || return 0; job_count=$((job_count + 1)); printf '%s\n%s\n%s\n' "$1" 1 "$2" > "$out/jobs/$job_count"; }
note_skip() { skip_count=$((skip_count + 1)); echo "SKIP $1: $2"; }

run_one_job() {
    { read -r name; read -r wanted; command=$(cat); } < "$1"
    bash -c "$command" > "$1.log" 2>&1; status=$?
    if [ "$wanted" = 0 ]; then [ $status = 0 ] && [ ! -s "$1.log" ] && { echo ok > "$1.result"; return; }
    else [ $status != 0 ] && { echo ok > "$1.result"; return; }; fi
    { echo "FAIL $name"; echo "    $command" | cut -c1-400 | head -3; [ "$wanted" = 0 ] || echo "    it should have failed"; head -12 "$1.log" | sed 's/^/    /'; } > "$1.result"
}
run_jobs() {
    export -f run_one_job
    seq 1 $job_count | sed "s|^|$out/jobs/|" | xargs -P "${MATRIX_JOBS:-2}" -n 8 bash -c 'for j; do run_one_job "$j"; done' bash
    local failed=0 passed=0 i
    for ((i = 1; i <= job_count; i++)); do
        if [ "$(cat "$out/jobs/$i.result" 2>/dev/null)" = ok ]; then passed=$((passed + 1))
        else failed=$((failed + 1)); [ $failed -le 15 ] && cat "$out/jobs/$i.result"; fi
    done
    if [ $skip_count != 0 ]; then echo "$passed passed, $failed failed, $skip_count skipped"; else echo "$passed passed, $failed failed"; fi
    [ $failed = 0 ]; exit
}
