"""Masquerading: one nftables table of the gateway's own, put in place and taken away by the `nft` command.

Only packets that came out of the tunnel with a tunnel source and leave by another interface are translated: not the
host's own, not those from one peer to another, not those that other interfaces forward through this host.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from typing import Final

from fzgw.host.errors import NFT_FIX, NFT_MISSING, HostError, PrivilegeError
from fzgw.host.plan import HostPlan

NFT_TIMEOUT: Final = 30.0
"""Seconds that one run of `nft` may take; it takes milliseconds unless a foreign rule set is enormous."""

# Where Debian and others keep nft, which is not on an ordinary user's path.
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# Before Linux 5.7 the postrouting hook did not know the incoming interface: a rule that asked for it never matched.
_POSTROUTING_KNOWS_INPUT: Final = (5, 7)


def table_name(interface: str) -> str:
    """The name of the gateway's table, in the family `inet`."""
    return f"fzgw-{interface}"


def ruleset(plan: HostPlan, *, kernel: tuple[int, int] | None = None) -> str | None:
    """The transaction that puts the plan's table in place of whatever has its name, or None where the plan has nothing
    to translate. `kernel` is the version to write it for (default: the running one)."""
    if not plan.nat_sources:
        return None
    knows_input = (kernel or _kernel_version()) >= _POSTROUTING_KNOWS_INPUT
    from_tunnel = f'iifname "{plan.interface}" ' if knows_input else ""
    sets = []
    rules = []
    for version, kind, match in ((4, "ipv4_addr", "ip saddr"), (6, "ipv6_addr", "ip6 saddr")):
        sources = [str(source) for source in plan.nat_sources if source.version == version]
        if sources:
            elements = ", ".join(sources)
            sets.append(f"    set sources{version} {{ type {kind}; flags interval; elements = {{ {elements} }}; }}")
            rules.append(
                f'        {from_tunnel}oifname != "{plan.interface}" {match} @sources{version} counter masquerade'
            )
    name = table_name(plan.interface)
    return "\n".join(
        [
            f"add table inet {name}",
            f"delete table inet {name}",
            f"table inet {name} {{",
            *sets,
            "    chain postrouting {",
            "        type nat hook postrouting priority srcnat; policy accept;",
            *rules,
            "    }",
            "}",
            "",
        ]
    )


def install(transaction: str) -> None:
    """Run what `ruleset` made, all or nothing. Raises `HostError`, `PrivilegeError`."""
    result = run_nft("-f", "-", script=transaction)
    if result.returncode != 0:
        raise _error("set the masquerade table", result)


def remove(interface: str) -> bool:
    """Delete the gateway's table; whether there was one. Without `nft` there cannot be one of ours.

    Raises `HostError`, `PrivilegeError`.
    """
    name = table_name(interface)
    if find_nft() is None or run_nft("list", "table", "inet", name).returncode != 0:
        return False
    result = run_nft("delete", "table", "inet", name)
    if result.returncode != 0:
        raise _error("delete the masquerade table", result)
    return True


def find_nft() -> str | None:
    """The path of the `nft` command, or None."""
    return shutil.which("nft", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))


def run_nft(*arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run `nft` with `script` as its standard input; the result with its output as text. Raises `HostError`."""
    command = find_nft()
    if command is None:
        raise HostError(f"{NFT_MISSING}: {NFT_FIX}")
    try:
        return subprocess.run(
            [command, *arguments],
            input=script,
            capture_output=True,
            text=True,
            check=False,
            timeout=NFT_TIMEOUT,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command} does not work: {error}") from error


def denied(result: subprocess.CompletedProcess[str]) -> bool:
    """Whether `nft` failed for want of privilege."""
    return "Operation not permitted" in result.stderr


def _error(attempt: str, result: subprocess.CompletedProcess[str]) -> HostError:
    if denied(result):
        return PrivilegeError(attempt)
    lines = result.stderr.strip().splitlines()
    reason = lines[0] if lines else f"nft ended with {result.returncode}"
    hint = 'set nat.mode = "none" if this kernel cannot do it'
    if "No such file or directory" in reason or "not supported" in reason:
        hint = "the kernel lacks NAT for nftables (modprobe nft_chain_nat nft_masq), or " + hint
    return HostError(f"cannot {attempt}: {reason}: {hint}")


def _kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    # A kernel that hides its version is no old one.
    return (int(found[1]), int(found[2])) if found else (sys.maxsize, 0)
