#!/usr/bin/env bash
# Disks that refuse, under real nodes: strace injects EIO and ENOSPC into the system calls of one
# node of a cluster that is written to, and one node has a file system that is really full.
#
# After a failed sync or write the node must end with exit code 70 and say why, and touch the file no
# more: what the page cache says after a failed sync is worth nothing. A full disk it must bear: it
# stays alive, its cluster goes on, and it is whole again when there is space. The cluster never
# loses an acknowledged write.
#
#   scripts/storage-faults.sh
#   STORAGE=file|rocksdb CLIENTS=16 PORT=8000 scripts/storage-faults.sh
#
# FLOTILLA and LEDGER name programs that are built already. Exit code 0: all of that holds, or this
# machine does not allow it, which a line `skipped:` says.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/nodes.sh

storage=${STORAGE:-file}
clients=${CLIENTS:-16}
port=${PORT:-8000}
work=$(mktemp -d)
tracer=
finish() {
    [ -z "$tracer" ] || kill "$tracer" 2>/dev/null || true
    kill_nodes
    umount "$work/small" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

skipped() {
    echo "skipped: $1"
    exit 0
}
fail() {
    echo "FAILED: $1"
    show_logs
    exit 1
}

command -v strace >/dev/null || skipped "strace is not installed"
command -v python3 >/dev/null || skipped "python3 is not installed"
sleep 60 &
strace -o /dev/null -p $! 2>/dev/null &
sleep 0.3
kill -0 $! 2>/dev/null || skipped "strace may not attach to processes here"
kill %1 %2 2>/dev/null || true
wait 2>/dev/null || true

build "$storage"
make_cluster "$storage"
for id in "${nodes[@]}"; do
    cat >>"$work/cluster/node-$id/node.toml" <<'TOML'

[log]
segment_bytes = 262144

[snapshots]
log_bytes = 1048576
kept_bytes_max = 262144
TOML
done
for id in "${nodes[@]}"; do start_node "$id"; done
wait_for 60 "a leader" has_leader || fail "no leader"

# What the node did with the file after the error that was injected into a call on it.
touched_again() {
    python3 - "$1" <<'PYTHON'
import re, sys
waiting, failed, touched = {}, None, []
for line in open(sys.argv[1]):
    thread, call = line.rstrip("\n").split(None, 1)
    begun = re.match(r"(\w+)\((\d+)", call)
    if begun:
        waiting[thread] = begun.groups()
        if failed is not None and begun.group(2) == failed:
            touched.append(call)
    if "(INJECTED)" in call and failed is None:
        failed = waiting[thread][1]
print("nothing was injected" if failed is None else "\n".join(touched))
PYTHON
}

is_traced() { ! grep -q '^TracerPid:[[:space:]]*0$' "/proc/$1/status"; }

# inject CALL ERROR WHEN VICTIM: the node ends, and says why; the cluster goes on.
round=0
inject() {
    local call=$1 error=$2 when=$3 victim=$4 began=$SECONDS
    round=$((round + 1))
    local pid log=$work/cluster/node-$victim/log trace=$work/trace-$round
    pid=$(pid_of "$victim")
    : >"$log"
    strace -f -q -o "$trace" -e trace=fdatasync,fsync,pwrite64,write \
        -e "inject=$call:error=$error:when=$when" -p "$pid" 2>"$work/strace" &
    tracer=$!
    wait_for 20 "strace to attach" is_traced "$pid" || fail "$(cat "$work/strace")"
    "$LEDGER" write "$FLOTILLA_CONFIG" "$work/ledger" "$round" 6 "$clients" >"$work/written" &
    local writer=$!
    wait_for 60 "node $victim to end" test -e "$work/cluster/node-$victim/exit" ||
        fail "node $victim goes on after $error from $call"
    local code words
    code=$(wait_node "$victim")
    words=$(grep '^flotilla: ' "$log" | tail -n 1)
    [ "$code" = 70 ] || fail "node $victim ended with $code after $error from $call"
    case $words in *"nput/output error"* | *"o space left"*) ;; *) fail "it says: $words" ;; esac
    wait "$tracer" 2>/dev/null || true
    tracer=
    local again
    again=$(touched_again "$trace")
    [ -z "$again" ] || fail "after $error from $call: $again"
    # The other two go on without it: writes that begin now are acknowledged.
    "$FLOTILLA" put "after/$round" yes >/dev/null || fail "the others do not go on"
    wait "$writer" || fail "the writer failed"
    "$FLOTILLA" check "$work/cluster/node-$victim" >"$work/checked" || fail "$(cat "$work/checked")"
    start_node "$victim"
    wait_for 60 "node $victim to catch up" is_caught_up "$victim" || fail "it does not catch up"
    local compared
    compared=$("$LEDGER" verify "$FLOTILLA_CONFIG" "$work/ledger") || fail "$compared"
    echo "$error from $call, node $victim: exit 70, \"${words#flotilla: }\";" \
        "$(cat "$work/written"); $compared; $((SECONDS - began)) s"
}

# full_disk: a node whose disk gets full stays alive. As a leader it refuses writes with exit code 5;
# as a follower it disturbs nobody; when there is space again it goes on by itself.
full_disk() {
    local victim other pid began=$SECONDS code=0
    victim=$(leader)
    other=$((victim % 3 + 1))
    kill_node "$victim"
    mkdir "$work/small"
    if ! mount -t tmpfs -o size=96m none "$work/small" 2>/dev/null; then
        start_node "$victim"
        echo "skipped: a full disk: this process may not mount file systems"
        return
    fi
    local data=$work/cluster/node-$victim/data
    cp -a "$data" "$work/small/data"
    rm -r "$data"
    ln -s "$work/small/data" "$data"
    start_node "$victim"
    wait_for 60 "node $victim to catch up" is_caught_up "$victim" || fail "it does not catch up"
    pid=$(pid_of "$victim")
    "$LEDGER" write "$FLOTILLA_CONFIG" "$work/ledger" 100 15 "$clients" >"$work/written" &
    local writer=$!

    wait_for 30 "node $victim to lead" "$FLOTILLA" transfer-leader "$victim" || fail "no transfer"
    head -c 1G /dev/zero >"$work/small/ballast" 2>/dev/null || true
    wait_for 60 "a refusal" refuses "$victim" || fail "a full leader does not refuse"
    "$FLOTILLA" get after/1 >/dev/null || fail "a full leader does not answer reads"
    rm "$work/small/ballast"
    wait_for 60 "writes to be taken" "$FLOTILLA" put full/leader yes || fail "it does not recover"

    wait_for 30 "node $other to lead" "$FLOTILLA" transfer-leader "$other" || fail "no transfer"
    head -c 1G /dev/zero >"$work/small/ballast" 2>/dev/null || true
    for number in 1 2 3 4 5; do
        "$FLOTILLA" put "full/follower/$number" yes >/dev/null ||
            fail "the cluster does not go on without a full follower"
    done
    rm "$work/small/ballast"
    wait "$writer" || fail "the writer failed"
    wait_for 60 "node $victim to catch up" is_caught_up "$victim" || fail "it does not catch up"
    [ "$(pid_of "$victim")" = "$pid" ] && kill -0 "$pid" || fail "node $victim did not stay alive"
    local compared
    compared=$("$LEDGER" verify "$FLOTILLA_CONFIG" "$work/ledger") || fail "$compared"
    echo "full disk, node $victim: alive, exit 5 for writes, recovered;" \
        "$(cat "$work/written"); $compared; $((SECONDS - began)) s"
}

# refuses ID: a put ends with exit code 5 and names the node.
refuses() {
    local code=0 said
    said=$("$FLOTILLA" put full/refused yes 2>&1) || code=$?
    [ "$code" = 5 ] && [[ $said == *"node $1"* ]]
}

follower() { echo $(($(leader) % 3 + 1)); }

inject fdatasync EIO 20 "$(follower)"
inject fdatasync EIO 20 "$(leader)"
inject fdatasync EIO 1 "$(follower)"
if [ "$storage" = file ]; then
    # Of a directory, behind the name of a new segment.
    inject fsync EIO 1 "$(follower)"
    inject pwrite64 EIO 40 "$(leader)"
else
    inject write EIO 400 "$(leader)"
fi
echo "storage faults: storage $storage, 0 acknowledged writes lost, $SECONDS s"
