"""Which gateways of this network namespace rely on forwarding, told among them by abstract sockets.

An abstract Unix socket belongs to the network namespace it was made in and goes with its process, however that ends:
nothing to clean up, and no file in a place that two gateways would have to agree on.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from fzgw import logs

_PREFIX: Final = "fzgw-forwarding"


class Presence:
    """What the gateway of `interface` tells the others, and hears of them."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._sockets: dict[str, socket.socket] = {}

    def announce(self, families: frozenset[str]) -> None:
        """This gateway relies on the forwarding of `families` ("ipv4", "ipv6") and no longer on that of others."""
        for family in self._sockets.keys() - families:
            self._sockets.pop(family).close()
        for family in families - self._sockets.keys():
            sign = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                sign.bind(f"\0{_PREFIX}/{family}/{self._interface}")
            except OSError as error:
                # Only somebody who plays the gateway has this name; forwarding works all the same.
                sign.close()
                logs.get_logger().warning("gateway_not_announced", interface=self._interface, error=error.strerror)
            else:
                self._sockets[family] = sign

    def others(self, family: str) -> list[str]:
        """The interfaces of the other gateways that rely on the forwarding of `family`."""
        start = f"@{_PREFIX}/{family}/"
        names = [line.split()[-1] for line in Path("/proc/thread-self/net/unix").read_text().splitlines()]
        return sorted({name.removeprefix(start) for name in names if name.startswith(start)} - {self._interface})
