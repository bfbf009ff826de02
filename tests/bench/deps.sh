#!/bin/sh
# Install the libraries that the benchmarks compare with, each where the system has it.
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
peers_debian="pkg-config g++ libabsl-dev libtbb-dev libboost-dev libjudy-dev libmarisa-dev liblmdb-dev libleveldb-dev librocksdb-dev libblosc-dev zstd"
if ! command -v apt-get >/dev/null; then
    echo "make bench-deps knows Debian and Ubuntu. Install what you have of: absl, tbb, boost, judy, marisa, lmdb, leveldb, rocksdb, blosc" >&2
    exit 1
fi
$sudo apt-get update -q >/dev/null
for package in $peers_debian; do
    echo "installing $package"
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$package" >/dev/null || echo "  not available: its row will be missing"
done
