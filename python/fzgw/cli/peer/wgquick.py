"""A peer's own configuration, as wg-quick and the WireGuard apps read it."""

import ipaddress
from dataclasses import dataclass

from fzgw.config import GatewayConfig
from fzgw.config.values import key_text

USUAL_MTU = 1420
"""Bytes: what WireGuard clients use when they are not told."""

EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True)
class ClientConfig:
    """What a client needs to know to use `gateway` for everything it sends."""

    name: str
    gateway: GatewayConfig
    endpoint: str
    private_key: bytes | None
    """None when the client made its key itself: it then puts it in."""
    preshared_key: bytes | None
    addresses: tuple[str, ...]
    """Its own, ``"100.64.0.2/32"``."""
    keepalive: int
    """Seconds; 0 for none."""

    def text(self) -> str:
        """The file, with comments that say what to take care of."""
        if self.private_key is None:
            notes = ["# Put the private key of this peer below, without the #."]
        else:
            notes = [
                "# This file holds the only copy of the peer's private key: neither the gateway nor fzgw keeps it.",
                "# Treat it like a password.",
            ]
        heading = [f"# WireGuard: peer {self.name} of gateway {self.gateway.name}", *notes]
        return "\n".join([*heading, *self._lines()]) + "\n"

    def for_qr(self) -> str:
        """The same without comments, so that the code is small enough for a terminal."""
        return "\n".join(line for line in self._lines() if not line.startswith("#")) + "\n"

    def _lines(self) -> list[str]:
        families = dict.fromkeys(ipaddress.ip_interface(address).version for address in self.gateway.addresses)
        private_key = "# PrivateKey =" if self.private_key is None else f"PrivateKey = {key_text(self.private_key)}"
        lines = ["[Interface]", private_key, f"Address = {', '.join(self.addresses)}"]
        if self.gateway.dns:
            lines.append(f"DNS = {', '.join(self.gateway.dns)}")
        if self.gateway.mtu != USUAL_MTU:
            lines.append(f"MTU = {self.gateway.mtu}")
        lines += ["", "[Peer]", f"PublicKey = {key_text(self.gateway.public_key)}"]
        if self.preshared_key is not None:
            lines.append(f"PresharedKey = {key_text(self.preshared_key)}")
        lines += [
            f"AllowedIPs = {', '.join(EVERYTHING[family] for family in families)}",
            f"Endpoint = {self.endpoint}",
        ]
        if self.keepalive:
            lines.append(f"PersistentKeepalive = {self.keepalive}")
        return lines
