#!/bin/bash
# Goal: the other ways to get the headers work: one file a header, CMake's find_package,
# add_subdirectory and FetchContent, Meson.
# Method: a small project for each, built and run outside of this directory; what is not installed is
# skipped by name.
. tests/compile/jobs.sh
root=$PWD here=$PWD/$out passed=0 failed=0
check() { if ( eval "$2" ) > "$out/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1"; tail -12 "$out/log"; fi; }
program='#include <kv_mem.h>
int main(void)
{
    kv_mem *m;
    if (kv_mem_open(NULL, &m) < 0 || kv_mem_set(m, KV_STR("a"), KV_STR("1")) < 0) return 1;
    kv_mem_close(m);
    return 0;
}'

# ---- one file a header: alone, and two of them in one program ----
sh tests/single.sh "$out/dist" $(for h in $headers; do echo $h.h; done)
for h in $headers; do
    mkdir -p "$out/alone/$h"; cp "$out/dist/$h.h" "$out/alone/$h/"
    printf '#define %s\n#include "%s.h"\nint main(void) { return kv_status_text(KV_OK) == NULL; }\n' "$(switch_of $h)" $h > "$out/alone/$h/main.c"
    check "dist/$h.h needs nothing of ours" "! grep -n '^#include \"' $out/dist/$h.h"
    check "dist/$h.h alone" "cd $out/alone/$h && $CC $CPPFLAGS -std=c99 -O0 -o main main.c $LDFLAGS $LIBS && ./main"
done
printf '#define KV_IMPLEMENTATION\n#include "kv_art.h"\n#include "kv_mem.h"\n%s\n' "${program#*>}" > "$out/two.c"
check "two of them together" "$CC $CPPFLAGS -std=c99 -O0 -I$out/dist -o $out/two $out/two.c $LDFLAGS $LIBS && $out/two"

# ---- CMake ----
if command -v cmake >/dev/null; then
    mkdir -p "$out"/{found,below,fetched}
    for d in found below fetched; do printf '#define KV_MEM_IMPLEMENTATION\n%s\n' "$program" > "$out/$d/main.c"; done
    head='cmake_minimum_required(VERSION 3.14)\nproject(user C)\n' tail='add_executable(user main.c)\ntarget_link_libraries(user kv::mem)\n'
    printf "${head}find_package(kv 0.1 REQUIRED)\n$tail" > "$out/found/CMakeLists.txt"
    printf "${head}add_subdirectory($root kv)\n${tail}add_executable(user2 main.c)\ntarget_link_libraries(user2 kv::lsm)\n" > "$out/below/CMakeLists.txt"
    printf "${head}include(FetchContent)\nFetchContent_Declare(kv SOURCE_DIR $root)\nFetchContent_MakeAvailable(kv)\n$tail" > "$out/fetched/CMakeLists.txt"
    check "CMake installs" "cmake -S . -B $out/cmake -DCMAKE_INSTALL_PREFIX=$here/prefix && cmake --install $out/cmake"
    check "CMake: find_package" "cmake -S $out/found -B $out/found/b -DCMAKE_PREFIX_PATH=$here/prefix && cmake --build $out/found/b && $out/found/b/user"
    check "CMake: add_subdirectory, which installs nothing" "cmake -S $out/below -B $out/below/b -DCMAKE_INSTALL_PREFIX=$here/none && cmake --build $out/below/b && $out/below/b/user && cmake --install $out/below/b && [ ! -e $here/none/include ]"
    check "CMake: FetchContent" "cmake -S $out/fetched -B $out/fetched/b && cmake --build $out/fetched/b && $out/fetched/b/user"
else note_skip CMake "not installed"; fi

# ---- Meson ----
if command -v meson >/dev/null && command -v ninja >/dev/null; then
    mkdir -p "$out/meson/subprojects"
    ln -s "$root" "$out/meson/subprojects/kv"
    printf '#define KV_MEM_IMPLEMENTATION\n%s\n' "$program" > "$out/meson/main.c"
    printf "project('user', 'c')\nkv = dependency('kv', fallback: ['kv', 'kv_dep'])\nexecutable('user', 'main.c', dependencies: kv)\n" > "$out/meson/meson.build"
    check "Meson: a sub-project" "cd $out/meson && meson setup b && ninja -C b && b/user"
else note_skip Meson "not installed"; fi

if [ $skip_count != 0 ]; then echo "$passed passed, $failed failed, $skip_count skipped"; else echo "$passed passed, $failed failed"; fi
[ $failed = 0 ]
