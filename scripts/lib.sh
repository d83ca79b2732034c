#!/usr/bin/env bash
# Sourced by the other scripts: finds or installs what a script needs, makes the virtual environment,
# builds the extension. Leaves the caller in the root of the checkout.
set -euox pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# nft, tcpdump and the like live in sbin, which an ordinary user's PATH may lack; a Rust toolchain that was just
# installed is on nobody's PATH yet.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

# say TEXT...: one line to the person at the terminal, without a trace of how it was printed.
say() {
    local -
    { set +x; } 2>/dev/null
    printf '%s\n' "$*" >&2
}

# find_python: prints the first interpreter that is new enough; $PYTHON goes first.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.15 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# rust_wanted: prints the oldest Rust that compiles the workspace.
rust_wanted() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml
}

# rust_is_new_enough: whether cargo is there and not older than the workspace asks for.
rust_is_new_enough() {
    local have
    have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || return 1
    printf '%s\n' "$(rust_wanted)" "$have" | sort --version-sort --check=quiet
}

# need COMMAND...: sees to it that Python, Rust and these commands are there. As root on Debian what is missing
# is installed in one go; elsewhere every missing thing is named with what installs it, and the script ends.
need() {
    local -
    { set +x; } 2>/dev/null
    # The command a script asks for, then the package that brings it on Debian, Fedora and Arch.
    local packages="
cc          build-essential   gcc              gcc
c++         build-essential   gcc-c++          gcc
ping        iputils-ping      iputils          iputils
ip          iproute2          iproute          iproute2
nft         nftables          nftables         nftables
sysctl      procps            procps-ng        procps-ng
wg          wireguard-tools   wireguard-tools  wireguard-tools
iperf3      iperf3            iperf3           iperf3
dig         dnsutils          bind-utils       bind
dnsmasq     dnsmasq-base      dnsmasq          dnsmasq
tcpdump     tcpdump           tcpdump          tcpdump
tshark      tshark            wireshark-cli    wireshark-cli
ethtool     ethtool           ethtool          ethtool
shellcheck  shellcheck        ShellCheck       shellcheck
shfmt       shfmt             shfmt            shfmt
softflowd   softflowd         softflowd        softflowd
nfpcapd     nfdump            nfdump           nfdump
argus       argus-server      argus            argus
perf        linux-perf        perf             perf"
    local family column install command wanted=() missing=() howto=()
    if command -v apt-get >/dev/null; then
        family=debian column=2 install="apt-get install --yes --no-install-recommends"
    elif command -v dnf >/dev/null; then
        family=fedora column=3 install="dnf install"
    elif command -v pacman >/dev/null; then
        family=arch column=4 install="pacman -S"
    else
        family=other column=2 install="# with your package manager (these are Debian's names):"
    fi

    for command in "$@"; do
        if ! command -v "$command" >/dev/null; then
            wanted+=("$(awk -v c="$command" -v n="$column" '$1 == c { print $n }' <<<"$packages")")
        fi
    done
    if ! PYTHON=$(find_python); then
        missing+=("Python 3.11 or newer")
        howto+=("# Python from your distribution or https://www.python.org/downloads/, then: PYTHON=python3.x $0")
    elif ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        wanted+=("$("$PYTHON" -c 'import sys; print(f"python3.{sys.version_info[1]}-venv")')")
    fi
    if ! command -v cargo >/dev/null; then
        missing+=("Rust $(rust_wanted) or newer")
        howto+=("curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh")
    elif ! rust_is_new_enough; then
        missing+=("Rust $(rust_wanted) or newer (here: $(cargo --version))")
        howto+=("rustup update stable")
    fi

    if [ "${#wanted[@]}" -gt 0 ]; then
        if [ "$family" = debian ] && [ "$(id -u)" = 0 ]; then
            say "Installing: ${wanted[*]}"
            export DEBIAN_FRONTEND=noninteractive
            apt-get update --quiet
            $install --quiet "${wanted[@]}"
        else
            [ "$family" = other ] || install="sudo $install"
            missing+=("${wanted[@]/#/package }")
            howto+=("$install ${wanted[*]}")
        fi
    fi
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "Missing:"
    printf '  %s\n' "${missing[@]}" >&2
    say "Install with:"
    printf '  %s\n' "${howto[@]}" >&2
    exit 1
}

# need_laboratory: `need` for what the end-to-end tests use.
need_laboratory() {
    need cc dig dnsmasq ethtool ip iperf3 nft ping sysctl tcpdump tshark wg
}

# wireguard_go: builds the client of the end-to-end tests into build/bin, once.
wireguard_go() {
    [ -x build/bin/wireguard ] || GOBIN=$PWD/build/bin go install golang.zx2c4.com/wireguard@latest
}

# build_extension EXTRAS: .venv with fzgw in it, editable, and its extension built in release. Dependencies are
# installed again only when pyproject.toml, the interpreter or the place of the checkout is another.
build_extension() {
    local extras=$1 state stamp
    state=$({ pwd && "$PYTHON" --version && cat pyproject.toml; } | sha256sum)
    stamp=.venv/installed${extras:+-$extras}
    export VIRTUAL_ENV=$PWD/.venv
    # Another interpreter than .venv's would have PyO3 compiled again at every change of command.
    export PYO3_PYTHON=$VIRTUAL_ENV/bin/python
    if [ -x "$PYO3_PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$state" ]; then
        "$PYO3_PYTHON" -m maturin develop --release --locked --skip-install
        return
    fi
    "$PYTHON" -m venv .venv
    mapfile -t build_requires < <("$PYTHON" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\n")')
    "$PYO3_PYTHON" -m pip install --quiet "${build_requires[@]}"
    "$PYO3_PYTHON" -m maturin develop --release --locked ${extras:+--extras "$extras"}
    printf '%s\n' "$state" >"$stamp"
}
