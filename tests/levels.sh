#!/bin/sh
# The SIMD levels of kv_simd.h that this processor can run, for forcing each one in turn.
flags=" $(sed -n 's/^flags[^:]*://p' /proc/cpuinfo 2>/dev/null | head -1) "
echo scalar
case $(uname -m) in
x86_64|amd64|i?86)
    echo sse2
    case $flags in *" avx2 "*) echo avx2;; esac
    case $flags in *" avx512f "*) case $flags in *" avx512bw "*) case $flags in *" avx512dq "*) case $flags in *" avx512vl "*) echo avx512
        case $flags in *" avx512_vbmi2 "*) case $flags in *" avx512vbmi "*) case $flags in *" gfni "*) echo avx512vbmi;; esac;; esac;; esac;; esac;; esac;; esac;; esac;;
*)  echo native;;
esac
