"""Explicit congestion notification (RFC 6040): what the inner packet says the outer one says too, and what a router on
the way has marked comes out at the other end.

The clients' wireguard-go marks nothing: what leaves a client is marked by nftables, as a router would.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterable

import pytest

from . import services
from .conftest import Gateways
from .gateway import PORT, Fzgw
from .netlab import Laboratory, Namespace, wait_until
from .numbered import SO_RCVBUFFORCE, UDP_SEGMENT
from .traffic import Server, download, echo_udp, server_address, upload
from .wg import Client

NOT_ECT, ECT1, ECT0, CE = range(4)
NAMES = {NOT_ECT: "not-ect", ECT1: "ect1", ECT0: "ect0", CE: "ce"}
"""As nft calls them."""
COMBINED: dict[int, dict[int, int | None]] = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT0: NOT_ECT, ECT1: NOT_ECT, CE: None},
    ECT0: {NOT_ECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
    ECT1: {NOT_ECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
    CE: {NOT_ECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}
"""RFC 6040, figure 4: by the inner mark and then the outer one, what comes out; None is dropped."""
DSCP = 0xB8
"""Expedited forwarding: it is in the same byte as the mark and stays."""
RUN = 5
"""Packets of one kind."""
SIZE = 600
"""Bytes of an inner datagram, by which its outer one is told from handshakes and keepalives."""
EVERYWHERE = [pytest.param(0, id="IPv4-underlay"), pytest.param(1, id="IPv6-underlay")]
"""The clients by their underlay."""


class Marks:
    """nftables counts the ECN marks of what arrives at a device and matches, of either IP version."""

    def __init__(self, namespace: Namespace, device: str, *matches: str) -> None:
        self._namespace = namespace
        self._table = f"fzgw_ecn_{device.replace('-', '_')}"
        counters = "\n".join(f"counter m{mark} {{ }}" for mark in NAMES)
        rules = "\n".join(
            f"{match} {family} ecn {name} counter name m{mark}"
            for match in matches
            for family in ("ip", "ip6")
            for mark, name in NAMES.items()
        )
        chain = f'chain arrival {{ type filter hook ingress device "{device}" priority -300; {rules}\n}}'
        namespace.run("nft", "-f", "-", input=f"table netdev {self._table} {{\n{counters}\n{chain}\n}}")

    def read(self) -> Counter[int]:
        """How many of each so far."""
        said = json.loads(self._namespace.run("nft", "-j", "list", "counters", "table", "netdev", self._table))
        counters = [item["counter"] for item in said["nftables"] if "counter" in item]
        return Counter({int(counter["name"][1:]): counter["packets"] for counter in counters})


@pytest.mark.parametrize("number", EVERYWHERE)
def test_the_outer_packet_says_what_the_inner_one_says(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client], number: int
) -> None:
    """Towards a peer each datagram has its packet's mark, in runs and mixed, and the packet keeps its own byte."""
    laboratory.gateway.merge_on_arrival("exit")
    gateways.start()
    client = clients[number]
    outer = Marks(client.namespace, client.site.device, f"udp sport {PORT} udp length > {SIZE}")
    marks = [mark for mark in NAMES for _ in range(4 * RUN)] + [ECT0, CE, NOT_ECT, ECT1] * RUN
    for own, there in _ends(client):
        echo_udp(client.namespace, own, there)  # the gateway learns where the client is
        with laboratory.server.udp(there) as here, _listener(client.namespace, own) as receiver:
            _send(here, receiver, marks)
            assert _receive(receiver, len(marks)) == list(enumerate(DSCP | mark for mark in marks))
    assert outer.read() == Counter(2 * marks)


@pytest.mark.parametrize("number", EVERYWHERE)
@pytest.mark.parametrize("arrival", ["singly", "merged"])
def test_a_mark_of_the_way_comes_out(
    laboratory: Laboratory,
    gateways: Gateways,
    server: Server,
    clients: tuple[Client, Client],
    number: int,
    arrival: str,
) -> None:
    """From a peer, all sixteen pairs of an inner and an outer mark come out as the RFC has them, checksums right.

    A packet that cannot say it and met congestion is dropped as `ecn`, and counted in no flow (R20). Outer datagrams
    reach the gateway one by one, and merged by the network card.
    """
    gateway = gateways.start()
    client = clients[number]
    if arrival == "merged":
        laboratory.gateway.merge_on_arrival(f"to-{client.site.name}")
    dropped = 0
    for own, there in _ends(client):
        with client.namespace.udp(own) as here, _listener(laboratory.server, there) as receiver:
            for outer, inner in itertools.product(NAMES, NAMES):
                _mark(client.namespace, f"ecn set {NAMES[outer]}")
                _send(here, receiver, [inner] * RUN)
                result = COMBINED[inner][outer]
                if result is None:
                    dropped += RUN
                    wait_until(lambda: _drops(gateway) >= dropped, "dropped as ecn")  # noqa: B023 - called at once
                else:
                    arrived = _receive(receiver, RUN)
                    assert arrived == [(each, DSCP | result) for each in range(RUN)], f"{inner} inside, {outer} outside"
            port = here.getsockname()[1]
            receiver.setblocking(False)
            with pytest.raises(BlockingIOError):
                receiver.recv(1)
    outcome = gateway.stop()
    assert outcome.books.drop_reasons("from_peer") == {"ecn": dropped}
    assert outcome.records.one(source_port=port).out.packets == 15 * RUN


def test_tcp_that_uses_ecn(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """Every byte arrives of TCP in super-packets, one in sixteen of what leaves the clients marked on the way.

    Behind the gateway there are as many marks as before it, but for the packets that had to be dropped, and what it
    sends to the peer is as capable of ECN outside as inside.
    """
    laboratory.gateway.merge_on_arrival("exit")
    for namespace in (laboratory.server, *(client.namespace for client in clients)):
        namespace.sysctl("net.ipv4.tcp_ecn", 1)
    gateway = gateways.start()
    inner = Marks(laboratory.server, "eth0", f"tcp dport {services.HTTP_PORT}")
    marked = 0
    for client in clients:
        outer = Marks(laboratory.gateway, f"to-{client.site.name}", f"udp dport {PORT}")
        to_client = Marks(client.namespace, client.site.device, f"udp sport {PORT}")
        size = 3_000_000
        _mark(client.namespace, "ecn set ce", "meta length > 1000 numgen random mod 16 0")
        for _, there in _ends(client):
            assert upload(client.namespace, there, size) == services.pattern_digest(size)
            assert download(client.namespace, there, size) == services.pattern_digest(size)
        marked += outer.read()[CE]
        # Whatever is sent a second time does not say that it can (RFC 3168, section 6.1.5).
        assert to_client.read()[ECT0] > 2 * size / 1420 * 0.9
    dropped = gateway.stop().books.dropped("from_peer", "ecn").packets
    assert inner.read()[CE] == marked - dropped > 50
    assert inner.read()[ECT0] > 50


def _ends(client: Client) -> list[tuple[str, str]]:
    """The client's and the server's address of each family."""
    return [(client.site.v4, server_address(4)), (client.site.v6, server_address(6))]


def _drops(gateway: Fzgw) -> int:
    return gateway.books().drop_reasons("from_peer").get("ecn", 0)


def _mark(namespace: Namespace, action: str, condition: str = "") -> None:
    """What a router on the way to the gateway does to outer datagrams, from now on."""
    rules = "\n".join(f"udp dport {PORT} {condition} {family} {action}" for family in ("ip", "ip6"))
    chain = f"chain way {{ type filter hook output priority mangle; {rules}\n}}"
    table = "table inet fzgw_way"
    namespace.run("nft", "-f", "-", input=f"{table}\ndelete {table}\n{table} {{\n{chain}\n}}")


def _listener(namespace: Namespace, address: str) -> socket.socket:
    """A UDP socket with room for all of it, that is told the traffic class of what it receives."""
    udp = namespace.udp(address)
    udp.settimeout(5)
    udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
    if udp.family == socket.AF_INET:
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    else:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    return udp


def _send(here: socket.socket, to: socket.socket, marks: Iterable[int]) -> None:
    """A numbered datagram for each mark; equal ones in one call, so that they are likely to be merged."""
    numbers = itertools.count()
    for mark, run in itertools.groupby(marks):
        if here.family == socket.AF_INET:
            here.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, DSCP | mark)
        else:
            here.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, DSCP | mark)
        parts = [struct.pack("!I", next(numbers)).ljust(SIZE, b"\0") for _ in run]
        segments = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", SIZE))
        here.sendmsg(parts, [segments] if len(parts) > 1 else [], 0, to.getsockname()[:2])


def _receive(udp: socket.socket, count: int) -> list[tuple[int, int]]:
    """Number and traffic class of so many datagrams."""
    found = []
    for _ in range(count):
        payload, ancillary, _, _ = udp.recvmsg(2000, 100)
        assert len(payload) == SIZE
        ((_, _, value),) = ancillary
        # A byte with IPv4, an int with IPv6.
        found.append((struct.unpack_from("!I", payload)[0], int.from_bytes(value, sys.byteorder)))
    return found
