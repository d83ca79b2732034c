"""A configuration that changes under traffic."""

from __future__ import annotations

from . import services
from .conftest import UNDERLAY, Gateways
from .gateway import Peer
from .netlab import wait_until
from .records import UDP
from .test_access import ACCESS
from .traffic import Server, Trickle, ping, server_address
from .wg import Client


def test_a_reload_drops_no_packet_of_an_unchanged_peer(
    gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """SIGHUP removes client2 and adds rules, and later takes it back: client1 does not lose one datagram.

    client2's flow ends as `peer_removed`; its packets are served again after the second reload.
    """
    stays, goes = clients
    engineer, other = Peer.of(stays, groups=("engineering",)), Peer.of(goes, groups=("engineering",))
    gateway = gateways.start(peers=[engineer, other])
    trickles = [Trickle(client.namespace, client.site.v4, server_address(4), every=0.01) for client in clients]
    for trickle in trickles:
        trickle.start()
    try:
        wait_until(lambda: all(len(trickle.returned) > 50 for trickle in trickles), "both are served")
        gateway.reload([engineer], access=ACCESS)
        answered = len(trickles[1].returned)
        so_far = len(trickles[0].returned)
        wait_until(lambda: len(trickles[0].returned) > so_far + 50, "the one that stays is served")
        assert len(trickles[1].returned) <= answered + 1
        gateway.reload([engineer, other])
    finally:
        for trickle in trickles:
            trickle.stop()

    # Its session is gone; a new one comes by itself, or at once from a client that starts anew.
    goes.set("peer", gateway.public_key, "remove")
    goes.know(gateway.public_key, gateway.port, family=UNDERLAY[goes.site.number])
    assert ping(goes.namespace, server_address(4)).received == 5
    records = gateway.stop().records

    assert len(trickles[0].returned) == trickles[0].sent
    kept = records.one(protocol=UDP, peer=stays.site.name, port=services.ECHO_PORT)
    assert kept.out.packets == kept.back.packets == trickles[0].sent
    assert kept.end_reason == "shutdown"
    removed = records.one(protocol=UDP, peer=goes.site.name, port=services.ECHO_PORT)
    assert removed.end_reason == "peer_removed"


def test_a_wrong_configuration_changes_nothing(
    gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """A reload is all or nothing: one that is wrong is refused with a reason, and everything goes on."""
    gateway = gateways.start()
    client = clients[0]
    assert ping(client.namespace, server_address(4)).received == 5
    broken = Peer("client1", "not a key", client.site.allowed_ips)
    gateway.reload([broken], answer="reload_refused")
    for each in clients:
        assert ping(each.namespace, server_address(4)).received == 5
    assert len(gateway.stop().records.matching(peer=client.site.name)) == 2
