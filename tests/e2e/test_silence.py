"""Who does not have the right keys hears nothing at all, not even that somebody is there."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from .conftest import Gateways
from .gateway import PORT, Fzgw, Peer
from .netlab import Capture, Laboratory, Namespace, join, wait_until
from .traffic import Server, ping, server_address
from .wg import Client, generate_preshared_key, generate_private_key, public_key

INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT = 1, 2, 3, 4


class Wire:
    """The underlay of one client, as tcpdump sees it at the gateway."""

    def __init__(self, laboratory: Laboratory, client: int) -> None:
        self._capture = Capture(laboratory, laboratory.gateway, f"to-client{client}", f"udp port {PORT}")

    def from_gateway(self, to: str | None = None) -> list[bytes]:
        """What left the gateway's port so far, to one address or to all."""
        said = [datagram for datagram in self._capture.datagrams() if datagram.source_port == PORT]
        return [datagram.payload for datagram in said if to in (None, datagram.destination)]

    def to_gateway(self, kind: int | None = None) -> list[bytes]:
        """What was sent to the gateway's port so far, of one message type or of all."""
        sent = [datagram.payload for datagram in self._capture.datagrams() if datagram.destination_port == PORT]
        return sent if kind is None else [payload for payload in sent if payload[:1] == bytes([kind])]


@pytest.mark.parametrize(("number", "family"), [(0, 4), (1, 6)])
@pytest.mark.parametrize("wrong", ["own key", "gateway's key"])
def test_a_wrong_key_is_met_with_silence(
    laboratory: Laboratory,
    gateways: Gateways,
    server: Server,
    clients: tuple[Client, Client],
    wrong: str,
    number: int,
    family: int,
) -> None:
    """A client whose key the gateway does not know, or that takes another key for the gateway's, gets no datagram.

    The first passes MAC1, the second does not. tcpdump sees their initiations and no answer; afterwards the other
    client is served.
    """
    gateway = gateways.start(join=False)
    wire = Wire(laboratory, number + 1)
    stranger = clients[number]
    key = gateway.public_key
    if wrong == "own key":
        stranger.set_private_key(generate_private_key())
    else:
        key = public_key(generate_private_key())
    stranger.join(key, gateway.port, family=family)
    with stranger.namespace.udp(stranger.site.v4) as udp:
        udp.sendto(b"hello?", (server_address(4), 9))
    # The second one comes after five seconds without an answer.
    wait_until(lambda: len(wire.to_gateway(INITIATION)) >= 2, "two initiations", timeout=15)

    other = clients[1 - number]
    other.join(gateway.public_key, gateway.port, family=10 - family)
    assert ping(other.namespace, server_address(4)).received == 5
    assert wire.from_gateway() == []
    assert not stranger.has_session()
    outcome = gateway.stop()
    assert wire.from_gateway() == []
    assert {flow.peer for flow in outcome.records.closed} == {other.site.name}


def _garbage() -> Iterator[bytes]:
    """Datagrams that no key holder sends."""
    yield b""
    for size in (1, 3, 4, 31, 32, 33, 64, 92, 148, 149, 1400):
        yield os.urandom(size)
    for kind, size in ((INITIATION, 148), (RESPONSE, 92), (COOKIE_REPLY, 64), (TRANSPORT, 32), (TRANSPORT, 1400)):
        header = struct.pack("<I", kind)
        for index in (0, 1, 0xFFFFFFFF, int.from_bytes(os.urandom(4), "little")):
            yield (header + struct.pack("<I", index)).ljust(size, b"\0")
            yield header + struct.pack("<I", index) + os.urandom(size - 8)
        yield header + os.urandom(size - 5)  # a byte too short
        yield header + os.urandom(size)  # too long


def test_garbage_is_met_with_silence(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """Random bytes, true shapes with a bad MAC1 and unknown receivers: no answer, each counted as dropped.

    A flood of initiations with a bad MAC1, far above the handshake gate's rate, is not even worth a cookie.
    """
    gateway = gateways.start(join=False)
    wire = Wire(laboratory, 1)
    here = clients[0].site
    before = gateway.books().stats["datagrams"]
    sent = _send(here.namespace, gateway, list(_garbage()))
    flood = [struct.pack("<I", INITIATION) + os.urandom(144) for _ in range(2000)]
    sent += _send(here.namespace, gateway, flood)

    def counted() -> bool:
        now = gateway.books().stats["datagrams"]
        new = sum(now["dropped"].values()) - sum(before["dropped"].values())
        return bool(new == now["received"] - before["received"] == sent)

    wait_until(lambda: len(wire.to_gateway()) == sent, "all of them are on the wire")
    wait_until(counted, f"{sent} datagrams are counted as dropped", every=0.2)
    assert wire.from_gateway() == []

    # It is there all the same, for who has a key.
    clients[1].join(gateway.public_key, gateway.port, family=6)
    assert ping(clients[1].namespace, server_address(6)).received == 5
    gateway.stop()
    assert wire.from_gateway() == []


def test_a_replayed_initiation_is_met_with_silence(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """A true initiation that was recorded on the wire is answered once: its timestamp is old when it comes again."""
    gateway = gateways.start(join=False)
    wire = Wire(laboratory, 1)
    client = clients[0]
    client.join(gateway.public_key, gateway.port)
    assert ping(client.namespace, server_address(4)).received == 5
    client.stop()
    (recorded,) = wire.to_gateway(INITIATION)
    answers = wire.from_gateway()
    sent = len(wire.to_gateway())

    _send(client.site.namespace, gateway, [recorded] * 5)
    wait_until(lambda: len(wire.to_gateway()) == sent + 5, "the replays are on the wire")
    wait_until(lambda: sum(gateway.books().stats["datagrams"]["dropped"].values()) >= 5, "replays are dropped")
    assert wire.from_gateway() == answers


@pytest.mark.parametrize("right", [True, False])
def test_preshared_key(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client], right: bool
) -> None:
    """With the right preshared key a client is served; with a wrong one, or none, no data ever passes."""
    keys = [generate_preshared_key(), generate_preshared_key()]
    peers = [Peer.of(client, preshared_key=key) for client, key in zip(clients, keys, strict=True)]
    gateway = gateways.start(peers=peers, join=False)
    if right:
        for client, key, family in zip(clients, keys, (4, 6), strict=True):
            client.join(gateway.public_key, gateway.port, family=family, preshared_key=key)
            assert ping(client.namespace, server_address(4)).received == 5
        assert {flow.peer for flow in gateway.stop().records.closed} == {"client1", "client2"}
        return

    clients[0].join(gateway.public_key, gateway.port, preshared_key=generate_preshared_key())
    clients[1].join(gateway.public_key, gateway.port, family=6)
    wires = [Wire(laboratory, 1), Wire(laboratory, 2)]
    for client in clients:
        assert ping(client.namespace, server_address(4), count=3).received == 0
        assert not client.has_session()
    for wire in wires:
        assert wire.to_gateway(INITIATION)
        assert not wire.to_gateway(TRANSPORT)
        assert not [said for said in wire.from_gateway() if said[:1] == bytes([TRANSPORT])]
    outcome = gateway.stop()
    assert outcome.records.closed == []
    assert outcome.books.packets("from_peer", "received").packets == 0


def _send(namespace: Namespace, gateway: Fzgw, datagrams: list[bytes]) -> int:
    """Throw datagrams at the gateway's port from a client's underlay; how many."""
    source = "10.91.1.2"
    with namespace.udp(source) as udp:
        for number, datagram in enumerate(datagrams):
            udp.sendto(datagram, ("10.91.1.1", gateway.port))
            if number % 50 == 49:
                # So that neither a socket buffer nor the capture overflows: this is about answers, not about load.
                udp.settimeout(0.01)
                try:
                    answer = udp.recv(2048)
                except TimeoutError:
                    continue
                raise AssertionError(f"an answer to {join(source, 0)}: {answer!r}")
    return len(datagrams)
