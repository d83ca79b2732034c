"""The laboratory itself, with wireguard-go in the gateway's place: what fails here is not fzgw's fault."""

from __future__ import annotations

import pytest

from . import services
from .gateway import Peer, StandIn
from .netlab import Laboratory, remove_leftovers, run
from .nftbooks import NftBooks
from .records import Tally
from .traffic import (
    DNS_NAME,
    DNS_V4,
    DNS_V6,
    Server,
    churn,
    dig,
    download,
    echo_udp,
    iperf3,
    ping,
    server_address,
    upload,
)
from .wg import Client


@pytest.mark.parametrize("underlay", [4, 6])
def test_the_laboratory_carries_everything(
    laboratory: Laboratory, server: Server, clients: tuple[Client, Client], underlay: int
) -> None:
    """Ping, HTTP, iperf3, DNS and echo work from both clients, and the counters see them."""
    stand_in = StandIn(laboratory, [Peer.of(client) for client in clients])
    books = NftBooks(laboratory.gateway, stand_in.interface)
    before = books.quiet()
    for client in clients:
        client.join(stand_in.public_key, stand_in.port, family=underlay)

    size = 2_000_000
    for client in clients:
        for family, own in ((4, client.site.v4), (6, client.site.v6)):
            address = server_address(family)
            assert ping(client.namespace, address).received == 5
            assert download(client.namespace, address, size) == services.pattern_digest(size)
            assert upload(client.namespace, address, size) == services.pattern_digest(size)
            assert dig(client.namespace, address, DNS_NAME, "A") == [DNS_V4]
            assert dig(client.namespace, address, DNS_NAME, "AAAA", "+tcp") == [DNS_V6]
            churn(client.namespace, address, 10)
            echo_udp(client.namespace, own, address, count=3)
    assert iperf3(clients[0].namespace, server_address(4), "-n", "1M")["sum_received"]["bytes"] > 0

    counted = books.quiet() - before
    for side in ("from_peer", "to_peer"):
        assert counted.get(side, "icmp") == Tally(10, 10 * 84)
        assert counted.get(side, "icmpv6") - counted.get(side, "multicast6") == Tally(10, 10 * 104)
        # Three echoes and one DNS question by UDP for each of two clients and two families.
        assert counted.get(side, "udp").packets == 16
        assert not counted.get(side, "other").packets
    udp = {key for key in books.tuples()["from_peer"] if key[2] == 17}
    assert len(udp) == 8, "one socket for the echoes and one for the question, by client and family"


def test_the_laboratory_leaves_nothing() -> None:
    """Namespaces and sockets are gone afterwards, also when the body failed."""
    laboratory = Laboratory()

    def interrupted() -> None:
        with laboratory:
            assert laboratory.prefix in run("ip", "netns", "list")
            assert Client(laboratory, laboratory.clients[0]).log()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert laboratory.prefix not in run("ip", "netns", "list")
    assert not laboratory.folder.exists()


def test_leftovers_of_a_killed_run_go() -> None:
    """A namespace named after a process that is no more is removed, one of a living process is not."""
    dead = "fz4194305-0-gateway"  # above the largest process id that Linux gives
    run("ip", "netns", "add", dead)
    with Laboratory() as laboratory:
        remove_leftovers()
        names = run("ip", "netns", "list")
        assert dead not in names
        assert laboratory.gateway.name in names
