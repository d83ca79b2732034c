#!/usr/bin/env bash
# Changes the flow engine in one place after another and looks whether its tests notice (cargo-mutants): two hours and more.
#   ./scripts/mutants.sh [FILE...]    names in rust/fzgw-core/src/flow, without .rs; all of them unless given
# What nobody could notice is left out in .cargo/mutants.toml, with its reasons. The list goes to stdout, and with all
# details to build/mutants; the exit code is 2 where a mutant survived.
set -euox pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need cc
command -v cargo-mutants >/dev/null || cargo install cargo-mutants --locked --root build/tools
export PATH="$PWD/build/tools/bin:$PATH"

files=()
for name in "${@:-*}"; do
    files+=(--file "rust/fzgw-core/src/flow/$name.rs")
done
# A mutant may loop for ever: the tests take 3 to 8 seconds.
export CARGO_INCREMENTAL=1 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
cargo mutants --package fzgw-core "${files[@]}" --output build/mutants --timeout 40 --build-timeout 600 \
    --colors never --cargo-arg=--lib -- flow::
