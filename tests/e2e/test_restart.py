"""The gateway stops and starts again under its clients."""

from __future__ import annotations

import json

from . import services
from .conftest import Gateways
from .netlab import Laboratory, wait_until
from .records import TCP, UDP
from .traffic import Server, Trickle, server_address
from .wg import Client

RECOVER_WITHIN = 40
"""Seconds: a client notices after 15 s of silence, and tries every 5 s."""


def test_clients_come_back_by_themselves(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """SIGTERM mid-flow delivers every record, closed by `shutdown` (R27); the next start serves the same clients again.

    Nobody touches the clients: a datagram flow and a TCP connection of theirs go on where they were.
    """
    gateway = gateways.start()
    client = clients[0]
    trickle = Trickle(client.namespace, client.site.v4, server_address(4), every=0.1)
    trickle.start()
    try:
        wait_until(lambda: len(trickle.returned) > 10, "answers before the restart")
        with client.namespace.connect(server_address(6), services.ECHO_PORT, timeout=RECOVER_WITHIN) as stream:
            stream.sendall(b"before")
            assert stream.recv(100) == b"before"

            first = gateway.stop().records
            _nothing_left(laboratory, gateway.interface)
            answered = len(trickle.returned)
            gateway.start()
            wait_until(lambda: len(trickle.returned) > answered + 10, "answers after the restart", RECOVER_WITHIN)

            stream.sendall(b"after")
            assert stream.recv(100) == b"after"
    finally:
        trickle.stop()
    second = gateway.stop().records

    before = first.one(protocol=UDP, source_port=trickle.port, peer=client.site.name)
    assert before.end_reason == "shutdown"
    assert first.one(protocol=TCP, port=services.ECHO_PORT).end_reason == "shutdown"
    after = second.one(protocol=UDP, source_port=trickle.port, peer=client.site.name)
    assert before.uid != after.uid, "R4: unique across restarts"
    assert before.out.packets + after.out.packets < trickle.sent, "what was sent in between is nobody's"
    assert before.back.packets + after.back.packets >= len(trickle.returned)
    # Met in the middle: the first segment with payload opens, and nobody knows who began (R6, R3).
    assert second.one(protocol=TCP, port=services.ECHO_PORT).line["is_src_dst_assignment_known"] is False


def test_a_second_start_replaces_what_a_kill_left(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """After SIGKILL the next start works, masquerade included: leftovers of the killed run are replaced."""
    laboratory.server_knows_tunnel(False)
    gateway = gateways.start(nat="masquerade", join=False)
    gateway.kill()
    gateway.start()
    gateways.join(gateway)
    with clients[0].namespace.connect(server_address(4), services.ECHO_PORT) as stream:
        stream.sendall(b"hello")
        assert stream.recv(100) == b"hello"
    assert gateway.stop().records.one(protocol=TCP).peer == "client1"
    _nothing_left(laboratory, gateway.interface)


def test_a_removed_device_ends_the_gateway(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """A device that is down is waited for; one that somebody removed ends the gateway with exit 1 and the reason, its
    records delivered, its books closed and the host put back."""
    gateway = gateways.start()
    laboratory.gateway.ip("link", "set", gateway.interface, "down")
    laboratory.gateway.ip("link", "set", gateway.interface, "up")
    with clients[0].namespace.connect(server_address(4), services.ECHO_PORT) as stream:
        stream.sendall(b"hello")
        assert stream.recv(100) == b"hello"
        laboratory.gateway.ip("link", "delete", gateway.interface)
        code, books = gateway.ends_by_itself()
    assert code == 1
    assert "the TUN device is gone" in gateway.log()
    assert books.stats["balanced"]
    assert gateway.records().one(protocol=TCP).end_reason == "shutdown"
    _nothing_left(laboratory, gateway.interface)


def _nothing_left(laboratory: Laboratory, interface: str) -> None:
    """No device, table, rule or forwarding of the gateway remains in its namespace."""
    links = {link["ifname"] for link in json.loads(laboratory.gateway.ip("-j", "link"))}
    assert interface not in links
    assert laboratory.gateway.run("nft", "list", "tables") == ""
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        assert laboratory.gateway.run("sysctl", "-n", key).strip() == "0"
