"""Reads captures slowly and plainly: frames, the IP packet in each, and what its headers say.

It shares nothing with fzgw's reader. Each function follows the rule that it names (`flow-rules.md`).
"""

from __future__ import annotations

import gzip
import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
QUERY = 0x10000
"""Added to type and code of an ICMP query, so that it cannot be mistaken for the identifier of an echo."""

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame: its time in nanoseconds since the epoch, the bytes that were kept, and its length on the wire."""

    time: int
    link: int
    data: bytes
    wire: int


@dataclass(frozen=True, slots=True)
class Quote:
    """The packet inside an ICMP error."""

    src: Endpoint
    dst: Endpoint
    protocol: int


@dataclass(frozen=True, slots=True)
class Packet:
    """A well-formed IP packet. `length` is bytes by the IP header (R20), `payload` those above TCP or UDP."""

    version: int
    src: str
    dst: str
    protocol: int
    length: int
    identification: int | None
    """What the pieces of a datagram share; None for a packet that is whole."""
    first: bool
    """Whether it carries the transport header: always, but for later fragments."""
    ports: tuple[int, int] | None
    """Of sender and receiver. An echo has its identifier and 0, another ICMP query type and code and 0, a protocol
    without ports 0 and 0. None for what has no flow of its own: errors, redirects, fragments without ports."""
    flags: int
    payload: int
    error: tuple[int, int] | None
    quote: Quote | None
    redirect: bool
    guessed: bool
    """Its length is the frame's, because its IP header says 0 (scenario 40)."""
    above: int
    """Captured bytes above the IP headers."""
    header: int
    """Bytes of the TCP or UDP header."""
    claimed: int
    """What a UDP header says of the datagram's length."""


class UnreadableError(Exception):
    """A frame without a packet that can be counted. `str()` is the ledgers' word for why."""


# ---------------------------------------------------------------------------------------------------------- files


class CutError(Exception):
    """The file ends within a frame, or is damaged there."""


def frames(path: Path) -> Iterator[Frame]:
    """The frames of a pcap or pcapng file, plain or gzip. Raises CutError after those before a fault."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    magic = data[:4]
    for order in "<>":
        if magic in (struct.pack(order + "I", 0xA1B2C3D4), struct.pack(order + "I", 0xA1B23C4D)):
            return _pcap(data, order, 1 if b"\x3c" in magic and b"\x4d" in magic else 1000)
    if magic == b"\x0a\x0d\x0d\x0a":
        return _pcapng(data)
    raise CutError("no capture")


def _pcap(data: bytes, order: str, unit: int) -> Iterator[Frame]:
    link = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    at = 24
    while at < len(data):
        if at + 16 > len(data):
            raise CutError(f"offset {at}")
        seconds, fraction, kept, wire = struct.unpack_from(order + "IIII", data, at)
        if at + 16 + kept > len(data):
            raise CutError(f"offset {at}")
        yield Frame(seconds * 10**9 + fraction * unit, link, data[at + 16 : at + 16 + kept], max(kept, wire))
        at += 16 + kept


def _pcapng(data: bytes) -> Iterator[Frame]:
    at, order = 0, "<"
    interfaces: list[tuple[int, int, int, int]] = []
    while at < len(data):
        if at + 12 > len(data):
            raise CutError(f"offset {at}")
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            interfaces = []
        kind, length = struct.unpack_from(order + "II", data, at)
        if length < 12 or at + length > len(data):
            raise CutError(f"offset {at}")
        body = data[at + 8 : at + length - 4]
        if kind == 1:
            interfaces.append(_interface(body, order))
        elif kind == 6:
            number, high, low, kept, wire = struct.unpack_from(order + "IIIII", body)
            link, per_second, offset, _ = interfaces[number]
            time = (high << 32 | low) * 10**9 // per_second + offset * 10**9
            yield Frame(time, link, body[20 : 20 + kept], max(kept, wire))
        elif kind == 3:
            (wire,) = struct.unpack_from(order + "I", body)
            link, _, _, snaplen = interfaces[0]
            kept = min(wire, snaplen or wire, len(body) - 4)
            yield Frame(0, link, body[4 : 4 + kept], wire)
        at += length


def _interface(body: bytes, order: str) -> tuple[int, int, int, int]:
    """Link type, ticks a second, seconds to add, snaplen."""
    link, _, snaplen = struct.unpack_from(order + "HHI", body)
    per_second, offset, at = 10**6, 0, 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == 0:
            break
        if code == 9:
            per_second = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        if code == 14:
            (offset,) = struct.unpack(order + "q", value)
        at += 4 + (length + 3 & ~3)
    return link, per_second, offset, snaplen


# ----------------------------------------------------------------------------------------------------- link headers


def ip_part(frame: Frame) -> tuple[bytes, int, int | None]:
    """The captured bytes from the IP header on, how many there were on the wire, and the IP version by the link header.

    Raises UnreadableError: `unknown_link`, `not_ip`, `cut`, or `malformed link header`.
    """
    data, link = frame.data, frame.link
    missing = UnreadableError("cut" if frame.wire > len(data) else "malformed link header")

    def be16(at: int) -> int:
        if at + 2 > len(data):
            raise missing
        return int.from_bytes(data[at : at + 2])

    def found(at: int, version: int | None = None) -> tuple[bytes, int, int | None]:
        if at >= len(data):
            raise missing
        return data[at:], frame.wire - at, version

    if link in (228, 229):
        return found(0, 4 if link == 228 else 6)
    if link in (12, 14, 101):
        if found(0)[0][0] >> 4 not in (4, 6):
            raise UnreadableError("malformed link header")
        return found(0)
    if link in (0, 108):
        if len(data) < 4:
            raise missing
        family = min(int.from_bytes(data[:4], "big"), int.from_bytes(data[:4], "little"))
        if family not in (2, 10, 23, 24, 28, 30):
            raise UnreadableError("not_ip")
        return found(4, 4 if family == 2 else 6)
    if link not in (1, 113, 276):
        raise UnreadableError("unknown_link")
    kind, at = {1: (12, 14), 113: (14, 16), 276: (0, 20)}[link]
    ethertype = be16(kind)
    tags = 0
    while ethertype in (0x8100, 0x88A8, 0x9100):
        tags += 1
        if tags > 8:
            raise UnreadableError("malformed link header")
        ethertype, at = be16(at + 2), at + 4
    if ethertype == 0x8864:
        return _pppoe(frame, at, missing)
    if ethertype <= 1500:
        if len(data) < at + 6:
            raise missing
        if data[at : at + 6] != b"\xaa\xaa\x03\0\0\0":
            raise UnreadableError("not_ip")
        ethertype, at = be16(at + 6), at + 8
    if ethertype not in (0x0800, 0x86DD):
        raise UnreadableError("not_ip")
    return found(at, 4 if ethertype == 0x0800 else 6)


def _pppoe(frame: Frame, at: int, missing: UnreadableError) -> tuple[bytes, int, int | None]:
    """PPPoE tells its own length: what is behind it is Ethernet's padding."""
    data = frame.data
    if len(data) < at + 7:
        raise missing
    if data[at : at + 2] != b"\x11\0":
        raise UnreadableError("malformed link header")
    length = int.from_bytes(data[at + 4 : at + 6])
    width = 1 if data[at + 6] & 1 else 2
    protocol = int.from_bytes(data[at + 6 : at + 6 + width])
    if length < width:
        raise UnreadableError("malformed link header")
    if protocol not in (0x21, 0x57):
        raise UnreadableError("not_ip")
    at, length = at + 6 + width, length - width
    if at >= len(data):
        raise missing
    return data[at : at + length], min(frame.wire - at, length), 4 if protocol == 0x21 else 6


# -------------------------------------------------------------------------------------------------------- packets


@dataclass(slots=True)
class _Head:
    """What IP headers say: everything that is asked of one before the layer above."""

    version: int
    src: str
    dst: str
    protocol: int
    size: int
    offset: int
    more: bool
    identification: int


def packet(data: bytes, wire: int) -> Packet:
    """The packet whose captured bytes these are; `wire` is how many there were.

    Raises UnreadableError: `malformed` (scenario 40), or `cut` where the capture kept too little for ports and flags.
    """
    length, guessed = _length(data, wire)
    if length > wire:
        raise UnreadableError("malformed")
    data = data[:length]
    missing = UnreadableError("cut" if len(data) < length else "malformed")
    head = _head(data, missing)
    if head.size > length:
        raise UnreadableError("malformed")
    above, size = data[head.size :], length - head.size
    fragment = head.more or head.offset > 0
    ports: tuple[int, int] | None = (0, 0)
    flags = payload = header = claimed = 0
    error: tuple[int, int] | None = None
    quote: Quote | None = None
    redirect = False
    if head.offset > 0:
        ports, payload = None, size
    elif head.protocol in (TCP, UDP, ICMP, ICMPV6):
        try:
            if head.protocol == TCP:
                ports, flags, payload = _tcp(above, size, missing)
                header = size - payload
            elif head.protocol == UDP:
                ports, payload = _udp(above, size, missing)
                header, claimed = size - payload, int.from_bytes(above[4:6])
            else:
                ports, error, redirect = _icmp(head.protocol, above, missing)
        except UnreadableError as unreadable:
            if not fragment or str(unreadable) == "cut":
                raise
            # A first fragment too short for its ports.
            ports = None
        if error:
            quote = _quote(above[8:], head.dst)
    return Packet(
        version=head.version,
        src=head.src,
        dst=head.dst,
        protocol=head.protocol,
        length=length,
        identification=head.identification if fragment else None,
        first=head.offset == 0,
        ports=ports,
        flags=flags,
        payload=payload,
        error=error,
        quote=quote,
        redirect=redirect,
        guessed=guessed,
        above=len(above),
        header=header,
        claimed=claimed,
    )


def _length(data: bytes, wire: int) -> tuple[int, bool]:
    version = data[0] >> 4 if data else 0
    size = {4: 20, 6: 40}.get(version)
    if size is None:
        raise UnreadableError("malformed")
    if len(data) < size:
        raise UnreadableError("cut" if wire >= size else "malformed")
    if version == 4:
        length = int.from_bytes(data[2:4])
        if 0 < length < 20:
            raise UnreadableError("malformed")
        return (length, False) if length else (wire, True)
    length = int.from_bytes(data[4:6])
    # 59: there is nothing behind the header.
    return (wire, True) if length == 0 and data[6] != 59 else (40 + length, False)


def _head(data: bytes, missing: UnreadableError) -> _Head:
    if data[0] >> 4 == 4:
        size = (data[0] & 15) * 4
        if size < 20:
            raise UnreadableError("malformed")
        if len(data) < size:
            raise missing
        piece = int.from_bytes(data[6:8])
        head = _Head(
            version=4,
            src=str(ipaddress.IPv4Address(data[12:16])),
            dst=str(ipaddress.IPv4Address(data[16:20])),
            protocol=data[9],
            size=size,
            offset=(piece & 0x1FFF) * 8,
            more=bool(piece & 0x2000),
            identification=int.from_bytes(data[4:6]),
        )
        extensions: tuple[int, ...] = (51,)
    else:
        head = _Head(
            version=6,
            src=str(ipaddress.IPv6Address(data[8:24])),
            dst=str(ipaddress.IPv6Address(data[24:40])),
            protocol=data[6],
            size=40,
            offset=0,
            more=False,
            identification=0,
        )
        extensions = (0, 43, 44, 51, 60)
    # What follows in a later fragment is the middle of something.
    while head.protocol in extensions and head.offset == 0:
        start = head.size
        if head.protocol == 0 and start != 40:
            # Hop-by-hop options come first or not at all (RFC 8200, section 4.1).
            raise UnreadableError("malformed")
        if len(data) < start + 8:
            raise missing
        step = {44: 8, 51: (data[start + 1] + 2) * 4}.get(head.protocol, (data[start + 1] + 1) * 8)
        if len(data) < start + step:
            raise missing
        if head.protocol == 44:
            piece = int.from_bytes(data[start + 2 : start + 4])
            head.offset, head.more = piece & 0xFFF8, bool(piece & 1)
            head.identification = int.from_bytes(data[start + 4 : start + 8])
        head.protocol, head.size = data[start], start + step
    return head


def _tcp(above: bytes, size: int, missing: UnreadableError) -> tuple[tuple[int, int], int, int]:
    if len(above) < 14:
        raise missing
    header = (above[12] >> 4) * 4
    if not 20 <= header <= size:
        raise UnreadableError("malformed")
    return (int.from_bytes(above[:2]), int.from_bytes(above[2:4])), above[13], size - header


def _udp(above: bytes, size: int, missing: UnreadableError) -> tuple[tuple[int, int], int]:
    if len(above) < 6:
        raise missing
    if size < 8 or 0 < int.from_bytes(above[4:6]) < 8:
        raise UnreadableError("malformed")
    return (int.from_bytes(above[:2]), int.from_bytes(above[2:4])), size - 8


def _icmp(
    protocol: int, above: bytes, missing: UnreadableError
) -> tuple[tuple[int, int] | None, tuple[int, int] | None, bool]:
    """Ports, type and code of an error, whether it is a redirect (R12, R13)."""
    if len(above) < 8:
        raise missing
    kind, code, identifier = above[0], above[1], int.from_bytes(above[4:6])
    request, reply, errors, redirect = (8, 0, (3, 11, 12), 5) if protocol == ICMP else (128, 129, (1, 2, 3, 4), 137)
    if kind in errors:
        return None, (kind, code), False
    if kind == redirect:
        return None, None, True
    if kind == request:
        return (identifier, 0), None, False
    if kind == reply:
        return (0, identifier), None, False
    return (QUERY | kind << 8 | code, 0), None, False


def _quote(data: bytes, destination: str) -> Quote | None:
    """The packet that an ICMP error is about, whatever its lengths say: routers cut it. It was the receiver's."""
    none = UnreadableError("no quote")
    try:
        if len(data) < {4: 20, 6: 40}.get(data[0] >> 4 if data else 0, 1 << 16):
            return None
        head = _head(data, none)
        above = data[head.size :]
        if head.offset > 0 or head.src != destination:
            return None
        ports = (0, 0)
        if head.protocol in (TCP, UDP):
            if len(above) < 4:
                return None
            ports = (int.from_bytes(above[:2]), int.from_bytes(above[2:4]))
        elif head.protocol in (ICMP, ICMPV6):
            echo, _, _ = _icmp(head.protocol, above, none)
            if echo is None or echo[0] & QUERY:
                return None
            ports = echo
    except UnreadableError:
        return None
    return Quote((head.src, ports[0]), (head.dst, ports[1]), head.protocol)
