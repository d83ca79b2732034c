#!/usr/bin/env bash
# Writes the configuration that start.sh waits for, from IFNAME, GW_PRIV and CLIENT_PUB, and waits for the interface.
# No NAT, as the gateways that fzgw is measured against; FZGW_BENCH_RULES=1 adds an access rule, FZGW_BENCH_NAT sets
# another nat.mode.
set -euo pipefail
place=${BENCH_DIR:-${TMPDIR:-/tmp}}
folder=$place/fzgw-bench-$IFNAME
staging=$(mktemp -d -p "$place")
umask 077
echo "$GW_PRIV" >"$staging/gateway.key"
cat >"$staging/gateway.toml" <<EOF
[gateway]
name = "bench"
private_key_file = "gateway.key"
listen = 51820
interface = "$IFNAME"
addresses = ["10.77.9.1/24"]
mtu = 1420
state_dir = "state"

[nat]
mode = "${FZGW_BENCH_NAT:-none}"

[[peers]]
name = "client"
public_key = "$CLIENT_PUB"
allowed_ips = ["10.77.9.2/32"]
EOF
if [[ -n "${FZGW_BENCH_RULES:-}" ]]; then
    cat >>"$staging/gateway.toml" <<EOF

[[resources]]
name = "server"
addresses = ["10.77.2.0/24"]

[[rules]]
name = "client-server"
peers = ["client"]
resources = ["server"]
EOF
fi
rm -rf "$folder"
mv "$staging" "$folder"
namespace=${P:-wgb}-g
for _ in $(seq 200); do
    ip -n "$namespace" -brief address show dev "$IFNAME" 2>/dev/null | grep -q 10.77.9.1 && exit 0
    sleep 0.05
done
echo "fzgw did not come up" >&2
exit 1
