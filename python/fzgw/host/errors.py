"""What can go wrong with the host, as one clear line each."""

from __future__ import annotations

PRIVILEGE_FIX = "run it as root (sudo), or give it CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
"""The two ways out of missing privilege, the same words wherever it is missing."""

NFT_MISSING = 'the nft command is missing and nat.mode is "masquerade"'
NFT_FIX = 'install the package nftables (Debian: apt install nftables), or set nat.mode = "none"'


class HostError(Exception):
    """The host cannot be set up or put back. `str()` is one line: what is wrong, and what to do."""


class PrivilegeError(HostError):
    """It cannot be done for want of CAP_NET_ADMIN. `str()` names what was tried and the two ways out."""

    def __init__(self, attempt: str) -> None:
        super().__init__(f"no permission to {attempt}: {PRIVILEGE_FIX}")
