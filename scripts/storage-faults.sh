#!/usr/bin/env bash
# Disks that refuse, under real nodes: strace injects EIO and ENOSPC into the system calls of one
# node of a cluster that is written to, and one node has a file system that is really full.
#
# After a failed sync or write of its log the node must end with exit code 70 and say why, and touch
# the file no more: what the page cache says after a failed sync is worth nothing. A full disk it
# must bear: it stays alive, refuses writes with exit code 5 where it leads, and is whole again when
# there is space. The cluster never loses an acknowledged write.
#
#   scripts/storage-faults.sh
#   STORAGE=file|rocksdb STATE=memory|rocksdb CLIENTS=16 PORT=8000 scripts/storage-faults.sh
#
# FLOTILLA and LEDGER name programs that are built already. Exit code 0: all of that holds, or this
# machine does not allow it, which a line `skipped:` says.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/nodes.sh

storage=${STORAGE:-file}
state=${STATE:-memory}
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

build "$storage" "$state"
make_cluster "$storage" "$state"
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

# attach VICTIM TRACE CALL ERROR WHEN [PATH...]: from here on a call of the node fails, and each call
# that may change a file is written down. With paths only calls on these files are.
attach() {
    local pid trace=$2 paths=() path
    pid=$(pid_of "$1")
    for path in "${@:6}"; do paths+=(-P "$path"); done
    strace -f -q -o "$trace" -e trace=fdatasync,fsync,pwrite64,write,openat "${paths[@]}" \
        -e "inject=$3:error=$4:when=$5" -p "$pid" 2>"$work/strace" &
    tracer=$!
    wait_for 20 "strace to attach" is_traced "$pid" || fail "$(cat "$work/strace")"
}

detach() {
    kill "$tracer" 2>/dev/null || true
    wait "$tracer" 2>/dev/null || true
    tracer=
}

# write_for SECONDS: in the background; what was acknowledged is in the ledger.
round=0
write_for() {
    round=$((round + 1))
    "$LEDGER" write "$FLOTILLA_CONFIG" "$work/ledger" "$round" "$1" "$clients" >"$work/written" &
    writer=$!
}

# judge WHAT BEGAN: everything that was ever acknowledged is there.
judge() {
    local compared
    wait "$writer" || fail "the writer failed"
    compared=$("$LEDGER" verify "$FLOTILLA_CONFIG" "$work/ledger") || fail "$compared"
    echo "$1; $(cat "$work/written"); $compared; $((SECONDS - $2)) s"
}

# inject CALL ERROR WHEN VICTIM [PATH...]: the node ends, and says why; the cluster goes on.
inject() {
    local call=$1 error=$2 when=$3 victim=$4 began=$SECONDS
    local log=$work/cluster/node-$victim/log trace=$work/trace
    : >"$log"
    attach "$victim" "$trace" "$call" "$error" "$when" "${@:5}"
    write_for 6
    wait_for 60 "node $victim to end" test -e "$work/cluster/node-$victim/exit" ||
        fail "node $victim goes on after $error from $call"
    local code words again
    code=$(wait_node "$victim")
    words=$(grep '^flotilla: ' "$log" | tail -n 1)
    [ "$code" = 70 ] || fail "node $victim ended with $code after $error from $call"
    case $error-$words in
        EIO-*"nput/output error"* | ENOSPC-*"is full"* | ENOSPC-*"o space left"*) ;;
        *) fail "after $error from $call it says: $words" ;;
    esac
    detach
    # RocksDB syncs what it has when it is refused room; nothing was failed to be synced before.
    again=
    [ "$error" = ENOSPC ] || again=$(touched_again "$trace")
    [ -z "$again" ] || fail "after $error from $call: $again"
    # The other two go on without it: writes that begin now are acknowledged.
    "$FLOTILLA" put "after/$round" yes >/dev/null || fail "the others do not go on"
    "$FLOTILLA" check "$work/cluster/node-$victim" >"$work/checked" || fail "$(cat "$work/checked")"
    start_node "$victim"
    wait_for 60 "node $victim to catch up" is_caught_up "$victim" || fail "it does not catch up"
    judge "$error from $call, node $victim: exit 70, \"${words#flotilla: }\"" "$began"
}

# no_spare: the leader gets no room for its next segment. It refuses writes and stays alive, and
# goes on by itself when the error does not come any more.
no_spare() {
    local victim pid wal began=$SECONDS
    victim=$(leader)
    pid=$(pid_of "$victim")
    wal=$work/cluster/node-$victim/data/wal
    # When it is made: one that is there already is full of zeros, and has room for what it gets.
    attach "$victim" "$work/trace" openat ENOSPC 1+ "$wal/spare" "$wal/reserve.new"
    write_for 8
    wait_for 60 "a refusal" refuses "$victim" || fail "a leader without room does not refuse"
    grep -q INJECTED "$work/trace" || fail "nothing was injected"
    "$FLOTILLA" get after/1 >/dev/null || fail "a leader without room does not answer reads"
    detach
    wait_for 60 "writes to be taken" "$FLOTILLA" put after/spare yes || fail "it does not recover"
    is_same "$victim" "$pid" || fail "node $victim did not stay alive"
    judge "ENOSPC for a spare segment, leader $victim: alive, exit 5 for writes, recovered" "$began"
}

# no_snapshot CALL ERROR: no snapshot can be written. That costs the snapshot and nothing else: the
# node stays alive, keeps its log, leaves no litter, and writes one when the error does not come.
no_snapshot() {
    local victim pid at began=$SECONDS log said number files=()
    victim=$(leader)
    pid=$(pid_of "$victim")
    at=$work/cluster/node-$victim/data/snapshots
    log=$work/cluster/node-$victim/log
    : >"$log"
    for number in $(seq 0 2000); do files+=("$at/$number.tmp"); done
    attach "$victim" "$work/trace" "$1" "$2" 1+ "${files[@]}"
    write_for 8
    wait_for 60 "a failed snapshot" grep -q "no snapshot this time" "$log" || fail "none failed"
    said=$(grep -m 1 "no snapshot this time" "$log" | sed "s|$work/cluster/||; s/.*error=//")
    wait "$writer" || fail "the writer failed"
    "$FLOTILLA" put "after/$1" yes >/dev/null || fail "the cluster does not go on"
    wait_for 5 "the file to go" no_litter "$at" || fail "litter: $(ls "$at")"
    detach
    : >"$log"
    write_for 4
    wait_for 60 "a snapshot" grep -q "snapshot taken" "$log" || fail "no snapshot is taken later"
    is_same "$victim" "$pid" || fail "node $victim did not stay alive"
    judge "$2 from $1 of a snapshot, leader $victim: alive, \"$said\", one taken later" "$began"
}
no_litter() { ! ls "$1" | grep -q '\.tmp$'; }

# is_same ID PID: the node is the process that it was, and runs.
is_same() { [ "$(pid_of "$1")" = "$2" ] && kill -0 "$2"; }

# Somebody else takes what is free on the disk, also what the node has given back meanwhile. A log
# of files needs nothing: it has a reserve. RocksDB has none, neither for the log nor for the state,
# and asks the file system for 192 MiB.
fill_disk() {
    local left=0 free
    [ "$storage $state" = "file memory" ] || left=$((100 << 20))
    free=$(df --output=avail -B 1 "$work/small" | tail -n 1)
    [ "$free" -le "$left" ] ||
        head -c $((free - left)) /dev/zero >>"$work/small/ballast" 2>/dev/null || true
}
full_and() {
    fill_disk
    "$@"
}

# full_disk: a node whose disk gets full under load stays alive. As a leader it refuses writes with
# exit code 5 and answers reads; as a follower it disturbs nobody, and votes, and takes what is
# small; when there is space again it goes on by itself.
full_disk() {
    local victim other third pid began=$SECONDS
    victim=$(leader)
    other=$((victim % 3 + 1))
    third=$((other % 3 + 1))
    kill_node "$victim"
    mkdir "$work/small"
    if ! mount -t tmpfs -o size=1g none "$work/small" 2>/dev/null; then
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

    write_for 20
    wait_for 30 "node $victim to lead" "$FLOTILLA" transfer-leader "$victim" || fail "no transfer"
    wait_for 60 "a refusal" full_and refuses "$victim" || fail "a full leader does not refuse"
    "$FLOTILLA" get after/1 >/dev/null || fail "a full leader does not answer reads"
    rm "$work/small/ballast"
    wait_for 60 "writes to be taken" "$FLOTILLA" put full/leader yes || fail "it does not recover"
    is_same "$victim" "$pid" || fail "node $victim did not stay alive as a leader"
    judge "full disk, leader $victim: alive, exit 5 for writes, recovered" "$began"

    # Full again while it leads, so that it lacks nothing. Without the third node there is a majority
    # only with the full one: its vote makes the other one a leader, and its disk takes the entry
    # that the new term begins with; without that no read is answered.
    began=$SECONDS
    write_for 30
    wait_for 60 "a refusal" full_and refuses "$victim" || fail "a full leader does not refuse"
    kill_node "$third"
    wait_for 30 "node $other to lead" "$FLOTILLA" transfer-leader "$other" || fail "no transfer"
    wait_for 60 "a read" full_and "$FLOTILLA" get after/1 || fail "a majority with it is none"
    [ "$(leader)" = "$other" ] || fail "node $other does not lead"
    start_node "$third"
    local number
    for number in 1 2 3 4 5; do
        wait_for 60 "a write" full_and "$FLOTILLA" put "full/follower/$number" yes ||
            fail "the cluster does not go on without a full follower"
    done
    wait "$writer" || fail "the writer failed"
    is_short "$victim" || fail "the full node has room: nothing was shown"
    rm "$work/small/ballast"
    wait_for 60 "node $victim to catch up" is_caught_up "$victim" || fail "it does not catch up"
    is_same "$victim" "$pid" || fail "node $victim did not stay alive as a follower"
    judge "full disk, follower $victim: alive, voted, took what is small, caught up" "$began"
}

is_short() {
    "$FLOTILLA" status --json | python3 -c '
import json, sys
nodes = {node["id"]: node for node in json.load(sys.stdin)["nodes"]}
sys.exit(not nodes[int(sys.argv[1])]["short_of_room"])' "$1"
}

# refuses ID: a put ends with exit code 5 and names the node.
refuses() {
    local code=0 said
    said=$("$FLOTILLA" put full/refused yes 2>&1) || code=$?
    [ "$code" = 5 ] && [[ $said == *"node $1"* ]]
}

follower() { echo $(($(leader) % 3 + 1)); }

# files_of ID FORMAT: the log's files that there may be.
files_of() {
    local number
    for number in $(seq 0 2000); do printf "%s/cluster/node-%s/data/$2\n" "$work" "$1" "$number"; done
}

inject fdatasync EIO 20 "$(follower)"
inject fdatasync EIO 20 "$(leader)"
inject fdatasync EIO 1 "$(follower)"
if [ "$storage" = file ]; then
    format=wal/%020d.wal call=pwrite64
    # Of a directory, behind the name of a new segment.
    inject fsync EIO 1 "$(follower)"
    no_spare
else
    format=rocksdb/%06d.log call=write
fi
# Of the log itself, in the middle of appends: that is final, also where the disk is full.
for error in EIO ENOSPC; do
    victim=$(leader)
    mapfile -t files < <(files_of "$victim" "$format")
    inject "$call" "$error" 40 "$victim" "${files[@]}"
done
no_snapshot pwrite64 EIO
no_snapshot fdatasync EIO
no_snapshot pwrite64 ENOSPC
full_disk
echo "storage faults: storage $storage, state $state, 0 acknowledged writes lost, $SECONDS s"
