"""Access rules at the wire: what is denied goes nowhere, the client is told, the record says why."""

from __future__ import annotations

import errno

import pytest

from . import services
from .conftest import Gateways
from .gateway import Peer
from .netlab import Capture, Laboratory
from .records import TCP, UDP, Tally
from .traffic import Server, echo_tcp, echo_udp, ping, refused, server_address
from .wg import Client

DENIED_PORT = 5201
"""iperf3 listens there: without rules it would be reached."""

ACCESS = f"""
[[resources]]
name = "echo"
addresses = ["10.92.0.0/24", "fd92::/64"]
ports = ["tcp/{services.ECHO_PORT}", "udp/{services.ECHO_PORT}"]

[[rules]]
name = "engineers-echo"
groups = ["engineering"]
resources = ["echo"]
"""


@pytest.mark.parametrize("family", [4, 6])
def test_a_denied_port(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client], family: int
) -> None:
    """A denied SYN gets ICMP "administratively prohibited", opens a denied flow, and never reaches the server.

    R23, P1, scenario 29, L2b.
    """
    client = clients[0]
    peers = [Peer.of(client, groups=("engineering",)), Peer.of(clients[1])]
    gateway = gateways.start(peers=peers, access=ACCESS)
    address = server_address(family)
    own = client.site.v4 if family == 4 else client.site.v6
    outside = Capture(laboratory, laboratory.server, "eth0", "ip or ip6")
    icmp = "icmp[0] == 3 and icmp[1] == 13" if family == 4 else "icmp6 and ip6[40] == 1 and ip6[41] == 1"
    told = Capture(laboratory, client.namespace, client.interface, icmp)

    echo_tcp(client.namespace, address)
    echo_udp(client.namespace, own, address)
    # Linux tells a connecting program: "No route to host" for the one of IPv4, "Permission denied" for that of IPv6.
    error = refused(client.namespace, address, DENIED_PORT)
    assert error.errno == (errno.EHOSTUNREACH if family == 4 else errno.EACCES)
    with client.namespace.udp(own) as udp:
        udp.settimeout(5)
        udp.connect((address, DENIED_PORT))
        udp.send(bytes(100))
        with pytest.raises(OSError, match=r"No route to host|Permission denied"):
            udp.recv(100)
    # Not in the group: denied everywhere.
    error = refused(clients[1].namespace, address, services.ECHO_PORT)
    assert error.errno in (errno.EHOSTUNREACH, errno.EACCES)
    # Echo is not among the resource's ports (P2).
    assert ping(client.namespace, address, count=2).received == 0

    told.stop()
    outside.stop()
    # Linux may be busy with a socket when the answer to its SYN comes, and then sends the SYN once more.
    assert len(told.packets()) in (4, 5)
    outcome = gateway.stop()
    attempts = outcome.books.dropped("from_peer", "denied").packets
    assert outcome.books.originated == {"prohibited_to_peer": attempts}

    header = 20 if family == 4 else 40
    records = outcome.records
    syn = records.one(verdict="deny", protocol=TCP, port=DENIED_PORT, peer="client1", destination=address)
    assert syn.attempts in (1, 2)
    assert (syn.rule, syn.out, syn.back) == ("default-deny", Tally(), Tally())
    assert syn.attempted_bytes == syn.attempts * (header + 40), "a SYN with its options"
    assert (syn.line["activity_id"], syn.line["action_id"]) == (5, 2)
    datagram = records.one(verdict="deny", protocol=UDP, port=DENIED_PORT, peer="client1")
    assert (datagram.attempts, datagram.attempted_bytes) == (1, header + 8 + 100)
    assert records.one(verdict="deny", peer="client2").attempts in (1, 2)
    (echo,) = (flow for flow in records.matching(verdict="deny", peer="client1") if flow.protocol not in (TCP, UDP))
    assert echo.attempts == 2

    allowed = records.matching(verdict="allow")
    assert {flow.protocol for flow in allowed} == {TCP, UDP}
    assert {(flow.peer, flow.rule, flow.unmapped["resource"]) for flow in allowed} == {
        ("client1", "engineers-echo", "echo")
    }

    at_server = outside.ports()
    assert services.ECHO_PORT in at_server
    assert DENIED_PORT not in at_server
    assert outside.addresses().isdisjoint({clients[1].site.v4, clients[1].site.v6})


def test_the_outside_needs_a_rule_too(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """With rules, what comes from outside without a flow and without an inbound rule is denied (P1, P4).

    The answers to what the client asks pass all the while.
    """
    peers = [Peer.of(clients[0], groups=("engineering",)), Peer.of(clients[1])]
    gateway = gateways.start(peers=peers, access=ACCESS)
    client = clients[0]
    echo_udp(client.namespace, client.site.v4, server_address(4), count=3)
    arrived = Capture(laboratory, client.namespace, client.interface, "udp dst port 7777 or icmp[0] == 8")
    with laboratory.server.udp(server_address(4)) as udp:
        udp.settimeout(5)
        udp.connect((client.site.v4, 7777))
        udp.send(b"knock")
        with pytest.raises(OSError, match="No route to host"):
            udp.recv(100)
    assert ping(laboratory.server, client.site.v4, count=2).received == 0
    arrived.stop()

    assert arrived.packets() == []
    outcome = gateway.stop()
    knock = outcome.records.one(verdict="deny", protocol=UDP)
    assert (knock.direction, knock.rule, knock.attempts) == ("inbound", "default-deny", 1)
    assert knock.peer == "client1"
    assert outcome.books.dropped("to_peer", "denied").packets == 3
    assert outcome.records.one(verdict="allow").back.packets == 3
