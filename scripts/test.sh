#!/usr/bin/env bash
# Installs what the tests need, builds, runs cargo test and pytest, and closes with their counts.
# Arguments go to pytest: ./scripts/test.sh tests/e2e -k roaming
set -euox pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need_laboratory
mkdir -p build
rm -f build/test-counts build/pytest.xml
build_extension dev

if ! command -v go >/dev/null && [ ! -x build/bin/wireguard ]; then
    say "No Go toolchain to build wireguard-go with: the tests against it will be skipped."
elif ! wireguard_go; then
    say "wireguard-go could not be built: the tests against it will be skipped."
fi

cargo_status=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee build/cargo-test.log || cargo_status=$?
pytest_status=0
.venv/bin/python -m pytest --junitxml=build/pytest.xml "$@" || pytest_status=$?

{ set +x; } 2>/dev/null

# A runner that ends badly without a failed test (it did not compile, it was killed) is one failure.
read -r passed failed skipped < <(awk -v status="$cargo_status" '
    /^test result: / { passed += $4; failed += $6; skipped += $8 }
    END { print passed + 0, (status && !failed) ? 1 : failed + 0, skipped + 0 }' build/cargo-test.log)
printf 'cargo test: %d passed, %d failed, %d ignored\n' "$passed" "$failed" "$skipped"

read -r py_passed py_failed py_skipped < <(.venv/bin/python -c '
import sys
from pathlib import Path
from xml.etree import ElementTree

status, report = int(sys.argv[1]), Path("build/pytest.xml")
suites = list(ElementTree.parse(report).iter("testsuite")) if report.exists() else []
tests, failures, errors, skipped = (
    sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
)
failed = failures + errors
print(tests - failed - skipped, failed or int(status != 0), skipped)' "$pytest_status")
printf 'pytest: %d passed, %d failed, %d skipped\n' "$py_passed" "$py_failed" "$py_skipped"

printf '%d passed, %d failed, %d skipped\n' \
    $((passed + py_passed)) $((failed + py_failed)) $((skipped + py_skipped)) | tee build/test-counts
[ "$cargo_status" = 0 ] && [ "$pytest_status" = 0 ]
