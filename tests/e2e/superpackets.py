"""Whether super-packets cross the gateway's device: packets longer than its MTU, as only segmentation offload has."""

from __future__ import annotations

from pathlib import Path

from .gateway import Fzgw
from .ledgers import SIDES, Books
from .netlab import Laboratory, wait_until

DIRECTIONS = dict(zip(SIDES, ("in", "out"), strict=True))
"""As tcpdump calls them: what the gateway writes comes in for the kernel. It looks after the kernel has cut what the
device does not take whole, so it sees what the gateway reads."""


class SuperPackets:
    """Waits, in each direction and for TCP and UDP apart, for the first one; made before the traffic."""

    def __init__(self, laboratory: Laboratory, gateway: Fzgw) -> None:
        self._logs: dict[tuple[str, str], Path] = {}
        for side, direction in DIRECTIONS.items():
            for protocol in ("tcp", "udp"):
                log = laboratory.folder / f"super-{side}-{protocol}.log"
                arguments = ["-i", gateway.interface, "-Q", direction, "-n", "-p", "-s", "60", "-c", "1"]
                laboratory.spawn(
                    laboratory.gateway,
                    *("tcpdump", "--immediate-mode", "-Z", "root", *arguments),
                    f"{protocol} and greater {gateway.mtu + 1}",
                    log=log.name,
                )
                self._logs[side, protocol] = log
        listening = "listening on"
        wait_until(lambda: all(listening in log.read_text() for log in self._logs.values()), "tcpdump listens")

    def seen(self) -> set[tuple[str, str]]:
        """The directions and protocols, as in ("to_peer", "tcp"), of which there was one."""
        return {key for key, log in self._logs.items() if "1 packet captured" in log.read_text()}

    @staticmethod
    def wanted(books: Books) -> set[tuple[str, str]]:
        """All that there must be by what the gateway says of its device: "tso+uso", or "tso" where the kernel has no
        more. It must have one of them."""
        offload = books.stats["tun_offload"]
        assert offload in ("tso", "tso+uso")
        return {(side, protocol) for side in SIDES for protocol in ("tcp", "udp")[: 1 + ("uso" in offload)]}
