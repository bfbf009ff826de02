#!/bin/sh
# Build one program for another platform, or compile one object.
#
#     build.sh TARGET SOURCE PROGRAM.sh    links SOURCE and writes a script that runs it there
#     build.sh TARGET SOURCE OBJECT.o      compiles it without the test kit's switches (OPTIONS: more of them)
#     build.sh TARGET codecs ARCHIVE.a     lz4 and zstd, from the sources that sources.sh has put there
#     build.sh TARGET there                is there a compiler and a machine? exits with 0, or says what is missing
#
# TARGET    m0 m3      Cortex-M0 and -M3, bare metal, picolibc, qemu's mps2-an385 (M0 code runs on that core
#                      with its trap for unaligned accesses set, since a real M0 would fault)
#           rv32       RV32IMAC, bare metal, picolibc, qemu's virt
#           wasm wasm-simd   WASI under node
#           windows    x86-64, mingw-w64, under wine
#           s390x mips 64 and 32 bits, big-endian;  armhf   32 bits; Linux, static, under qemu-user
#           native i386 musl  gcc, gcc -m32, musl-gcc; run here
#           cxx11 cxx20       the same sources as C++11 by g++, as C++20 by clang++; run here
target=$1 source=$2 out=$3
port=$(dirname "$0")
build=${BUILD:-build}/port
warnings="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes -Wundef"
bare="--specs=picolibc.specs -ffunction-sections -fdata-sections"
bare_link="-Wl,--gc-sections --crt0=hosted --oslib=semihost -Tpicolibc.ld -Wl,--defsym=__stack_size=${STACK:-0x10000}"
cortex_link="-Wl,--defsym=__flash=0x0 -Wl,--defsym=__flash_size=0x400000 -Wl,--defsym=__ram=0x21000000 -Wl,--defsym=__ram_size=0x1000000"
rv32_link="-Wl,--defsym=__flash=0x80000000 -Wl,--defsym=__flash_size=0x800000 -Wl,--defsym=__ram=0x80800000 -Wl,--defsym=__ram_size=0x2000000"
language=c standard=gnu11
ar=ar kit= link= libs= codecs=lz4,zstd scale=0.2

case $target in
m0)     cc=arm-none-eabi-gcc machine="$bare -mcpu=cortex-m0 -mthumb"; link="$bare_link $cortex_link"; needs=qemu-system-arm;;
m3)     cc=arm-none-eabi-gcc machine="$bare -mcpu=cortex-m3 -mthumb"; link="$bare_link $cortex_link"; needs=qemu-system-arm;;
rv32)   cc=riscv64-unknown-elf-gcc machine="$bare -march=rv32imac -mabi=ilp32"; link="$bare_link $rv32_link"; needs=qemu-system-riscv32;;
wasm|wasm-simd)
        cc= support=; for v in 19 18 17 16 15 14; do command -v clang-$v >/dev/null && command -v llvm-ar-$v >/dev/null && { cc=clang-$v; ar=llvm-ar-$v; break; }; done
        [ -d /usr/include/wasm32-wasi ] || cc=
        machine=--target=wasm32-wasi; [ $target = wasm ] || machine="$machine -msimd128"
        link="-Wl,-z,stack-size=1048576 -lwasi-emulated-process-clocks"; needs=node;;       # zstd's trainer asks clock()
windows)
        cc=x86_64-w64-mingw32-gcc-posix machine=-D__USE_MINGW_ANSI_STDIO=1; link=-static
        needs=wine64; [ ! -x /usr/lib/wine/wine64 ] || needs=/usr/lib/wine/wine64; scale=0.2;;
s390x)  cc=s390x-linux-gnu-gcc machine=; link=-static; libs=-lpthread; needs=qemu-s390x-static scale=0.05;;
mips)   cc=mips-linux-gnu-gcc machine=-D_FILE_OFFSET_BITS=64; link=-static; libs="-lpthread -latomic"; needs=qemu-mips-static scale=0.05;;
armhf)  cc=arm-linux-gnueabihf-gcc machine=-D_FILE_OFFSET_BITS=64; link=-static; libs=-lpthread; needs=qemu-arm-static scale=0.05;;
native) cc=${CC:-gcc} machine=; libs=-lpthread; needs=sh; scale=1;;
i386)   cc="gcc -m32 -isystem /usr/include/$(gcc -print-multiarch 2>/dev/null)" machine=-D_FILE_OFFSET_BITS=64; libs=-lpthread; needs=sh; scale=0.5
        echo 'int main(void) { return 0; }' | gcc -m32 -x c - -o /dev/null 2>/dev/null || cc=gcc-multilib;;
cxx11)  cc=${CXX:-g++} machine=; libs=-lpthread; needs=sh; scale=0.3; language=c++ standard=gnu++11;;
cxx20)  for v in 19 18 17 16 15 14; do command -v clang++-$v >/dev/null && break; done
        cc=clang++-$v machine=; libs=-lpthread; needs=sh; scale=0.3; language=c++ standard=gnu++20;;
musl)   cc=musl-gcc machine=; link=-static; needs=sh; scale=0.5;;
*)      echo "build.sh: no target $target" >&2; exit 2;;
esac
case $target in m0|m3|rv32)
    kit="-include $port/firmware.h"; support=$port/firmware.c; codecs=lz4; scale=0.03; ar=${cc%gcc}ar;;
esac

if [ "$source" = there ]; then
    for tool in "${cc:-clang for WASI}" "$needs"; do tool=${tool%% *}; command -v "$tool" >/dev/null 2>&1 || { echo "SKIP $target: $tool is missing (tests/port/deps.sh)"; exit 1; }; done
    exit 0
fi
mkdir -p "$(dirname "$out")"
includes=-I$build/include

if [ "$source" = codecs ]; then
    files=$(ls "$build"/src/lz4/lib/lz4.c "$build"/src/lz4/lib/lz4hc.c 2>/dev/null)
    case $codecs in *zstd*) files="$files $(ls "$build"/src/libzstd/lib/common/*.c "$build"/src/libzstd/lib/compress/*.c "$build"/src/libzstd/lib/decompress/*.c "$build"/src/libzstd/lib/dictBuilder/*.c 2>/dev/null)";; esac
    objects=$out.$$
    rm -rf "$objects"; mkdir -p "$objects"
    for file in $files; do
        object=$objects/$(basename "$file" .c).o
        # LZ4: no heap on bare metal; its state is the caller's or the stack's
        case $target in m0|m3|rv32) quiet="-DLZ4_HEAPMODE=0 -DLZ4HC_HEAPMODE=0 -DLZ4_STATIC_LINKING_ONLY_DISABLE_MEMORY_ALLOCATION";; *) quiet=;; esac
        $cc $machine -x c -O1 -w -DZSTD_DISABLE_ASM -DXXH_NAMESPACE=ZSTD_ -DZSTD_LEGACY_SUPPORT=0 $quiet -c "$file" -o "$object" || exit 1
    done
    [ -n "$files" ] || { echo 'typedef int nothing;' | $cc $machine -x c -c - -o "$objects/none.o"; }
    # made aside, so that two who build it at once do not meet
    $ar rcs "$objects/all.a" "$objects"/*.o && mv "$objects/all.a" "$out" && rm -rf "$objects"
    exit
fi

codec_archive=$build/$target/codecs.a
switches=
[ -d "$build/src/lz4" ] || switches=-DKV_NO_LZ4
case $codecs in *zstd*) [ -d "$build/src/libzstd" ] || switches="$switches -DKV_NO_ZSTD";; *) switches="$switches -DKV_NO_ZSTD";; esac

case $source in */fw_*.c)
    # a firmware program is linked with its module's object, and with a board that has no heap to spare
    module=$(basename "$source" .c); module=${module#fw_}
    [ "$module" != littlefs ] || { module=lsm; includes="$includes -I. -I$port/lfs"; }
    library=$build/$target/fw_$module.o
    $cc -std=gnu11 $machine $includes $switches -Wall -Wextra -Os -DLIBRARY_$(echo "$module" | tr a-z A-Z) -c "$port/library.c" -o "$library" || exit 1
    support="$support $library"; OPTIONS="$OPTIONS -DFIRMWARE_MEMORY=4096";;
esac
case $out in
*.o)    exec $cc -std=$standard $machine $includes $warnings -Werror $switches ${OPTIONS:--O1} -c "$source" -o "$out";;
esac
case $source in */unit_compress.c)
    [ -d "$build/src/libzstd" ] || { echo 'echo "SKIP unit_compress: no lz4 and zstd for this machine"; echo "0 passed, 0 failed, 1 skipped"' > "$out"; exit 0; };;
esac
case $target:$source in windows:*/crash/*) includes="$includes -I$port/posix";; esac
program=${out%.sh}
case $target in windows) program=$program.exe;; wasm*) program=$program.wasm;; *) program=$program.elf;; esac
rm -f "$out"
[ -e "$codec_archive" ] || codec_archive=
$cc -std=$standard $machine $includes $switches -Wall -Wextra -O1 -DTEST_SCALE=$scale $kit $OPTIONS \
    -x $language "$source" -x none $support $link -o "$program" $codec_archive $libs -lm || exit 1
echo "exec sh \"$port/on.sh\" $target \"$program\" \"\$@\"" > "$out"
