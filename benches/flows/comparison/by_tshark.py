"""What tshark counts: packet by packet from its fields, and its tables of conversations."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from comparison.belonging import Fate, Key, conversation
from comparison.counts import NotReadError, Part, Table, Totals, View, nothing
from comparison.slow import QUERY, TCP, UDP, Endpoint, Frame

TUNNEL = "tunnel, packet inside"
NO_HEADER = "no whole TCP or UDP header, not in their table"
NO_LENGTH = "UDP length 0, not in their table"
OTHER_ADDRESS = "R1, theirs takes addresses from a routing header or home address option"
MOBILITY = "mobility header, not in their table of IPv6"
OTHER_VERSION = "IPv4 where the link header says IPv6, not in theirs"
NO_PIECES = "R15 later fragment, not in their table of IPv6"

EXTENSIONS = {
    "ipv6.hopopts": "ipv6.hopopts.nxt",
    "ipv6.routing": "ipv6.routing.nxt",
    "ipv6.fraghdr": "ipv6.fraghdr.nxt",
    "ipv6.dstopts": "ipv6.dstopts.nxt",
    "ah": "ah.next_header",
}
FIELDS = [
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.len",
    "ip.proto",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.plen",
    "ipv6.nxt",
    "ipv6.opt.mipv6.home_address",
    "ipv6.routing.mipv6.home_address",
    "ipv6.routing.src.addr",
    "ipv6.routing.segleft",
    *EXTENSIONS.values(),
    "tcp.srcport",
    "tcp.dstport",
    "tcp.hdr_len",
    "tcp.short_segment",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "icmp.type",
    "icmp.code",
    "icmp.ident",
    "icmpv6.type",
    "icmpv6.code",
    "icmpv6.echo.identifier",
]
# Pieces stay pieces: put together, a datagram would be counted once, with the length of its last piece.
OPTIONS = ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-o", "tcp.desegment_tcp_streams:FALSE"]
MOBILITY_HEADER = 135
TITLES = {"tcp": "TCP", "udp": "UDP", "ip": "IPv4", "ipv6": "IPv6"}


@dataclass(slots=True)
class Layer:
    """One IP header of a frame. `version` is 0 for one whose addresses cannot be read."""

    version: int
    src: str = ""
    dst: str = ""
    length: int = 0
    first: int = 0
    """The protocol that the IP header itself names."""
    protocol: int = 0
    """The protocol behind its extension headers."""
    transport: str = ""
    ports: tuple[int, int] = (0, 0)
    in_tables: bool = True
    """Whether its transport is in the tables: with a bad length, or cut, it is not."""

    sender: str = ""
    """The address that the tables of transports have for it, where it is not the IP header's: Mobile IPv6's."""
    receiver: str = ""
    """The same of the receiver: what a routing header has for the last stop."""

    def conversation_in_tables(self) -> tuple[Key, bool]:
        """Its conversation in the tables of transports."""
        src, dst = self.sender or self.src, self.receiver or self.dst
        return conversation(self.protocol, (src, self.ports[0]), (dst, self.ports[1]))

    def conversation(self) -> tuple[Key, bool]:
        """Its conversation, and whether the second endpoint sent it."""
        return conversation(self.protocol, (self.src, self.ports[0]), (self.dst, self.ports[1]))


def read(capture: Path) -> tuple[list[list[Layer]], dict[str, Totals]]:
    """The IP headers in each frame, outermost first, and the tables by name.

    Raises NotReadError where tshark cannot read the file.
    """
    command = ["tshark", "-n", "-r", str(capture), *OPTIONS, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"]
    command += [word for name in FIELDS for word in ("-e", name)]
    command += [word for name in TITLES for word in ("-z", f"conv,{name}")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    lines = done.stdout.splitlines()
    begin = next((at for at, line in enumerate(lines) if line.startswith("=====")), None)
    if begin is None:
        raise NotReadError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return [layers(line) for line in lines[:begin]], tables_of(lines[begin:])


def layers(line: str) -> list[Layer]:
    """The IP headers of a frame, by its line of `-T fields`. The packet that an ICMP message quotes is none."""
    values = dict(zip(FIELDS, line.split("\t"), strict=True))
    queues = {name: iter(value.split(",") if value else []) for name, value in values.items()}

    def number(name: str) -> int:
        return int(next(queues[name], "0"), 0)

    found: list[Layer] = []
    for name in values["frame.protocols"].split(":"):
        if name in ("ip", "ipv6"):
            found.append(_ip(name, queues))
            continue
        if not found:
            continue
        layer = found[-1]
        # tshark takes what follows protocol 0 in IPv4 for IPv6's options.
        if name in EXTENSIONS and (layer.version == 6 or name == "ah"):
            layer.protocol = number(EXTENSIONS[name])
            if name == "ipv6.routing" and number("ipv6.routing.segleft"):
                stops = values["ipv6.routing.src.addr"] or values["ipv6.routing.mipv6.home_address"]
                layer.receiver = plain(stops.split(",")[-1]) if stops else ""
            if name == "ipv6.dstopts" and values["ipv6.opt.mipv6.home_address"]:
                layer.sender = plain(values["ipv6.opt.mipv6.home_address"].split(",")[0])
        elif name in ("tcp", "udp") and not layer.transport and values[f"{name}.dstport"]:
            layer.transport, layer.ports = name, (number(f"{name}.srcport"), number(f"{name}.dstport"))
            if name == "tcp":
                layer.in_tables = number("tcp.hdr_len") >= 20 and not values["tcp.short_segment"]
            else:
                length = number("udp.length")
                # 0 may be a jumbogram's.
                layer.in_tables = length >= 8 or (length == 0 and layer.version == 6)
        elif name in ("icmp", "icmpv6"):
            layer.transport = name
            kind, code = number(f"{name}.type"), number(f"{name}.code")
            if name == "icmp":
                identifier, request, reply = number("icmp.ident"), 8, 0
            else:
                identifier, request, reply = number("icmpv6.echo.identifier"), 128, 129
            echo = {request: (identifier, 0), reply: (0, identifier)}
            layer.ports = echo.get(kind, (QUERY | kind << 8 | code, 0))
            break
    return found


def _ip(name: str, queues: dict[str, Iterator[str]]) -> Layer:
    src, dst = next(queues[f"{name}.src"], None), next(queues[f"{name}.dst"], None)
    if src is None or dst is None:
        return Layer(0)
    numbers = [
        int(next(queues[field], "0"), 0)
        for field in {"ip": ("ip.len", "ip.proto")}.get(name, ("ipv6.plen", "ipv6.nxt"))
    ]
    version, header = (4, 0) if name == "ip" else (6, 40)
    return Layer(version, plain(src), plain(dst), header + numbers[0], numbers[1], numbers[1])


def plain(address: str) -> str:
    """The one way to write an address."""
    return str(ipaddress.ip_address(address))


ROW = re.compile(r"(\S+)\s+<-> (\S+)\s+(\d+) (-?\d+ \w+)\s+(\d+) (-?\d+ \w+)\s+\d+ -?\d+ \w+\s")


def tables_of(lines: Iterable[str]) -> dict[str, Totals]:
    """The tables of `-z conv,…`. A row is one TCP connection or UDP stream; those of one conversation are added up."""
    found: dict[str, Totals] = {name: defaultdict(nothing) for name in TITLES}
    titles = {f"{title} Conversations": name for name, title in TITLES.items()}
    name = ""
    for line in lines:
        if line in titles:
            name = titles[line]
        elif row := ROW.match(line):
            first, second, packets_back, bytes_back, packets, size = row.groups()
            key, turned = conversation(*_endpoints(name, first, second))
            totals = found[name][key]
            totals[turned].add(int(packets), *shown(size))
            totals[not turned and key[1] != key[2]].add(int(packets_back), *shown(bytes_back))
    return found


def _endpoints(name: str, first: str, second: str) -> tuple[int, Endpoint, Endpoint]:
    if name in ("ip", "ipv6"):
        return 4 if name == "ip" else 6, (plain(first), 0), (plain(second), 0)
    (a, a_port), (b, b_port) = (end.rsplit(":", 1) for end in (first, second))
    return TCP if name == "tcp" else UDP, (plain(a), int(a_port)), (plain(b), int(b_port))


def shown(text: str) -> tuple[int, int]:
    """The least and the most bytes that are written so: `917 bytes`, `12 kB`."""
    number, unit = text.split()
    if unit == "bytes":
        # It has 32 bits and a sign for a frame's length.
        return int(number) % (1 << 32), int(number) % (1 << 32)
    scale = 1000 ** (("kB", "MB", "GB").index(unit) + 1)
    return int(number) * scale, (int(number) + 1) * scale - 1


def by_packet(seen: list[list[Layer]], fates: list[Fate]) -> Table:
    """Packets and IP bytes of the outermost IP headers, any protocol."""

    def view(at: int) -> View:
        outer = seen[at][:1]
        if is_other_version(fates[at]):
            # Of IPv6 where IPv4 should be it has a header of either.
            outer = [layer for layer in seen[at] if layer.version == 6][:1]
        parts = [(Part(*layer.conversation(), layer.length), None) for layer in outer if layer.version]
        return View(list(parts), without=None if parts or not is_other_version(fates[at]) else OTHER_VERSION)

    totals: Totals = defaultdict(nothing)
    for at in range(len(seen)):
        for part, _ in view(at).parts:
            totals[part.key][part.second].add(1, part.bytes)
    return Table("tshark", totals, lambda key: key, view, lambda at: 0)


def is_other_version(fate: Fate) -> bool:
    """Whether the packet is of another version than the link header says."""
    return fate.packet is not None and fate.told is not None and fate.told != fate.packet.version


def by_table(name: str, totals: Totals, seen: list[list[Layer]], frames: list[Frame], fates: list[Fate]) -> Table:
    """One of its tables: frames with their link headers, by every header of that kind, those inside tunnels too."""
    version, protocol = {"ip": 4, "ipv6": 6}.get(name), {"tcp": TCP, "udp": UDP}.get(name)

    def project(key: Key) -> Key | None:
        if version is None:
            return key if key[0] == protocol else None
        _, (a, _), (b, _) = key
        return (version, (a, 0), (b, 0)) if (":" in a) == (version == 6) else None

    def view(at: int) -> View:
        packet = fates[at].packet
        found = View(without=OTHER_VERSION if is_other_version(fates[at]) else None)
        for depth, layer in enumerate(seen[at]):
            if version == layer.version:
                if version == 6 and depth == 0 and packet and not packet.first:
                    found.without = NO_PIECES
                    continue
                if layer.version == 6 and layer.protocol == MOBILITY_HEADER:
                    found.without = MOBILITY
                    continue
                key, second = conversation(layer.version, (layer.src, 0), (layer.dst, 0))
            elif name == layer.transport:
                if not layer.in_tables or (depth == 0 and packet and packet.above < packet.header):
                    no_length = packet and packet.protocol == UDP and packet.claimed == 0
                    found.without = NO_LENGTH if no_length else NO_HEADER
                    continue
                key, second = layer.conversation_in_tables()
            else:
                continue
            rule = OTHER_ADDRESS if key[0] == protocol and (layer.sender or layer.receiver) else None
            found.parts.append((Part(key, second, frames[at].wire), TUNNEL if depth else rule))
        return found

    return Table(f"conv,{name}", totals, project, view, lambda at: fates[at].overhead)
