#!/bin/sh
# Install what the tests on other platforms need, from Debian or Ubuntu, group by group.
#
#     tests/port/deps.sh                          all groups
#     tests/port/deps.sh firmware windows         some of them
#
#     firmware    Cortex-M and RV32 compilers, picolibc, qemu-system     2.4 GB on disk, 30-60 s
#     wasm        wasi-libc, lld, clang's runtime (node must be there)   12 MB, 5 s
#     windows     mingw-w64 and wine                                     1.1 GB, 15-30 s
#     native      musl, gcc's 32-bit libraries                           0.1 GB, 5 s
#     bigendian   s390x, mips and armhf compilers, qemu-user             0.8 GB, 15-30 s
#
# A group whose tools are all there costs nothing. One that cannot be had is a SKIP line, and the
# tests that need it skip too. (gcc-multilib and Debian's cross compilers exclude each other;
# gcc-12-multilib goes with both.)

have() { for tool in "$@"; do command -v "$tool" >/dev/null 2>&1 || return 1; done; }
clang_version() { for v in 19 18 17 16 15 14; do have "clang-$v" && { echo $v; return; }; done; echo 14; }

packages() {
    case $1 in
    firmware)  echo gcc-arm-none-eabi picolibc-arm-none-eabi qemu-system-arm gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc;;
    wasm)      v=$(clang_version); echo "clang-$v wasi-libc libclang-rt-$v-dev-wasm32 lld-$v";;
    windows)   echo gcc-mingw-w64-x86-64-posix g++-mingw-w64-x86-64-posix wine64;;
    native)    echo "musl-tools gcc-$(gcc -dumpversion 2>/dev/null | sed 's/\..*//')-multilib";;
    bigendian) echo gcc-s390x-linux-gnu libc6-dev-s390x-cross gcc-mips-linux-gnu libc6-dev-mips-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static;;
    esac
}
is_there() {
    case $1 in
    firmware)  have arm-none-eabi-gcc qemu-system-arm riscv64-unknown-elf-gcc qemu-system-riscv32 && [ -d /usr/lib/picolibc ];;
    wasm)      have node "wasm-ld-$(clang_version)" && [ -d /usr/include/wasm32-wasi ];;
    windows)   have x86_64-w64-mingw32-gcc-posix && { have wine64 || [ -x /usr/lib/wine/wine64 ]; };;
    native)    have musl-gcc && echo 'int main(void) { return 0; }' | gcc -m32 -x c - -o /dev/null 2>/dev/null;;
    bigendian) have s390x-linux-gnu-gcc mips-linux-gnu-gcc arm-linux-gnueabihf-gcc qemu-s390x-static;;
    esac
}

root=
[ "$(id -u)" = 0 ] || { have sudo && root="sudo -n"; }
updated=
for group in ${*:-native firmware wasm windows bigendian}; do
    [ -n "$(packages "$group")" ] || { echo "no such group: $group" >&2; exit 2; }
    is_there "$group" && continue
    have apt-get || { echo "SKIP $group: no apt-get to install $(packages "$group") with"; continue; }
    [ -n "$updated" ] || { $root apt-get update -qq >/dev/null 2>&1; updated=1; }
    begin=$(date +%s)
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-remove --no-install-recommends $(packages "$group") >/dev/null 2>&1
    if is_there "$group"; then echo "installed the tools for $group in $(($(date +%s) - begin)) s"
    else echo "SKIP $group: could not install $(packages "$group")"; fi
done
exit 0
