#!/usr/bin/env bash
# Fuzzes the engine with libFuzzer: fuzz.sh [SECONDS [TARGET...]]. All targets share ten minutes unless told otherwise.
# Works on stable Rust: only the sanitizers need another. They watch over unsafe code, of which the targets reach none of
# fzgw's own; over that of the crates below, the build's debug assertions do.
# New inputs gather in build/fuzz/corpus, what broke a target in build/fuzz/artifacts; fails if anything did.
#
# Mutated packets by the hundred million, without coverage (arguments: packets, seed):
#   cargo run --profile hammer -p fzgw-fuzz --bin hammer -- 100000000 1
set -euox pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

seconds=${1:-600}
shift || true
need cc c++

export PATH="$PWD/build/tools/bin:$PATH"
if ! command -v cargo-fuzz >/dev/null; then
    cargo install cargo-fuzz --locked --root build/tools
fi

fuzz_dir=rust/fzgw-fuzz/fuzz
folder=build/fuzz
targets=("$@")
if [ "${#targets[@]}" = 0 ]; then
    mapfile -t targets < <(cargo fuzz list --fuzz-dir "$fuzz_dir")
fi
mkdir -p "$folder"
# Each run of a target frees a table of megabytes: kept, not given back to the system to be paged in again.
export MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456
cargo fuzz build --fuzz-dir "$fuzz_dir" --sanitizer none --target-dir "$folder/target"
programs=$folder/target/$(rustc -vV | sed -n 's/^host: //p')/release

{ set +x; } 2>/dev/null
share=$((seconds / ${#targets[@]}))
summary=()
broken=()
for target in "${targets[@]}"; do
    corpus=$folder/corpus/$target
    artifacts=$folder/artifacts/$target
    log=$folder/$target.log
    mkdir -p "$corpus" "$artifacts"
    say "$target: $share s, log in $log"
    # The first folder takes what is new; the second is only read. A target's slowest input takes milliseconds: what two
    # minutes of a busy machine are too short for does not end.
    if ! "$programs/$target" -max_total_time="$share" -timeout=120 -max_len=4096 -print_final_stats=1 \
        -artifact_prefix="$artifacts/" "$corpus" "rust/fzgw-fuzz/corpus/$target" 2>"$log"; then
        broken+=("$target")
        # What was broken, and the file that libFuzzer wrote.
        grep -E -A 3 '^thread .* panicked|^ALARM|ERROR: libFuzzer' "$log" >&2 || tail -n 20 "$log" >&2
        found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        say "again: $programs/$target $found"
        say "once it is mended: cp $found rust/fzgw-fuzz/corpus/$target/WHAT-IT-IS"
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    summary+=("$(printf '%-10s %12s executions in %d s' "$target" "${executions:-no}" "$share")")
done

printf '%s\n' "${summary[@]}"
if [ "${#broken[@]}" -gt 0 ]; then
    printf 'broken: %s\n' "${broken[*]}"
    exit 1
fi
