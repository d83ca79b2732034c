"""Counters that are not ours: nftables at `netdev` hooks.

At the gateway's TUN device ingress sees what the gateway wrote (`from_peer`), egress what the kernel gave to it
(`to_peer`), in both cases before anything else of the kernel could change, merge or drop a packet. With segmentation
offload that would be super-packets (R22): then the place is the meter between gateway and server, where every packet
arrives as it travels.

The counters are named objects of a table: they outlive the interface and can be read after the gateway has gone.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from .ledgers import SIDES
from .netlab import TUNNEL_NETWORKS, Namespace
from .records import Tally

TABLE = "fzgw_e2e"
# Numbers: nft looks names up in /etc/protocols, which a minimal system lacks.
PROTOCOLS = {"tcp": "6", "udp": "17", "icmp": "1", "icmpv6": "58"}

ERRORS = {
    "icmp_error": "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    "icmpv6_error": "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
}
CLASSES = {
    # Every packet is in one of the protocols, or in other.
    **{name: f"meta l4proto {protocol}" for name, protocol in PROTOCOLS.items()},
    "other": "meta l4proto != { 6, 17, 1, 58 }",
    # These are parts of the former, of which the ledgers keep sums of their own.
    **ERRORS,
    "redirect4": "icmp type redirect",
    "redirect6": "icmpv6 type nd-redirect",
    "multicast4": "ip daddr 224.0.0.0/4",
    "multicast6": "ip6 daddr ff00::/8",
    "fragment4": "ip frag-off & 0x1fff != 0",
    "fragment6": "frag frag-off != 0",
}

Tuple = tuple[str, str, int, int, int]
"""Source, destination, protocol number, source port, destination port."""


@dataclass(frozen=True)
class Reading:
    """All counters at one moment."""

    classes: dict[str, dict[str, Tally]]

    def __sub__(self, other: Reading) -> Reading:
        return Reading(
            {
                side: {name: tally - other.classes[side][name] for name, tally in classes.items()}
                for side, classes in self.classes.items()
            }
        )

    def get(self, side: str, *names: str) -> Tally:
        """The sum of some classes of one direction."""
        tally = Tally()
        for name in names:
            tally += self.classes[side][name]
        return tally

    def total(self, side: str) -> Tally:
        """Everything of one direction."""
        return self.get(side, *PROTOCOLS, "other")


class NftBooks:
    """The counters; `more` are further classes: a name and what it matches.

    On `interface` alone both of its hooks count. With `opposite`, what arrives there goes to peers, what arrives at
    `interface` comes from them, and without a tunnel address it is not counted: neighbours talk there too.
    """

    def __init__(
        self, namespace: Namespace, interface: str, more: dict[str, str] | None = None, *, opposite: str | None = None
    ) -> None:
        self._namespace = namespace
        self._interface = interface
        to_peer = ("egress", interface) if opposite is None else ("ingress", opposite)
        self._hooks = {"from_peer": ("ingress", interface), "to_peer": to_peer}
        self._tunnel_only = opposite is not None
        self._classes = {**CLASSES, **(more or {})}
        namespace.run("nft", "-f", "-", input=self._ruleset())

    def read(self) -> Reading:
        """The counters now."""
        classes: dict[str, dict[str, Tally]] = {side: {} for side in SIDES}
        for counter in self._list("counters", "counter"):
            side, name = self._parse(counter["name"])
            classes[side][name] = Tally(counter["packets"], counter["bytes"])
        return Reading(classes)

    def tuples(self) -> dict[str, dict[Tuple, Tally]]:
        """What TCP and UDP packets were counted by their five-tuple, per direction, later fragments left out."""
        found: dict[str, dict[Tuple, Tally]] = {side: defaultdict(Tally) for side in SIDES}
        for table in self._list("sets", "set"):
            side, _ = self._parse(table["name"])
            for element in table.get("elem", []):
                source, destination, protocol, *ports = element["elem"]["val"]["concat"]
                counter = element["elem"]["counter"]
                key = (source, destination, int(protocol), ports[0], ports[1])
                found[side][key] += Tally(counter["packets"], counter["bytes"])
        return found

    def quiet(self, seconds: float = 0.5, timeout: float = 20) -> Reading:
        """The counters once nothing was counted for so long."""
        deadline = time.monotonic() + timeout
        last, since = self.read(), time.monotonic()
        while time.monotonic() - since < seconds:
            time.sleep(0.02)
            now = self.read()
            if now != last:
                assert time.monotonic() < deadline, f"{self._interface} does not come to rest"
                last, since = now, time.monotonic()
        return last

    def _list(self, what: str, kind: str) -> list[dict[str, Any]]:
        said = json.loads(self._namespace.run("nft", "-j", "-nn", "list", "table", "netdev", TABLE))
        return [item[kind] for item in said["nftables"] if kind in item]

    @staticmethod
    def _parse(name: str) -> tuple[str, str]:
        """Direction and the rest of the name of a counter or set."""
        side = next(side for side in SIDES if name.startswith(side))
        return side, name.removeprefix(f"{side}_")

    def _ruleset(self) -> str:
        lines = [f"table netdev {TABLE} {{"]
        for side, (hook, device) in self._hooks.items():
            lines += [f"counter {side}_{name} {{ }}" for name in self._classes]
            for family in ("ip", "ip6"):
                key = f"{family} saddr . {family} daddr . meta l4proto . th sport . th dport"
                lines.append(f"set {side}_{family} {{ typeof {key}; size 65535; flags dynamic; }}")
            lines.append(f'chain {side} {{ type filter hook {hook} device "{device}" priority -300;')
            if self._tunnel_only:
                for family, network in zip(("ip", "ip6"), TUNNEL_NETWORKS, strict=True):
                    lines.append(f"{family} saddr != {network} {family} daddr != {network} accept")
            lines += [f"{match} counter name {side}_{name}" for name, match in self._classes.items()]
            for family in ("ip", "ip6"):
                key = f"{family} saddr . {family} daddr . meta l4proto . th sport . th dport"
                lines.append(f"meta l4proto {{ 6, 17 }} update @{side}_{family} {{ {key} counter }}")
            lines.append("}")
        return "\n".join([*lines, "}"])


def queue_drops(namespace: Namespace, device: str) -> int:
    """Packets that the kernel had no room for in the device's queue."""
    link = json.loads(namespace.ip("-j", "-s", "link", "show", "dev", device))[0]
    dropped: int = link["stats64"]["tx"]["dropped"]
    return dropped
