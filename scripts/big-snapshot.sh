#!/usr/bin/env bash
# A snapshot of a few gigabytes in real processes: three nodes are filled, then a fourth one joins
# and gets everything as a snapshot, while 16 clients write. Prints how much memory both sides
# needed, how long it took, the longest commit meanwhile, and that nobody was elected.
#
#   scripts/big-snapshot.sh [MIB]          default: 2048 MiB of values
#   STORAGE=file STATE=memory PORT=7900 SECONDS_OF_LOAD=60 FLOTILLA=target/release/flotilla \
#       TMPDIR=/var/tmp scripts/big-snapshot.sh
#
# Needs python3, about 5 times as much memory as there are values, and 20 times as much disk.
# Exit code 0: the new node votes, has every key, and the term is the one of the beginning.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/nodes.sh

mib=${1:-2048}
load=${SECONDS_OF_LOAD:-60}
storage=${STORAGE:-file}
state=${STATE:-memory}
work=$(mktemp -d)
data=$work/data
port=${PORT:-7900}
sampler=
finish() {
    [ -z "$sampler" ] || kill "$sampler" 2>/dev/null || true
    stop_cluster
    rm -rf "$work"
}
trap finish EXIT
build_program "$storage" "$state"
start_cluster --storage "$storage" --state "$state"

status() {
    "$FLOTILLA" status --json |
        python3 -c "import json, sys; status = json.load(sys.stdin); print($1)"
}

# Values of 16 KiB, no two alike. Snapshots are written while they come in, too.
values=$((mib * 64))
python3 - "$values" >"$work/fill.ndjson" <<'PYTHON'
import sys
for number in range(int(sys.argv[1])):
    print('{"key":"big/%07d","value":"%s"}' % (number, ("%016d" % number) * 1024))
PYTHON
term=$(status 'status["term"]')
echo "filling with $values values of 16 KiB"
"$FLOTILLA" import "$work/fill.ndjson" | tail -n 1
rm "$work/fill.ndjson"
leader=$(status 'status["leader"]')
echo "node $leader leads, term $(status 'status["term"]'), state: $mib MiB of values"

# The high-water marks of all nodes, until it is killed.
python3 - "$data" "$work/memory" <<'PYTHON' &
import glob, json, os, sys, time
data, out = sys.argv[1:]
first, most = {}, {}
while True:
    for path in glob.glob(data + "/node-*/pid"):
        node = path.split("node-")[-1].split("/")[0]
        try:
            status = open("/proc/%s/status" % open(path).read().strip()).read()
        except OSError:
            continue
        lines = [line for line in status.splitlines() if line.startswith("VmRSS")]
        if lines:
            mib = int(lines[0].split()[1]) // 1024
            first.setdefault(node, mib)
            most[node] = max(most.get(node, 0), mib)
    with open(out + ".new", "w") as file:
        json.dump({"first": first, "most": most}, file)
    os.rename(out + ".new", out)
    time.sleep(0.1)
PYTHON
sampler=$!

"$FLOTILLA" bench --op put --clients 16 --value-bytes 4096 --keys 20000 --seconds "$load" --json \
    >"$work/bench.json" &
bench=$!
sleep 5
began=$(date +%s.%N)
"$FLOTILLA" member add 4 "127.0.0.1:$((port + 4))" >/dev/null
"$FLOTILLA" member promote 4 --wait >/dev/null
joined=$(date +%s.%N)
python3 -c "print('node 4 votes %.1f s after it was added' % ($joined - $began))"
wait "$bench"
kill "$sampler"
python3 - "$work" "$leader" <<'PYTHON'
import json, sys
work, leader = sys.argv[1:]
memory = json.load(open(work + "/memory"))
for node, most in sorted(memory["most"].items()):
    role = "leader, sends" if node == leader else "joins" if node == "4" else "follower"
    first = memory["first"][node]
    print("node %s (%s): resident memory %d MiB before, %d MiB at most" % (node, role, first, most))
bench = json.load(open(work + "/bench.json"))
print("writes meanwhile: %(ops_per_s).0f/s, p50 %(p50_us)d us, p99 %(p99_us)d us, "
      "longest %(max_us)d us, errors %(errors)d" % bench)
PYTHON
grep -hE 'snapshot (taken|sent|received)' "$data"/node-*/log | sort | sed 's/^/    /' || true

after=$(status 'status["term"]')
"$FLOTILLA" transfer-leader 4
keys=$("$FLOTILLA" scan big/ --keys-only | wc -l)
echo "term $term at the beginning, $after at the end; node 4 lists $keys of $values keys"
[ "$term" = "$after" ] && [ "$keys" = "$values" ]
