#!/usr/bin/env bash
# Real files, real processes, real signals: a folder is imported again and again under different
# prefixes while the leader is killed three times and a follower stands still for ten seconds. Then
# every import is exported and compared with the folder.
#
#   scripts/chaos.sh [FOLDER]          default: /usr/share/doc
#   IMPORTS=20 STORAGE=file PORT=7800 FLOTILLA=target/release/flotilla scripts/chaos.sh
#
# Exit code 0: every import ended with 0 or 5 (5: only files over the limit of a value, which are
# listed) and there is no difference but those files, links and empty directories.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-/usr/share/doc}
imports=${IMPORTS:-28}
flotilla=${FLOTILLA:-${CARGO_TARGET_DIR:-target}/release/flotilla}
[ -x "$flotilla" ] || cargo build --locked --release --package flotilla
work=$(mktemp -d)
export FLOTILLA_CONFIG=$work/data/client.toml

"$flotilla" cluster --dir "$work/data" --base-port "${PORT:-7800}" --storage "${STORAGE:-file}" \
    >"$work/cluster.log" 2>&1 &
cluster=$!
finish() {
    kill -INT "$cluster" 2>/dev/null && wait "$cluster" || true
    rm -rf "$work"
}
trap finish EXIT
for _ in $(seq 300); do
    grep -q '^ready' "$work/cluster.log" && break
    sleep 0.1
done
grep '^ready' "$work/cluster.log"

leader() {
    "$flotilla" status --json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["leader"] or 1)'
}
process() { cat "$work/data/node-$1/pid"; }

import_all() {
    for number in $(seq "$imports"); do
        code=0
        "$flotilla" import "$folder" --prefix "$number/" >"$work/import" 2>"$work/skipped" || code=$?
        echo "import $number: exit $code, $(tail -n 1 "$work/import")"
        case $code in 0 | 5) ;; *) return 1 ;; esac
    done
}
import_all &
importing=$!

for _ in 1 2 3; do
    sleep 3
    victim=$(leader)
    echo "killing leader $victim"
    kill -KILL "$(process "$victim")"
done
sleep 2
follower=$(($(leader) % 3 + 1))
echo "follower $follower stands still"
kill -STOP "$(process "$follower")"
sleep 10
kill -CONT "$(process "$follower")"
wait "$importing"

differences=0
for number in $(seq "$imports"); do
    rm -rf "$work/export"
    "$flotilla" export "$work/export" --prefix "$number/" >/dev/null
    # What only the folder has: links, empty directories, and files over the limit.
    diff -r --no-dereference "$folder" "$work/export" >"$work/diff" || true
    if grep -v "^Only in $folder" "$work/diff"; then
        differences=$((differences + 1))
    fi
    while read -r path; do
        if [ -f "$path" ] && [ ! -L "$path" ] && [ "$(stat -c %s "$path")" -le 1048576 ]; then
            echo "import $number: $path is missing"
            differences=$((differences + 1))
        fi
    done < <(sed -n "s|^Only in \($folder[^:]*\): \(.*\)$|\1/\2|p" "$work/diff")
done
echo "$imports imports compared, $differences differences"
[ "$differences" = 0 ]
