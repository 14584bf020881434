# Nodes as processes of their own, for scripts that are hard on them; to be sourced. The caller has
# set `work` to a directory of its own and `port` to a base port.

nodes=(1 2 3)
declare -A process=()

# need KINDS...: the options of cargo that these kinds of storage and state need.
features=()
need() { case " $* " in *" rocksdb "*) features=(--features "flotilla/rocksdb") ;; esac; }

# build_program KINDS...: the program for these kinds, built where none is given.
build_program() {
    need "$@"
    if [ -z "${FLOTILLA:-}" ]; then
        cargo build --locked --release --package flotilla "${features[@]}"
        FLOTILLA=${CARGO_TARGET_DIR:-target}/release/flotilla
    fi
}

# build KINDS...: the program and the ledger.
build() {
    build_program "$@"
    local target=${CARGO_TARGET_DIR:-target}/release
    if [ -z "${LEDGER:-}" ]; then
        cargo build --locked --release --package flotilla --example ledger "${features[@]}"
        LEDGER=$target/examples/ledger
    fi
}

# start_cluster OPTIONS...: a whole cluster under one supervisor, in $work/data, until it is ready.
start_cluster() {
    export FLOTILLA_CONFIG=$work/data/client.toml FLOTILLA_ADMIN_CONFIG=$work/data/admin.toml
    "$FLOTILLA" cluster --dir "$work/data" --base-port "$port" "$@" >"$work/cluster.log" 2>&1 &
    cluster=$!
    if ! wait_for 60 "the cluster" grep -q '^ready' "$work/cluster.log"; then
        cat "$work/cluster.log"
        return 1
    fi
    grep '^ready' "$work/cluster.log"
}

stop_cluster() {
    [ -z "${cluster:-}" ] || { kill -INT "$cluster" 2>/dev/null && wait "$cluster"; } || true
}

# make_cluster STORAGE STATE: directories of three nodes on this machine.
make_cluster() {
    local addresses=()
    for id in "${nodes[@]}"; do addresses+=("127.0.0.1:$((port + id))"); done
    "$FLOTILLA" init "$work/cluster" --storage "$1" --state "$2" \
        --nodes "$(IFS=,; echo "${addresses[*]}")" >/dev/null
    export FLOTILLA_CONFIG=$work/cluster/client.toml
    export FLOTILLA_ADMIN_CONFIG=$work/cluster/admin.toml
}

# start_node ID: in the background; what it says goes to its log, its exit code to `exit`.
start_node() {
    local at=$work/cluster/node-$1
    rm -f "$at/exit"
    (
        "$FLOTILLA" serve --config "$at/node.toml" >/dev/null 2>>"$at/log" &
        echo $! >"$at/pid"
        wait $! && echo 0 >"$at/exit" || echo $? >"$at/exit"
    ) 2>/dev/null &
    process[$1]=$!
}

pid_of() { cat "$work/cluster/node-$1/pid" 2>/dev/null || true; }

# wait_node ID: until it has ended; prints its exit code.
wait_node() {
    wait "${process[$1]}" 2>/dev/null || true
    cat "$work/cluster/node-$1/exit"
}

# kill_node ID: SIGKILL, and waits until it is gone.
kill_node() {
    local pid
    pid=$(pid_of "$1")
    [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
    [ -z "${process[$1]:-}" ] || wait "${process[$1]}" 2>/dev/null || true
}

kill_nodes() { for id in "${nodes[@]}"; do kill_node "$id"; done; }

# The last words of every node, for whoever looks for the reason of a failure.
show_logs() {
    for id in "${nodes[@]}"; do
        echo "-- the log of node $id ends with"
        tail -n 15 "$work/cluster/node-$id/log" || true
    done
}

leader() {
    "$FLOTILLA" status --json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["leader"] or 0)'
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $until ]; then
            echo "waited too long: $what" >&2
            return 1
        fi
        sleep 0.1
    done
}

has_leader() { [ "$(leader)" != 0 ]; }

# is_caught_up ID: it has applied what the leader has committed.
is_caught_up() {
    "$FLOTILLA" status --json | python3 -c '
import json, sys
status = json.load(sys.stdin)
nodes = {node["id"]: node for node in status["nodes"]}
own, leader = nodes[int(sys.argv[1])], nodes[status["leader"]]
sys.exit(not (own["reachable"] and own["applied"] == leader["applied"]))' "$1"
}
