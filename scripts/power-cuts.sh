#!/usr/bin/env bash
# Real power cuts: three nodes, each with its data on an ext4 image of its own. Under load the file
# systems of one, two or all three are shut down by the kernel in the middle of what they do, without
# writing anything out (EXT4_IOC_SHUTDOWN, NOLOGFLUSH), as if the power had gone. Each node is killed
# in the moment before its cut. The images are mounted again, which recovers ext4's own journal,
# checked with `flotilla check`, and the nodes started. Then everything that was ever acknowledged
# must be there.
#
# Killed before, because a process that lives on is told lies: in a file that grows, fdatasync may
# report success after the shutdown though nothing was written. No power cut does that; the process
# is gone with the power. Whoever is killed returns from no call any more, so it acknowledges
# nothing behind the cut.
#
#   scripts/power-cuts.sh
#   ROUNDS=20 STORAGE=file|rocksdb STATE=memory|rocksdb CLIENTS=64 PORT=7900 scripts/power-cuts.sh
#
# FLOTILLA and LEDGER name programs that are built already (the latter is an example of the package flotilla).
# Exit code 0: nothing was lost, or this machine does not allow it, which a line `skipped:` says.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/nodes.sh

rounds=${ROUNDS:-20}
storage=${STORAGE:-file}
state=${STATE:-memory}
clients=${CLIENTS:-64}
port=${PORT:-7900}
image_bytes=${IMAGE_BYTES:-$((1 << 30))}

work=$(mktemp -d)
finish() {
    kill_nodes
    for id in "${nodes[@]}"; do umount "$work/disk-$id" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT

skipped() {
    echo "skipped: $1"
    exit 0
}

mount_disk() { mount -o loop "$work/image-$1" "$work/disk-$1"; }

# What the cut is: the node's process, where there is one, has no next instruction, and from here on
# nothing reaches the image any more.
cut_disk() {
    python3 - "$work/disk-$1" "$(pid_of "$1")" <<'PYTHON'
import fcntl, os, signal, struct, sys
EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2
directory = os.open(sys.argv[1], os.O_RDONLY)
if sys.argv[2]:
    os.kill(int(sys.argv[2]), signal.SIGKILL)
fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
PYTHON
}

[ "$(uname)" = Linux ] || skipped "only Linux can shut a file system down"
[ "$(id -u)" = 0 ] || skipped "only root may mount"
for tool in mkfs.ext4 python3 mount; do
    command -v "$tool" >/dev/null || skipped "$tool is not installed"
done
for id in "${nodes[@]}"; do
    truncate -s "$image_bytes" "$work/image-$id"
    mkfs.ext4 -q -F "$work/image-$id"
    mkdir "$work/disk-$id"
    mount_disk "$id" 2>/dev/null || skipped "this machine has no loop devices"
done
cut_disk 1 2>/dev/null || skipped "this kernel does not shut ext4 down"
umount "$work/disk-1"
mount_disk 1

build "$storage" "$state"
make_cluster "$storage" "$state"
for id in "${nodes[@]}"; do
    node=$work/cluster/node-$id
    mv "$node/data" "$work/disk-$id/data"
    ln -s "$work/disk-$id/data" "$node/data"
    # Small, so that segments, snapshots and transfers of snapshots happen in every round.
    cat >>"$node/node.toml" <<'TOML'

[log]
segment_bytes = 1048576

[snapshots]
log_bytes = 4194304
kept_bytes_max = 1048576
TOML
done
sync

fail() {
    echo "FAILED: $1"
    show_logs
    exit 1
}

torn=0
began=$SECONDS
for id in "${nodes[@]}"; do start_node "$id"; done
for round in $(seq "$rounds"); do
    wait_for 60 "a leader" has_leader || fail "no leader in round $round"
    "$LEDGER" write "$FLOTILLA_CONFIG" "$work/ledger" "$round" 4 "$clients" >"$work/written" &
    writer=$!
    # While it writes, at any moment.
    sleep "$(python3 -c 'import random; print(random.uniform(0.5, 3))')"
    case $((round % 3)) in
        0) victims=(1 2 3) ;;
        1) victims=("$((RANDOM % 3 + 1))") ;;
        2) victims=($(shuf -n 2 -e 1 2 3)) ;;
    esac
    for id in "${victims[@]}"; do cut_disk "$id"; done
    wait "$writer" || fail "the writer of round $round failed"
    for id in "${victims[@]}"; do
        kill_node "$id"
        umount "$work/disk-$id"
        mount_disk "$id"
        found=$("$FLOTILLA" check "$work/cluster/node-$id") || fail "$found"
        case $found in *"torn tail"*) torn=$((torn + 1)) ;; esac
        start_node "$id"
    done
    compared=$("$LEDGER" verify "$FLOTILLA_CONFIG" "$work/ledger") || fail "$compared"
    echo "round $round: cut ${victims[*]}; $(cat "$work/written"); $compared"
done
for id in "${nodes[@]}"; do
    wait_for 120 "node $id to catch up" is_caught_up "$id" || fail "node $id does not catch up"
done
echo "power cuts: storage $storage, state $state, $rounds rounds, $torn torn tails, 0 acknowledged writes lost," \
    "$((SECONDS - began)) s"
