#!/usr/bin/env bash
# Starts fzgw as a gateway to be measured: start.sh INTERFACE, in the foreground, once setup.sh has written its
# configuration. Records go to stdout. FZGW_PYTHON names the interpreter (default: the project's .venv).
set -euxo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${TMPDIR:-/tmp}/fzgw-bench-$1
for _ in $(seq 600); do
    [[ -e "$folder/gateway.toml" ]] && break
    sleep 0.05
done
mv "$folder" "$folder-$$"
exec "${FZGW_PYTHON:-$root/.venv/bin/python}" -m fzgw run "$folder-$$/gateway.toml" --flow-logs
