#!/bin/sh
# Install what the tests need, from Debian or Ubuntu, group by group.
#
#     tests/port/deps.sh                          every group but `base` and `lint`
#     tests/port/deps.sh firmware windows         some of them
#
#     base        compilers, libraries and build systems that every test uses   0.9 GB on disk
#     lint        clang-tidy, cppcheck                                          0.1 GB
#     native      musl, gcc's 32-bit libraries                                  0.1 GB
#     firmware    Cortex-M and RV32 compilers, picolibc, qemu-system            2.4 GB
#     wasm        wasi-libc, lld, clang's runtime, node where there is none     0.1 GB
#     windows     mingw-w64 and wine                                            1.1 GB
#     bigendian   s390x, mips and armhf compilers, qemu-user                    0.8 GB
#
# What is missing of all the groups is asked for in one call, and where that fails group by group. A
# group whose tools are all there costs nothing. One that cannot be had is a SKIP line, and the tests
# that need it skip too. (gcc-multilib and Debian's cross compilers exclude each other;
# gcc-12-multilib goes with both.)

have() { for tool in "$@"; do command -v "$tool" >/dev/null 2>&1 || return 1; done; }
clang_version() { for v in 19 18 17 16 15 14; do have "clang-$v" && { echo $v; return; }; done; apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | grep . || echo 14; }
gcc_version() { gcc -dumpversion 2>/dev/null | sed 's/\..*//' | grep . || apt-cache depends gcc | sed -n 's/.*Depends: gcc-\([0-9]*\)$/\1/p'; }

packages() {
    v=$(clang_version)
    case $1 in
    base)      echo gcc g++ make git libc6-dev libxxhash-dev liblz4-dev libzstd-dev pkg-config cmake meson ninja-build python3 zstd xz-utils ca-certificates "clang-$v clang"
               ! apt-cache show "libclang-rt-$v-dev" >/dev/null 2>&1 || echo "libclang-rt-$v-dev";;
    lint)      echo "clang-tidy-$v cppcheck";;
    native)    echo "musl-tools gcc-$(gcc_version)-multilib";;
    firmware)  echo gcc-arm-none-eabi picolibc-arm-none-eabi qemu-system-arm gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc;;
    wasm)      echo "clang-$v llvm-$v wasi-libc libclang-rt-$v-dev-wasm32 lld-$v"; have node || echo nodejs;;
    windows)   echo gcc-mingw-w64-x86-64-posix wine64;;
    bigendian) echo gcc-s390x-linux-gnu libc6-dev-s390x-cross gcc-mips-linux-gnu libc6-dev-mips-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static;;
    esac
}
makes() { echo 'int main(void) { return 0; }' | "$@" -x c - -o /dev/null 2>/dev/null; }
is_there() {
    v=$(clang_version)
    case $1 in
    base)      have gcc g++ make git clang pkg-config cmake meson ninja python3 zstd xz && makes clang -fsanitize=address &&
               echo '#include <xxhash.h>
#include <lz4.h>
#include <zstd.h>' | gcc -fsyntax-only -xc - 2>/dev/null;;
    lint)      have "clang-tidy-$v" cppcheck;;
    native)    have musl-gcc && makes gcc -m32;;
    firmware)  have arm-none-eabi-gcc qemu-system-arm riscv64-unknown-elf-gcc qemu-system-riscv32 && [ -d /usr/lib/picolibc ];;
    wasm)      have node "clang-$v" "llvm-ar-$v" "wasm-ld-$v" && [ -d /usr/include/wasm32-wasi ];;
    windows)   have x86_64-w64-mingw32-gcc-posix && { have wine64 || [ -x /usr/lib/wine/wine64 ]; };;
    bigendian) have s390x-linux-gnu-gcc mips-linux-gnu-gcc arm-linux-gnueabihf-gcc qemu-s390x-static qemu-mips-static qemu-arm-static;;
    *)         return 2;;
    esac
}
root=
[ "$(id -u)" = 0 ] || { have sudo && root="sudo -n"; }

# A mirror that hangs must not hang the tests: 600 s (KV_DEPS_SECONDS) for all calls of apt-get together.
begin=$(date +%s)
apt_get() {
    left=$((begin + ${KV_DEPS_SECONDS:-600} - $(date +%s)))
    [ "$left" -gt 0 ] || return 1
    DEBIAN_FRONTEND=noninteractive $root timeout -k 15 "$left" apt-get -o Acquire::http::Timeout=60 -o Acquire::https::Timeout=60 -o DPkg::Lock::Timeout=120 "$@" < /dev/null >/dev/null 2>&1
    said=$?
    [ $said != 124 ] && [ $said != 137 ] || echo "apt-get $1 was stopped: the ${KV_DEPS_SECONDS:-600} s for installing tools are over"
    return $said
}
install() { apt_get install -y -qq --no-remove --no-install-recommends "$@"; }

missing=
for group in ${*:-native firmware wasm windows bigendian}; do
    is_there "$group"
    case $? in 0) ;; 2) echo "no such group: $group" >&2; exit 2;; *) missing="$missing $group";; esac
done
[ -n "$missing" ] || exit 0
if ! have apt-get; then
    for group in $missing; do echo "SKIP $group: no apt-get to install its tools with"; done
    exit 0
fi
apt_get update -qq
wanted=$(for group in $missing; do packages "$group"; done)
if ! install $wanted; then
    for group in $missing; do
        is_there "$group" || install $(packages "$group") || for package in $(packages "$group"); do install "$package"; done
    done
fi
for group in $missing; do
    is_there "$group" || echo "SKIP $group: could not install all of $(packages "$group" | tr '\n' ' ')$([ $(($(date +%s) - begin)) -lt "${KV_DEPS_SECONDS:-600}" ] || echo "in ${KV_DEPS_SECONDS:-600} s")"
done
echo "looked for the tools of$missing: $(($(date +%s) - begin)) s"
exit 0
