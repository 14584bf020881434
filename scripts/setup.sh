#!/usr/bin/env bash
# Checks for what a build needs and, as root on Debian or Ubuntu, installs what is missing.
#
#   scripts/setup.sh build   what the program needs: cargo and a C compiler
#   scripts/setup.sh         also what RocksDB needs: a C++ compiler, make and libclang
#
# Elsewhere it says the one line to run, and exits with 1.
set -euo pipefail

readonly scope="${1:-all}"
missing=()

need_command() { # command package
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

has_libclang() {
    local directories=("${LIBCLANG_PATH:-}" /usr/lib/llvm-*/lib /usr/lib /usr/lib64 /usr/lib/*-linux-gnu)
    local directory file
    for directory in "${directories[@]}"; do
        for file in "$directory"/libclang.so "$directory"/libclang-*.so*; do
            [[ -n "$directory" && -e "$file" ]] && return 0
        done
    done
    return 1
}

case "$scope" in
    build) ;;
    all) ;;
    *)
        echo "usage: scripts/setup.sh [build]" >&2
        exit 2
        ;;
esac

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: cargo is missing; install Rust from https://rustup.rs, then run this again" >&2
    exit 1
fi

need_command gcc gcc
if [[ "$scope" == all ]]; then
    need_command g++ g++
    need_command make make
    has_libclang || missing+=(libclang-dev)
fi

if ((${#missing[@]} == 0)); then
    exit 0
fi

if command -v apt-get >/dev/null 2>&1; then
    if ((EUID == 0)); then
        echo "setup: installing ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        apt-get install -q -y --no-install-recommends "${missing[@]}"
        exit 0
    fi
    echo "setup: ${missing[*]} missing; run:" >&2
    echo "    sudo apt-get install -y ${missing[*]}" >&2
else
    echo "setup: ${missing[*]} missing; install them (names as on Debian)" >&2
fi
exit 1
