#!/usr/bin/env bash
# Real files, real processes, real signals: a folder is imported again and again under different
# prefixes while the leader is killed three times and a follower stands still for ten seconds. Then
# every import is exported and compared with the folder.
#
#   scripts/chaos.sh [FOLDER]          default: /usr/share/doc
#   IMPORTS=20 STORAGE=file STATE=memory|rocksdb PORT=7800 \
#       FLOTILLA=target/release/flotilla scripts/chaos.sh
#
# Exit code 0: every import ended with 0 or 5 (5: only files over the limit of a value, which are
# listed) and there is no difference but those files, links and empty directories.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/nodes.sh

folder=${1:-/usr/share/doc}
imports=${IMPORTS:-28}
storage=${STORAGE:-file}
state=${STATE:-memory}
port=${PORT:-7800}
work=$(mktemp -d)
finish() {
    stop_cluster
    rm -rf "$work"
}
trap finish EXIT
build_program "$storage" "$state"
start_cluster --storage "$storage" --state "$state"

pid_in_data() { cat "$work/data/node-$1/pid"; }

import_all() {
    for number in $(seq "$imports"); do
        code=0
        "$FLOTILLA" import "$folder" --prefix "$number/" >"$work/import" 2>"$work/skipped" || code=$?
        echo "import $number: exit $code, $(tail -n 1 "$work/import")"
        case $code in 0 | 5) ;; *) return 1 ;; esac
    done
}
import_all &
importing=$!

for _ in 1 2 3; do
    sleep 3
    wait_for 60 "a leader" has_leader
    victim=$(leader)
    echo "killing leader $victim"
    kill -KILL "$(pid_in_data "$victim")"
done
sleep 2
wait_for 60 "a leader" has_leader
follower=$(($(leader) % 3 + 1))
echo "follower $follower stands still"
kill -STOP "$(pid_in_data "$follower")"
sleep 10
kill -CONT "$(pid_in_data "$follower")"
wait "$importing"

differences=0
for number in $(seq "$imports"); do
    rm -rf "$work/export"
    "$FLOTILLA" export "$work/export" --prefix "$number/" >/dev/null
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
echo "storage $storage, state $state: $imports imports compared, $differences differences"
[ "$differences" = 0 ]
