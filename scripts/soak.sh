#!/usr/bin/env bash
# Thin traffic through fzgw for many minutes, across rekeys from both ends, against nine wireguard-go clients. As root.
# Prints a table and fails on a gap above a second, "stopped hearing back" in wireguard-go's log, or a handshake too many.
#   ./scripts/soak.sh [SECONDS]    660 by default, or $FZGW_SOAK_SECONDS
#   FZGW_SOAK_GATEWAY=wireguard-go ./scripts/soak.sh 150    wireguard-go in fzgw's place: what the laboratory itself does
set -euox pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need_laboratory
build_extension dev
[ -n "${FZGW_WIREGUARD_GO:-}" ] || wireguard_go

export PYTHONPATH=tests
exec .venv/bin/python -m e2e.soak \
    --seconds "${1:-${FZGW_SOAK_SECONDS:-660}}" --gateway "${FZGW_SOAK_GATEWAY:-fzgw}"
