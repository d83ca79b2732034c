"""Captures for tests: packets, and the files around them, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

START: Final = 1_700_000_000
"""Unix seconds at which every capture of these tests begins."""

RAW_IP: Final = 101
ETHERNET: Final = 1
"""Link types as capture files number them."""

FIN, SYN, RST, ACK = 1, 2, 4, 16
"""TCP flags."""

Packets = list[tuple[float, bytes]]
"""Frames in the order of the capture, each with its seconds since `START`."""


def udp(source: str, destination: str, payload: bytes = b"") -> bytes:
    """An IP packet with a UDP datagram; ends are written ``10.0.0.1:53`` or ``[fd00::1]:53``."""
    (src, sport), (dst, dport) = _end(source), _end(destination)
    return _ip(src, dst, 17, struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload)


def tcp(source: str, destination: str, flags: int, payload: bytes = b"", *, seq: int = 0) -> bytes:
    """An IP packet with a TCP segment."""
    (src, sport), (dst, dport) = _end(source), _end(destination)
    return _ip(src, dst, 6, struct.pack(">HHIIBBHHH", sport, dport, seq, 0, 5 << 4, flags, 65535, 0, 0) + payload)


def unreachable(source: str, destination: str, packet: bytes) -> bytes:
    """An IPv4 packet with the ICMP error "port unreachable" about `packet`; the ends are addresses."""
    return _ip(ip_address(source), ip_address(destination), 1, struct.pack(">BBHI", 3, 3, 0, 0) + packet[:28])


def download(client: str, server: str, at: float = 0.0) -> Packets:
    """A TCP flow that is over after 0.5 s: 5 packets of 240 bytes out, 4 of 1160 bytes in, with payloads of 40 and 1000
    bytes."""
    return [
        (at, tcp(client, server, SYN, seq=100)),
        (at + 0.02, tcp(server, client, SYN | ACK, seq=900)),
        (at + 0.03, tcp(client, server, ACK, seq=101)),
        (at + 0.1, tcp(client, server, ACK, b"q" * 40, seq=101)),
        (at + 0.2, tcp(server, client, ACK, b"a" * 500, seq=901)),
        (at + 0.3, tcp(server, client, ACK, b"a" * 500, seq=1401)),
        (at + 0.4, tcp(server, client, FIN | ACK, seq=1901)),
        (at + 0.45, tcp(client, server, FIN | ACK, seq=141)),
        (at + 0.5, tcp(client, server, ACK, seq=142)),
    ]


def ethernet(packet: bytes) -> bytes:
    """The packet in an Ethernet frame."""
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return bytes(12) + struct.pack(">H", kind) + packet


def arp() -> bytes:
    """An Ethernet frame that holds no IP packet."""
    return bytes(12) + struct.pack(">H", 0x0806) + bytes(28)


def pcap(frames: Iterable[tuple[float, bytes]], link: int = RAW_IP, *, snaplen: int = 65535) -> bytes:
    """A pcap file with microseconds."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen, link)]
    for at, frame in frames:
        seconds, micros = divmod(round(at * 1_000_000), 1_000_000)
        kept = frame[:snaplen]
        parts += [struct.pack("<IIII", START + seconds, micros, len(kept), len(frame)), kept]
    return b"".join(parts)


def pcapng(frames: Iterable[tuple[float, bytes]], link: int = RAW_IP) -> bytes:
    """A pcapng file of one section with one interface, with microseconds."""
    parts = [
        _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
        _block(1, struct.pack("<HHI", link, 0, 0)),
    ]
    for at, frame in frames:
        micros = START * 1_000_000 + round(at * 1_000_000)
        head = struct.pack("<IIIII", 0, micros >> 32, micros & 0xFFFF_FFFF, len(frame), len(frame))
        parts.append(_block(6, head + frame))
    return b"".join(parts)


def zstd(data: bytes) -> bytes:
    """The data as a zstd frame of blocks that are not compressed (RFC 8878)."""
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)] or [b""]
    blocks = [
        (len(piece) << 3 | (number == len(pieces))).to_bytes(3, "little") + piece
        for number, piece in enumerate(pieces, 1)
    ]
    # The frame's header: nothing optional, a window of 128 KiB.
    return struct.pack("<I", 0xFD2FB528) + bytes([0, 7 << 3]) + b"".join(blocks)


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


def _end(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    address, _, port = text.rpartition(":")
    return ip_address(address.strip("[]")), int(port)


def _ip(src: IPv4Address | IPv6Address, dst: IPv4Address | IPv6Address, protocol: int, body: bytes) -> bytes:
    if src.version == 6:
        return struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + src.packed + dst.packed + body
    head = struct.pack(">BBHHHBBH", 4 << 4 | 5, 0, 20 + len(body), 0, 0, 64, protocol, 0) + src.packed + dst.packed
    return head[:10] + struct.pack(">H", _checksum(head)) + head[12:] + body


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
