#!/usr/bin/env bash
# Compares the gateway with wireguard-go and boringtun-cli, which it builds, and with itself without TUN offload and
# without flow logs. As root; about half an hour, on a machine with nothing else to do.
#   ./scripts/bench-gateway.sh [ROUNDS] [--profile]    3 rounds unless given
# Rounds of the comparison harness, then the same on an underlay without UDP segmentation, then ping under load, then
# flow logs switched on and off in one process. The report, with every goal and whether it was reached, goes to stdout
# and as Markdown to build/bench-gateway.txt; what was measured is in build/bench-gateway. --profile draws flame graphs
# of fzgw during one stream each way: build/bench-gateway-up.svg, build/bench-gateway-down.svg.
# FZGW_SHARED: the folder with bench/wg, ../shared unless given. FZGW_PYTHON: an interpreter that has fzgw, in place of
# .venv, which is built otherwise. FZGW_BENCH_BIN: the folder that the peers are built into where they are not there yet.
# For a trial: FZGW_BENCH_SECS (seconds of a test of one stream: 8) and FZGW_BENCH_SHORT (of any other: 5),
# FZGW_BENCH_WINDOWS (with flow logs and without: 20) and FZGW_BENCH_WINDOW (seconds of each: 2).
set -euox pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# refuse TEXT: why this cannot run.
refuse() {
    say "bench-gateway.sh: $1"
    exit 2
}

usage="usage: ./scripts/bench-gateway.sh [ROUNDS] [--profile]"

rounds=
profile=
for argument in "$@"; do
    case $argument in
    --profile) profile=1 ;;
    -*) refuse "unknown option $argument; $usage" ;;
    [1-9] | [1-9][0-9])
        [ -z "$rounds" ] || refuse "the number of rounds twice: $rounds and $argument; $usage"
        rounds=$argument
        ;;
    *) refuse "ROUNDS is a number from 1 to 99, not \"$argument\"; $usage" ;;
    esac
done
rounds=${rounds:-3}
secs=${FZGW_BENCH_SECS:-8}
short=${FZGW_BENCH_SHORT:-5}
windows=${FZGW_BENCH_WINDOWS:-20}
window=${FZGW_BENCH_WINDOW:-2}
for name in secs short windows window; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || refuse "FZGW_BENCH_${name^^} is a whole number from 1, not \"${!name}\""
done
((windows % 4 == 0)) || refuse "FZGW_BENCH_WINDOWS is a multiple of 4, not $windows"
[ "$(id -u)" = 0 ] || refuse "network namespaces and TUN devices need root"

harness=$(realpath --canonicalize-missing "${FZGW_SHARED:-../shared}/bench/wg")
[ -e "$harness/compare.py" ] || refuse "no harness in $harness: set FZGW_SHARED to the folder that has bench/wg"

folder=$PWD/build/bench-gateway
bin=$(realpath --canonicalize-missing "${FZGW_BENCH_BIN:-$folder/bin}")
mkdir -p "$folder" "$bin"
export PATH="$PWD/build/tools/bin:$PATH"

# First what is needed, then the same script again in a mount namespace of its own.
if [ -z "${FZGW_BENCH_APART:-}" ]; then
    need cc ethtool ip iperf3 ping sysctl wg ${profile:+perf}
    command -v go >/dev/null || refuse "Go is missing, which wireguard-go is built with: https://go.dev/dl/"
    if [ -z "${FZGW_PYTHON:-}" ]; then
        build_extension ""
        export FZGW_PYTHON=$PWD/.venv/bin/python
    fi
    "$harness/prepare.sh" "$bin"
    if [ -n "$profile" ] && ! command -v inferno-flamegraph >/dev/null; then
        cargo install inferno --locked --root build/tools
    fi
    # WireGuard's control sockets are found by the interface's name, and the harness has the same names always: two
    # runs at once would configure each other's gateways. Names of namespaces that a killed run leaves go with it too.
    mkdir -p /var/run/netns /var/run/wireguard
    export FZGW_BENCH_APART=1
    exec unshare --mount scripts/bench-gateway.sh "$rounds" ${profile:+--profile}
fi
mount -t tmpfs tmpfs /var/run/netns
mount -t tmpfs tmpfs /var/run/wireguard

export P=fzb$$
work=$folder/run-$$
child=
buffers=$(sysctl net.core.rmem_max net.core.wmem_max)

# Ends what was started, by its own ids, and removes the namespaces: whichever way the script is left.
cleanup() {
    local status=$? pids
    { set +x; } 2>/dev/null
    trap - EXIT
    trap '' HUP INT TERM
    set +e
    if [ -n "$child" ]; then
        kill -TERM -- "-$child" 2>/dev/null
        for _ in $(seq 150); do
            [ -n "$(jobs -rp)" ] || break
            sleep 0.1
        done
        kill -KILL -- "-$child" 2>/dev/null
        wait "$child" 2>/dev/null
    fi
    # Gateways have sessions of their own. Whatever lives in these namespaces came from here.
    for signal in TERM KILL; do
        mapfile -t pids < <(for name in c g s; do ip netns pids "$P-$name" 2>/dev/null; done)
        [ "${#pids[@]}" -gt 0 ] || break
        kill -"$signal" "${pids[@]}" 2>/dev/null
        sleep 0.5
    done
    "$harness/topo-down.sh"
    # The harness raises these for the whole machine.
    sysctl --quiet --load - <<<"$buffers"
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# apart COMMAND...: runs it in a process group of its own, which `cleanup` ends: waited for by `wait`, which a signal
# interrupts, where a command in the foreground would hold the signal up until its end.
apart() {
    local status=0
    setsid "$@" &
    child=$!
    wait "$child" || status=$?
    child=
    return "$status"
}

mkdir -m 700 "$work"
# What passes through temporary files is removed with everything else; the lock stays the one of all runs.
ln -s "$("$FZGW_PYTHON" -c 'import tempfile; print(tempfile.gettempdir())')/bench.lock" "$work/bench.lock"
export TMPDIR=$work BENCH_DIR=$work
rm -f "$folder"/*.jsonl

# The goals are for access rules and flow logs on; without NAT, which none of the peers has.
export FZGW_BENCH_RULES=1 FZGW_BENCH_NAT=none
start='benches/gateway/start.sh {ifname}'
setup=benches/gateway/setup.sh
gateways=(
    'wireguard-go=wireguard -f {ifname}'
    'boringtun-cli=boringtun-cli -f -t 1 --disable-drop-privileges {ifname}'
    "fzgw-plain=$start --set gateway.tun_offload=off@$setup"
    "fzgw=$start@$setup"
)
compare=("$FZGW_PYTHON" "$harness/compare.py" --bin "$bin" --rounds "$rounds" --secs "$secs" --short "$short")
laboratory=(--harness "$harness" --bin "$bin")

apart "${compare[@]}" --tests up,down,churn,udp_up,udp_down,up4,down4 --raw "$folder/gateways.jsonl" "${gateways[@]}"
apart env NICLIKE=1 "${compare[@]}" --tests up,down --raw "$folder/niclike.jsonl" "${gateways[@]}"
# Where a gateway or a switch fails, the report says what is missing.
apart "$FZGW_PYTHON" benches/gateway/ping.py "${laboratory[@]}" --rounds "$rounds" --secs "$secs" \
    --raw "$folder/ping.jsonl" "${gateways[@]}" || true
toggle=("$FZGW_PYTHON" benches/gateway/toggle.py "${laboratory[@]}" --windows "$windows" --secs "$window")
apart "${toggle[@]}" --raw "$folder/toggle.jsonl" --traffic up,down,churn || true
apart "${toggle[@]}" --raw "$folder/toggle.jsonl" --traffic up,down --rules || true
if [ -n "$profile" ]; then
    apart "$FZGW_PYTHON" benches/gateway/flames.py "${laboratory[@]}" --secs "$secs" --output build
fi

"$FZGW_PYTHON" benches/gateway/report.py --bin "$bin" "$folder" | tee build/bench-gateway.txt
