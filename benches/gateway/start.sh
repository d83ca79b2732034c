#!/usr/bin/env bash
# Starts fzgw as a gateway to be measured: start.sh INTERFACE [ARGUMENTS of fzgw run], in the foreground, once setup.sh
# has written its configuration. Records go to stdout. FZGW_PYTHON names the interpreter (default: the project's .venv),
# BENCH_DIR the folder that the configuration comes by (default: that of temporary files).
set -euxo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${BENCH_DIR:-${TMPDIR:-/tmp}}/fzgw-bench-$1
shift
for _ in $(seq 600); do
    [[ -e "$folder/gateway.toml" ]] && break
    sleep 0.05
done
mv "$folder" "$folder-$$"
exec "${FZGW_PYTHON:-$root/.venv/bin/python}" -m fzgw run "$folder-$$/gateway.toml" --flow-logs "$@"
