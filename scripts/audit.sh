#!/usr/bin/env bash
# Looks at what fzgw is built from: licences, sources and duplicates of the crates, known advisories of the crates
# and of the installed Python packages. Advisories need their databases; where one cannot be reached, it says so.
set -euox pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need cc
build_extension dev

export PATH="$PWD/build/tools/bin:$PATH"
if ! command -v cargo-deny >/dev/null; then
    cargo install cargo-deny --locked --root build/tools
fi
if [ ! -x build/tools/pip-audit/bin/pip-audit ]; then
    "$PYTHON" -m venv build/tools/pip-audit
    build/tools/pip-audit/bin/python -m pip install --quiet 'pip-audit>=2.7,<3'
fi

failed=()
unreached=()

cargo deny --workspace --locked check --hide-inclusion-graph bans licenses sources ||
    failed+=("cargo deny check bans licenses sources")

if cargo deny --workspace --locked fetch db; then
    cargo deny --workspace --locked check --disable-fetch advisories || failed+=("cargo deny check advisories")
else
    unreached+=("the advisories of the crates (cargo deny check advisories)")
fi

# pip-audit ends with 1 both for a finding and for a service that does not answer; only an answer makes a report.
report=build/pip-audit.json
rm -f "$report"
unset VIRTUAL_ENV
site_packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if ! build/tools/pip-audit/bin/pip-audit --path "$site_packages" --skip-editable --progress-spinner off \
    --format json --output "$report"; then
    if [ -s "$report" ]; then
        failed+=("pip-audit")
    else
        unreached+=("the advisories of the Python packages (pip-audit)")
    fi
fi

{ set +x; } 2>/dev/null
[ "${#unreached[@]}" = 0 ] || printf 'could not be reached: %s\n' "${unreached[@]}"
if [ "${#failed[@]}" -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
printf 'audit: nothing found in what was reached\n'
