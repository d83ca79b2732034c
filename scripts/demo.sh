#!/usr/bin/env bash
# Builds fzgw in .venv and shows it at work: a gateway, two peers and a server in namespaces of their own.
# Arguments go to the demo: ./scripts/demo.sh --json
set -euox pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need cc nft
build_extension ""
exec .venv/bin/python -m fzgw demo "$@"
