#!/usr/bin/env bash
# Builds the wheel into build/wheels, installs it in a clean environment outside the checkout, and runs its demo there.
set -euox pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need cc nft
build_extension dev

rm -rf build/wheels
.venv/bin/python -m maturin build --release --locked --interpreter "$PYO3_PYTHON" --out build/wheels
wheel=$(realpath build/wheels/*.whl)

elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
"$PYTHON" -m venv "$elsewhere/venv"
unset VIRTUAL_ENV PYTHONPATH
"$elsewhere/venv/bin/python" -m pip install --quiet "$wheel"
cd "$elsewhere"
venv/bin/fzgw --version
venv/bin/python -m fzgw demo
