#!/usr/bin/env bash
# Installs what the tests need beside Rust, or says exactly what to install. RocksDB's bindings are
# made with libclang at build time; nothing else needs it.
set -euo pipefail

missing=()
command -v gcc >/dev/null || missing+=(gcc)
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v python3 >/dev/null || missing+=(python3)
# The bindings need the library itself (libclang-cpp is another one) and clang's own headers.
found() { compgen -G "$1" >/dev/null; }
if [ -z "${LIBCLANG_PATH:-}" ]; then
    if ! { found '/usr/lib/llvm-*/lib/libclang.so*' || found '/usr/lib/llvm-*/lib/libclang-[0-9]*' \
        || found '/usr/lib*/libclang.so*' || found '/usr/lib/*-linux-gnu/libclang-[0-9]*'; } \
        || ! { found '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' \
        || found '/usr/lib*/clang/*/include/stddef.h'; }; then
        missing+=(libclang-dev)
    fi
fi

if [ ${#missing[@]} -gt 0 ]; then
    line="apt-get install -y --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: $line"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $line
    else
        echo "setup: missing: ${missing[*]}" >&2
        echo "setup: on Debian run as root: $line" >&2
        exit 2
    fi
fi

if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing; install rustup's stable Rust, see https://rustup.rs" >&2
    exit 2
fi
for component in rustfmt clippy; do
    if ! cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1; then
        rustup component add "$component"
    fi
done
