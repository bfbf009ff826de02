#!/bin/sh
# Install what the headers and tests are built with, where it is missing: xxhash, lz4, zstd.
# CC is the compiler to ask. Says what it does; where it cannot, prints the one command to type.
CC=${CC:-gcc}

missing=
for name in xxhash lz4 zstd; do
    lib=-l$name
    echo "#include <$name.h>
int main(void) { return 0; }" | $CC -xc - -xnone -o /dev/null $lib 2>/dev/null || missing="$missing $name"
done
[ -z "$missing" ] && exit 0

debian= fedora= alpine= arch= brew=
for name in $missing; do
    debian="$debian lib$name-dev"
    fedora="$fedora $name-devel"
    alpine="$alpine $name-dev"
    arch="$arch $name"
    brew="$brew $name"
done
# what these systems call them otherwise
fedora=$(echo "$fedora" | sed 's/zstd-devel/libzstd-devel/')
alpine=$(echo "$alpine" | sed 's/xxhash-dev/xxhash-dev/')

if   command -v apt-get >/dev/null; then command="apt-get install -y --no-install-recommends$debian"
elif command -v dnf     >/dev/null; then command="dnf install -y$fedora"
elif command -v apk     >/dev/null; then command="apk add$alpine"
elif command -v pacman  >/dev/null; then command="pacman -S --needed --noconfirm$arch"
elif command -v brew    >/dev/null; then command="brew install$brew"
else
    echo "missing:$missing - install the development files of these libraries with your package manager" >&2
    exit 1
fi

sudo=
case $command in
brew*) ;;
*)  if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "missing:$missing - as root, type:  $command" >&2
            exit 1
        fi
        sudo=sudo
    fi;;
esac

echo "missing:$missing - running: $sudo $command" >&2
case $command in apt-get*) $sudo apt-get update -q >/dev/null 2>&1;; esac
if ! $sudo env DEBIAN_FRONTEND=noninteractive $command >&2; then
    echo "that did not work - type:  $sudo $command" >&2
    exit 1
fi
