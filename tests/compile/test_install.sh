#!/bin/bash
# Goal: what `make install` puts somewhere is all that a user needs, and `make uninstall` takes it away.
# Method: into a DESTDIR, programs built by pkg-config alone from a directory that has none of our files.
. tests/compile/jobs.sh
destination=$PWD/$out/root prefix=/opt/kv passed=0 failed=0
check() { if ( eval "$2" ) > "$out/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1"; head -10 "$out/log"; fi; }

check "make install" "make install DESTDIR=$destination PREFIX=$prefix"
for h in $headers; do check "$h.h is installed and readable" "cmp $h.h $destination$prefix/include/$h.h && [ \$(stat -c %a $destination$prefix/include/$h.h 2>/dev/null || echo 644) = 644 ]"; done
check "no libdir in the .pc files" "! grep -i libdir $destination$prefix/share/pkgconfig/*.pc"
if command -v pkg-config >/dev/null; then
    export PKG_CONFIG_PATH=$destination$prefix/share/pkgconfig PKG_CONFIG_SYSROOT_DIR=
    define="--define-variable=prefix=$destination$prefix"
    version=$(sed -n 's/^#define KV_VERSION_STRING "\(.*\)"/\1/p' kv.h)
    check "the version is that of kv.h" "[ \"\$(pkg-config --modversion kv)\" = $version ] && [ \"\$(pkg-config --modversion kv-compress)\" = $version ]"
    printf '#define KV_SIMD_IMPLEMENTATION\n#include <kv_simd.h>\nint main(void) { return kv_hash(KV_STR("a"), 0) == 0; }\n' > "$out/one.c"
    check "a program of kv alone" "cd $out && $CC -o one one.c \$(pkg-config $define --cflags --libs kv) -lpthread && ./one"
    check "kv alone links nothing" "[ -z \"\$(pkg-config --libs kv)\" ]"
    if [ -e kv_compress.h ]; then
        printf '#define KV_COMPRESS_IMPLEMENTATION\n#include <kv_compress.h>\nint main(void) { kv_compressor *c; if (kv_compressor_open(NULL, &c) < 0) return 1; kv_compressor_close(c); return 0; }\n' > "$out/two.c"
        check "a program of kv-compress" "cd $out && $CC -o two two.c \$(pkg-config $define --cflags --libs kv-compress) -lpthread && ./two"
    fi
else note_skip pkg-config "not installed"; fi
check "make uninstall" "make uninstall DESTDIR=$destination PREFIX=$prefix && [ -z \"\$(find $destination -type f)\" ]"
if [ $skip_count != 0 ]; then echo "$passed passed, $failed failed, $skip_count skipped"; else echo "$passed passed, $failed failed"; fi
[ $failed = 0 ]
