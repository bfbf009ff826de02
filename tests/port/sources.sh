#!/bin/sh
# Put the sources and headers that cross compilers need into $BUILD/port: xxhash.h as it is installed
# here, and the sources of lz4 and zstd from Debian's source packages (2 MB), because there are no
# libraries of them for these targets. Where they cannot be had, the other platforms are tested with
# the codec `none` alone, and this says so.
build=${BUILD:-build}/port
mkdir -p "$build/include" "$build/src"

[ -e "$build/include/xxhash.h" ] || cp "$(${CC:-gcc} -E -include xxhash.h -x c /dev/null 2>/dev/null | sed -n 's/^# [0-9]* "\(.*xxhash\.h\)".*/\1/p' | head -1)" "$build/include/xxhash.h" ||
    { echo "xxhash.h is not installed"; exit 1; }
xxh3=$(${CC:-gcc} -E -include xxh3.h -x c /dev/null 2>/dev/null | sed -n 's/^# [0-9]* "\(.*xxh3\.h\)".*/\1/p' | head -1)
[ -z "$xxh3" ] || cp -n "$xxh3" "$build/include/xxh3.h"

fetch() {
    command -v apt-get >/dev/null && command -v xz >/dev/null || return 1
    apt=$(cd "$build" && mkdir -p apt/lists/partial apt/down && cd apt && pwd)
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    case $(. /etc/os-release && echo "$ID") in
    debian) echo "deb-src http://deb.debian.org/debian $release main" > "$apt/sources.list";;
    ubuntu) echo "deb-src http://archive.ubuntu.com/ubuntu $release main" > "$apt/sources.list";;
    *)      return 1;;
    esac
    options="-qq -o Dir::Etc::SourceList=$apt/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$apt/lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root"
    apt-get $options update >/dev/null 2>&1 && (cd "$apt/down" && apt-get $options source --download-only lz4 libzstd >/dev/null 2>&1) || return 1
    for name in lz4 libzstd; do
        mkdir -p "$build/src/$name" && tar -C "$build/src/$name" --strip-components=1 -xf "$(ls "$apt/down/$name"_*.orig.tar.* | grep -v asc$)" || return 1
    done
    cp "$build/src/lz4/lib/lz4.h" "$build/src/lz4/lib/lz4hc.h" "$build/src/libzstd/lib/zstd.h" "$build/src/libzstd/lib/zdict.h" "$build/src/libzstd/lib/zstd_errors.h" "$build/include/"
}

if [ ! -e "$build/include/zdict.h" ]; then
    rm -rf "$build/src" "$build/apt"; mkdir -p "$build/src"
    fetch || { rm -rf "$build/src" "$build/include/zdict.h"; mkdir -p "$build/src"; echo "SKIP lz4 and zstd on other platforms: their source packages cannot be had"; }
fi
exit 0
