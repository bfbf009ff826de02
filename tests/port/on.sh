#!/bin/sh
# Run a program on the machine it was built for: on.sh TARGET PROGRAM ARGUMENT...
target=$1 program=$2
shift 2
case $target in
m0|m3)
    exec qemu-system-arm -M mps2-an385 -nographic -monitor none -serial none \
        -semihosting-config "enable=on,target=native,arg=${program##*/}${1:+,arg=$1}" -kernel "$program";;
rv32)
    exec qemu-system-riscv32 -M virt -m 64M -bios none -nographic -monitor none -serial none \
        -semihosting-config "enable=on,target=native,arg=${program##*/}${1:+,arg=$1}" -kernel "$program";;
wasm|wasm-simd)
    files=${PORT_FILES:-$program.files}
    [ -n "$PORT_FILES" ] || { rm -rf "$files"; mkdir -p "$files"; }
    # after a long run node 20 may have thrown away the bytecode that it returns to ("Invalid bytecode")
    exec node --no-warnings --no-flush-bytecode "$(dirname "$0")/wasi.mjs" "$program" "$files" "$@";;
windows)
    WINEPREFIX=$(cd "$(dirname "$program")/.." && pwd)/wine
    WINEDEBUG=-all WINEDLLOVERRIDES=mscoree,mshtml= DISPLAY=
    export WINEPREFIX WINEDEBUG WINEDLLOVERRIDES DISPLAY
    wine=$(command -v wine64 || echo /usr/lib/wine/wine64)
    # its system directory is made once, by the first of those that run at the same time
    made() { [ -e "$WINEPREFIX.made" ] || { mkdir -p "$WINEPREFIX"; "$wine" cmd /c exit >/dev/null 2>&1; : > "$WINEPREFIX.made"; }; }
    if command -v flock >/dev/null; then exec 9> "$WINEPREFIX.lock"; flock 9; made 9>&-; flock -u 9; exec 9>&-; else made; fi
    { "$wine" "$program" "$@"; echo $? > "$program.status"; } | tr -d '\r'
    exit "$(cat "$program.status")";;
s390x)  exec qemu-s390x-static "$program" "$@";;
mips)   exec qemu-mips-static "$program" "$@";;
armhf)  exec qemu-arm-static "$program" "$@";;
*)      exec "$program" "$@";;
esac
