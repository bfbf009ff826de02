#!/bin/bash
# Goal: the ways to use the headers from a build system work, and the short metadata files are valid and
# of this version. Method: a small program built by CMake (find_package, add_subdirectory, FetchContent)
# and by Meson; the others parsed, their fields and file names checked.
cd "$(dirname "$0")/../.." || exit 1
top=$PWD work=$PWD/${BUILD:-build}/port/packages passed=0 failed=0 skipped=0
rm -rf "$work"; mkdir -p "$work"
check() { if ( eval "$2" ) > "$work/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1"; tail -8 "$work/log"; fi; }
skip()  { skipped=$((skipped + 1)); echo "SKIP $1"; }
version=$(sed -n 's/^#define KV_VERSION_STRING "\(.*\)"/\1/p' kv.h)

mkdir -p "$work/app"
cat > "$work/app/app.c" <<'C'
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
if command -v cmake >/dev/null; then
    app() { mkdir -p "$work/$1"; { echo "cmake_minimum_required(VERSION 3.16)"; echo "project(app C)"; cat; echo "add_executable(app $work/app/app.c)"; echo "target_link_libraries(app PRIVATE kv::art kv::compress)"; } > "$work/$1/CMakeLists.txt"; }
    build="cmake --build"
    check "cmake: install" "cmake -S $top -B $work/b0 -DCMAKE_INSTALL_PREFIX=$work/root && cmake --install $work/b0 && [ -e $work/root/include/kv_lsm.h ] && ! grep -ri libdir $work/root/share"
    echo "find_package(kv $version REQUIRED)" | app find
    check "cmake: find_package" "cmake -S $work/find -B $work/b1 -DCMAKE_PREFIX_PATH=$work/root && $build $work/b1 && $work/b1/app"
    echo "find_package(kv 9.0 REQUIRED)" | app newer
    check "cmake: a newer version is not found" "! cmake -S $work/newer -B $work/b2 -DCMAKE_PREFIX_PATH=$work/root"
    echo "add_subdirectory($top kv)" | app sub
    check "cmake: add_subdirectory, which installs nothing" "cmake -S $work/sub -B $work/b3 -DCMAKE_INSTALL_PREFIX=$work/root3 && $build $work/b3 && $work/b3/app && cmake --install $work/b3 && [ ! -e $work/root3/include ]"
    printf 'include(FetchContent)\nFetchContent_Declare(kv SOURCE_DIR %s)\nFetchContent_MakeAvailable(kv)\n' "$top" | app fetch
    check "cmake: FetchContent" "cmake -S $work/fetch -B $work/b4 && $build $work/b4 && $work/b4/app"
else skip "cmake is not installed"; fi

if command -v meson >/dev/null && command -v ninja >/dev/null; then
    mkdir -p "$work/meson/subprojects/kv"
    cp "$top"/kv*.h "$top/meson.build" "$work/meson/subprojects/kv/"
    cp "$work/app/app.c" "$work/meson/"
    printf "project('app', 'c')\nexecutable('app', 'app.c', dependencies: [dependency('kv', fallback: 'kv'), dependency('kv-compress', fallback: 'kv')])\n" > "$work/meson/meson.build"
    check "meson: a sub-project, which installs nothing" "cd $work/meson && meson setup b --prefix=$work/root5 && ninja -C b && ./b/app && meson install -C b && [ ! -e $work/root5/include ]"
    check "meson: install" "mkdir -p $work/m6 && cp $top/kv*.h $top/meson.build $work/m6/ && cd $work/m6 && meson setup b --prefix=$work/root6 && meson install -C b && [ -e $work/root6/include/kv_lsm.h ]"
else skip "meson or ninja is not installed"; fi

# ---- short files ----
if command -v python3 >/dev/null; then
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
    if python3 -c 'import yaml' 2>/dev/null; then
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
else skip "python3 is not installed: metadata files are not parsed"; fi
check "kv.wrap: version" "grep -qx 'revision = v$version' packaging/kv.wrap"
if command -v cmake >/dev/null; then
    # the commands of vcpkg are stubs here; the file itself must run
    printf 'function(vcpkg_cmake_configure)\nendfunction()\nfunction(vcpkg_cmake_install)\nendfunction()\nfunction(vcpkg_cmake_config_fixup)\nendfunction()\nfunction(vcpkg_install_copyright)\nendfunction()\nset(CURRENT_PACKAGES_DIR %s/none)\ninclude(%s/packaging/vcpkg/portfile.cmake)\nif(NOT EXISTS ${SOURCE_PATH}/kv.h)\nmessage(FATAL_ERROR "no kv.h in ${SOURCE_PATH}")\nendif()\n' "$work" "$top" > "$work/port.cmake"
    check "portfile.cmake runs and finds the sources" "cmake -P $work/port.cmake"
    printf 'cmake_minimum_required(VERSION 3.16)\nset(ESP_PLATFORM 1)\nfunction(idf_component_register)\nfile(WRITE %s/idf "${ARGN}")\nendfunction()\nproject(idf NONE)\nadd_subdirectory(%s kv)\n' "$work" "$top" > "$work/app/CMakeLists.txt"
    check "an ESP-IDF component registers its directory" "cmake -S $work/app -B $work/b7 && grep -q INCLUDE_DIRS $work/idf"
fi
if [ $skipped != 0 ]; then echo "$passed passed, $failed failed, $skipped skipped"; else echo "$passed passed, $failed failed"; fi
[ $failed = 0 ]
