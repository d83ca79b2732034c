"""MTUs from the smallest to jumbo frames, with super-packets on the device: sizes that endpoints agreed stay."""

from __future__ import annotations

import re
import struct

import pytest

from . import services
from .conftest import Gateways
from .netlab import EXIT_V4, EXIT_V6, Capture, ClientSite, Laboratory
from .superpackets import SuperPackets
from .traffic import Server, download, ping, server_address, upload
from .wg import Client

SIZE = 4_000_000
SYN, ACK = 0x02, 0x10
TCP_MAXIMUM_SEGMENT = 2
"""The option's kind."""


@pytest.mark.parametrize(("mtu", "outside"), [(1280, 1500), (1420, 1500), (8920, 9000)])
def test_sizes(
    laboratory: Laboratory,
    gateways: Gateways,
    server: Server,
    clients: tuple[Client, Client],
    mtu: int,
    outside: int,
) -> None:
    """TCP both ways is right; its maximum segment size is what the endpoints said, and is used in full; a packet that
    is one byte too big for the device is answered with the device's MTU, and one that just fits arrives.

    client1 over an IPv4 underlay, client2 over IPv6; `outside` is the MTU of every cable.
    """
    laboratory.set_mtu(outside)
    laboratory.gateway.merge_on_arrival("exit")
    gateway = gateways.start(mtu=mtu)
    crossing = SuperPackets(laboratory, gateway)
    for client in clients:
        for family in (4, 6):
            _transfer(laboratory, client, family, mtu, outside)
            _too_big(laboratory, client.site, family, mtu)
    outcome = gateway.stop()
    assert crossing.seen() >= {("from_peer", "tcp"), ("to_peer", "tcp")}
    assert outcome.books.drop_reasons("to_peer").keys() <= {"no_peer"}


def test_a_client_with_a_larger_mtu(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """Where the gateway's device is the narrowest place, the server learns its MTU from the kernel's answers to
    super-packets whose segments do not fit, and everything arrives."""
    laboratory.gateway.merge_on_arrival("exit")
    gateway = gateways.start(mtu=1280, join=False)
    for client in clients:
        client.join(gateway.public_key, gateway.port, mtu=1420)
        for family, own in ((4, client.site.v4), (6, client.site.v6)):
            assert download(client.namespace, server_address(family), SIZE) == services.pattern_digest(SIZE)
            assert upload(client.namespace, server_address(family), SIZE) == services.pattern_digest(SIZE)
            assert "mtu 1280" in laboratory.server.ip("route", "get", own)


def _transfer(laboratory: Laboratory, client: Client, family: int, mtu: int, outside: int) -> None:
    own, there = client.site.v4 if family == 4 else client.site.v6, server_address(family)
    at_server = Capture(laboratory, laboratory.server, "eth0", f"tcp and host {own}", snaplen=100)
    at_client = Capture(laboratory, client.namespace, client.interface, "tcp and less 100", snaplen=100)
    assert download(client.namespace, there, SIZE) == services.pattern_digest(SIZE)
    assert upload(client.namespace, there, SIZE) == services.pattern_digest(SIZE)
    at_server.stop()
    at_client.stop()

    headers = 40 if family == 4 else 60
    agreed = {(False, mtu - headers), (True, outside - headers)}
    segments = [_Segment(packet) for _, packet in at_server.packets()]
    assert {(it.is_answer, it.maximum) for it in segments if it.maximum is not None} == agreed
    inside = [_Segment(packet) for _, packet in at_client.packets()]
    assert {(it.is_answer, it.maximum) for it in inside if it.maximum is not None} == agreed
    for from_server in (False, True):
        lengths = [it.length for it in segments if it.from_server == from_server]
        assert max(lengths) == mtu
        assert lengths.count(mtu) * (mtu - headers) > 0.95 * SIZE, "nearly all of it travels in full segments"


def _too_big(laboratory: Laboratory, site: ClientSite, family: int, mtu: int) -> None:
    """From the server: with IPv4, "don't fragment" is set."""
    address, router, headers = (site.v4, EXIT_V4, 28) if family == 4 else (site.v6, EXIT_V6, 48)
    fits = ping(laboratory.server, address, count=1, size=mtu - headers, fragment=False)
    assert fits.received == 1, fits.said
    too_big = ping(laboratory.server, address, count=1, size=mtu - headers + 1, fragment=False)
    assert too_big.received == 0, too_big.said
    answer = r"Frag needed and DF set \(mtu = (\d+)\)" if family == 4 else r"Packet too big: mtu=(\d+)"
    assert re.findall(rf"From {re.escape(router)} icmp_seq=1 {answer}", too_big.said) == [str(mtu)], too_big.said


class _Segment:
    """A captured TCP segment: `maximum` is what its SYN says of segments, None in all others."""

    def __init__(self, packet: bytes) -> None:
        if packet[0] >> 4 == 4:
            start = (packet[0] & 15) * 4
            self.length: int = struct.unpack_from("!H", packet, 2)[0]
        else:
            start = 40
            self.length = struct.unpack_from("!H", packet, 4)[0] + 40
        source, _ = struct.unpack_from("!HH", packet, start)
        self.from_server = source == services.HTTP_PORT
        flags = packet[start + 13]
        self.is_answer = flags & (SYN | ACK) == SYN | ACK
        options = packet[start + 20 : start + (packet[start + 12] >> 4) * 4]
        self.maximum = _maximum_segment(options) if flags & SYN else None


def _maximum_segment(options: bytes) -> int | None:
    while options and options[0]:
        if options[0] == TCP_MAXIMUM_SEGMENT:
            return int.from_bytes(options[2:4], "big")
        options = options[1 if options[0] == 1 else options[1] :]
    return None
