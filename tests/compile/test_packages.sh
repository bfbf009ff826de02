#!/bin/bash
# Goal: every way to get the headers works: one file a header, CMake's find_package, add_subdirectory and
# FetchContent, Meson; and the short metadata files of others are valid and of this version.
# Method: a small project for each, built and run outside of this directory; the metadata parsed, their
# fields and file names checked. What is not installed is skipped by name.
. tests/compile/jobs.sh
top=$PWD work=$PWD/$out passed=0 failed=0
check() { if ( eval "$2" ) > "$out/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1"; tail -12 "$out/log"; fi; }
has() { command -v "$1" >/dev/null; }
version=$(sed -n 's/^#define KV_VERSION_STRING "\(.*\)"/\1/p' kv.h)

# ---- one file a header: alone, and two of them in one program ----
check "make single" "make --no-print-directory single SINGLE=$out/dist"
for h in $headers; do
    mkdir -p "$out/alone/$h"; cp "$out/dist/$h.h" "$out/alone/$h/"
    printf '#define %s\n#include "%s.h"\nint main(void) { return kv_status_text(KV_OK) == NULL; }\n' "$(switch_of $h)" $h > "$out/alone/$h/main.c"
    check "dist/$h.h needs nothing of ours" "! grep -n '^#include \"' $out/dist/$h.h"
    check "dist/$h.h alone" "cd $out/alone/$h && $CC $CPPFLAGS -std=c99 -O0 -o main main.c $LDFLAGS $LIBS && ./main"
done
printf '#define KV_IMPLEMENTATION\n#include "kv_art.h"\n#include "kv_mem.h"\n#include "kv_lsm.h"\nint main(void) { kv_mem *m; if (kv_mem_open(NULL, &m) < 0) return 1; kv_mem_close(m); return 0; }\n' > "$out/three.c"
check "three of them together" "$CC $CPPFLAGS -std=c99 -O0 -I$out/dist -o $out/three $out/three.c $LDFLAGS $LIBS && $out/three"

# ---- a program of two modules, one of which needs libraries ----
mkdir -p "$out/app"
cat > "$out/app/app.c" <<'C'
#define KV_ART_IMPLEMENTATION
#include <kv_art.h>
#define KV_COMPRESS_IMPLEMENTATION
#include <kv_compress.h>
int main(void)
{
    kv_art        *a;
    kv_compressor *c;
    if (kv_art_open(NULL, &a) < 0 || kv_compressor_open(NULL, &c) < 0) return 1;
    if (kv_art_set_u64(a, KV_STR("a"), 1) < 0) return 1;
    kv_compressor_close(c);
    kv_art_close(a);
    return 0;
}
C
if has cmake; then
    app() { mkdir -p "$out/$1"; { echo "cmake_minimum_required(VERSION 3.16)"; echo "project(app C)"; cat; echo "add_executable(app $work/app/app.c)"; echo "target_link_libraries(app PRIVATE kv::art kv::compress)"; } > "$out/$1/CMakeLists.txt"; }
    build() { cmake -S "$work/$1" -B "$work/$1/b" "${@:2}" && cmake --build "$work/$1/b" && "$work/$1/b/app"; }
    check "cmake: install" "cmake -S $top -B $work/b -DCMAKE_INSTALL_PREFIX=$work/root && cmake --install $work/b && [ -e $work/root/include/kv_lsm.h ] && ! grep -ri libdir $work/root/share"
    echo "find_package(kv $version REQUIRED)" | app find
    check "cmake: find_package" "build find -DCMAKE_PREFIX_PATH=$work/root"
    echo "find_package(kv 9.0 REQUIRED)" | app newer
    check "cmake: a newer version is not found" "! build newer -DCMAKE_PREFIX_PATH=$work/root"
    echo "add_subdirectory($top kv)" | app below
    check "cmake: add_subdirectory, which installs nothing" "build below -DCMAKE_INSTALL_PREFIX=$work/none && cmake --install $work/below/b && [ ! -e $work/none/include ]"
    printf 'include(FetchContent)\nFetchContent_Declare(kv SOURCE_DIR %s)\nFetchContent_MakeAvailable(kv)\n' "$top" | app fetch
    check "cmake: FetchContent" "build fetch"

    # the commands of vcpkg and ESP-IDF are stubs here; the files themselves must run
    { for f in vcpkg_cmake_configure vcpkg_cmake_install vcpkg_cmake_config_fixup vcpkg_install_copyright; do printf 'function(%s)\nendfunction()\n' $f; done
      printf 'set(CURRENT_PACKAGES_DIR %s/none)\ninclude(%s/packaging/vcpkg/portfile.cmake)\nif(NOT EXISTS ${SOURCE_PATH}/kv.h)\nmessage(FATAL_ERROR "no kv.h in ${SOURCE_PATH}")\nendif()\n' "$work" "$top"; } > "$out/port.cmake"
    check "portfile.cmake runs and finds the sources" "cmake -P $out/port.cmake"
    mkdir -p "$out/idf"
    printf 'cmake_minimum_required(VERSION 3.16)\nset(ESP_PLATFORM 1)\nfunction(idf_component_register)\nfile(WRITE %s/idf/said "${ARGN}")\nendfunction()\nproject(idf NONE)\nadd_subdirectory(%s kv)\n' "$work" "$top" > "$out/idf/CMakeLists.txt"
    check "an ESP-IDF component registers its directory" "cmake -S $out/idf -B $out/idf/b && grep -q INCLUDE_DIRS $out/idf/said"
else note_skip CMake "not installed"; fi

if has meson && has ninja; then
    mkdir -p "$out/meson/subprojects/kv"
    cp kv*.h meson.build "$out/meson/subprojects/kv/"
    cp "$out/app/app.c" "$out/meson/"
    printf "project('app', 'c')\nexecutable('app', 'app.c', dependencies: [dependency('kv', fallback: 'kv'), dependency('kv-compress', fallback: 'kv')])\n" > "$out/meson/meson.build"
    check "meson: a sub-project, which installs nothing" "cd $out/meson && meson setup b --prefix=$work/none5 && ninja -C b && ./b/app && meson install -C b && [ ! -e $work/none5/include ]"
    check "meson: install" "cd $out/meson/subprojects/kv && meson setup b --prefix=$work/root6 && meson install -C b && [ -e $work/root6/include/kv_lsm.h ]"
else note_skip Meson "meson or ninja is not installed"; fi

# ---- short files ----
if has python3; then
    check "library.json: fields, version, headers" "python3 - <<P
import json, os
d = json.load(open('library.json'))
assert d['version'] == '$version' and d['name'] == 'kv' and d['license'] == 'MIT' and d['description']
assert all(os.path.exists(h) for h in d['headers']) and len(d['headers']) == 7
P"
    check "vcpkg.json: fields, version" "python3 - <<P
import json
d = json.load(open('packaging/vcpkg/vcpkg.json'))
assert d['version'] == '$version' and d['name'] == 'kv' and 'xxhash' in d['dependencies']
assert set(d['default-features']) <= set(d['features'])
P"
    check "conanfile.py: compiles, version" "python3 - <<P
import ast
tree = ast.parse(open('packaging/conan/conanfile.py').read())
fields = {t.id: n.value for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body if isinstance(n, ast.Assign) for t in n.targets}
assert fields['version'].value == '$version' and fields['package_type'].value == 'header-library'
P"
else note_skip python3 "not installed: metadata files are not parsed"; fi
if has python3 && python3 -c 'import yaml' 2>/dev/null; then
    check "idf_component.yml and zephyr/module.yml: fields, version, files" "python3 - <<P
import os, yaml
d = yaml.safe_load(open('idf_component.yml'))
assert d['version'] == '$version' and d['license'] == 'MIT' and 'idf' in d['dependencies']
z = yaml.safe_load(open('zephyr/module.yml'))
assert z['name'] == 'kv' and os.path.exists(z['build']['cmake'] + '/CMakeLists.txt') and os.path.exists(z['build']['kconfig'])
P"
else
    check "idf_component.yml and zephyr/module.yml: fields, version, files" "grep -qx 'version: \"$version\"' idf_component.yml && grep -qx 'license: MIT' idf_component.yml && grep -qx 'name: kv' zephyr/module.yml && [ -e zephyr/CMakeLists.txt ] && [ -e zephyr/Kconfig ]"
fi
check "kv.wrap: version" "grep -qx 'revision = v$version' packaging/kv.wrap"
if [ $skip_count != 0 ]; then echo "$passed passed, $failed failed, $skip_count skipped"; else echo "$passed passed, $failed failed"; fi
[ $failed = 0 ]
