#!/usr/bin/env bash
# Compares the flow engine with softflowd, nfpcapd and argus on generated captures, and with the generator's truth.
# bench-flows.sh [ROUNDS]: the table goes to stdout and to build/bench-flows.txt; 3 rounds unless given. The captures
# (1.6 GB, in build/flows) are made once. FZGW_SHARED: the folder with bench/flows, ../shared unless given.
set -euox pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${1:-3}
harness=${FZGW_SHARED:-../shared}/bench/flows
if [ ! -e "$harness/compare.py" ]; then
    say "No harness in $harness: set FZGW_SHARED to the folder that has bench/flows."
    exit 1
fi
need softflowd nfpcapd argus
build_extension ""

folder=build/flows
mkdir -p "$folder"
[ -x "$folder/gen" ] || rustc -O "$harness/gen.rs" -o "$folder/gen"
for profile in A B C; do
    if [ ! -e "$folder/$profile.csv" ]; then
        "$folder/gen" "$profile" "$folder/$profile.pcap" "$folder/$profile.part"
        mv "$folder/$profile.part" "$folder/$profile.csv"
    fi
done

python=$PWD/.venv/bin/python
replay="$python -m fzgw replay {pcap} --output {out}"
handler="$replay --handler $PWD/benches/flows/handler.py:SixFields"
compare() {
    "$python" "$harness/compare.py" --rounds "$rounds" "$@"
}

{
    printf 'A: 10 M packets of 100,000 flows, heavy-tailed\n'
    compare --peers softflowd,nfpcapd,argus "$folder/A.pcap" "fzgw=$replay"
    printf '\nB: scans and short flows, 1 M flows\n'
    compare "$folder/B.pcap" "fzgw=$replay" "handler=$handler" "zeek-format=$replay --format zeek"
    printf '\nC: SYN flood, 2 M sources, all of them live at once\n'
    compare "$folder/C.pcap" "fzgw=$replay --set flow_logs.max_flows=4000000"
    printf '\nagainst the truth\n'
    for profile in A B C; do
        "$python" benches/flows/truth.py "$folder/$profile.pcap" "$folder/$profile.csv"
    done
} | tee build/bench-flows.txt
