"""What people do over a VPN works through the gateway, and the records say who did it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from . import services
from .conftest import Gateways
from .netlab import EXIT_V4, EXIT_V6, Capture, Laboratory
from .records import ICMP, ICMPV6, TCP, UDP, Tally
from .traffic import (
    DNS_NAME,
    DNS_V4,
    DNS_V6,
    IPERF_PORT,
    Server,
    churn,
    dig,
    download,
    echo_tcp,
    iperf3,
    ping,
    server_address,
    upload,
)
from .wg import Client

HUNDRED_MB = 100_000_000


def test_ping(gateways: Gateways, server: Server, clients: tuple[Client, Client]) -> None:
    """Both clients ping over IPv4 and IPv6: four echo flows, each with its peer, every packet and byte counted.

    R1, R12, R20, R27, scenario 26; the underlay is IPv4 for client1 and IPv6 for client2.
    """
    gateway = gateways.start()
    for client in clients:
        for family in (4, 6):
            assert ping(client.namespace, server_address(family), count=5).received == 5
    records = gateway.stop().records

    assert len(records.closed) == 4
    for client in clients:
        for protocol, family, own, size in ((ICMP, 4, client.site.v4, 84), (ICMPV6, 6, client.site.v6, 104)):
            flow = records.one(peer=client.site.name, protocol=protocol)
            assert flow.tuple == (own, 0, server_address(family), 0)
            assert flow.source["uid"] == client.public_key
            assert flow.out == flow.back == Tally(5, 5 * size)
            assert (flow.direction, flow.verdict, flow.end_reason) == ("outbound", "allow", "shutdown")
            assert flow.unmapped["icmp"]["type"] == (8 if family == 4 else 128)


@pytest.mark.parametrize("family", [4, 6])
def test_http_100_mb_each_way(gateways: Gateways, server: Server, clients: tuple[Client, Client], family: int) -> None:
    """100 MB down and 100 MB up arrive unharmed; each transfer is one flow that ended with FIN (R8) and holds it all.

    client1 over IPv4, client2 over IPv6, tunnel and underlay alike.
    """
    gateway = gateways.start()
    client = clients[0] if family == 4 else clients[1]
    address = server_address(family)
    assert download(client.namespace, address, HUNDRED_MB) == services.pattern_digest(HUNDRED_MB)
    assert upload(client.namespace, address, HUNDRED_MB) == services.pattern_digest(HUNDRED_MB)
    records = gateway.stop().records

    flows = records.matching(peer=client.site.name, protocol=TCP, port=services.HTTP_PORT, destination=address)
    assert [flow.end_reason for flow in flows] == ["fin", "fin"]
    down, up = sorted(flows, key=lambda flow: flow.unmapped["payload_out"])
    assert HUNDRED_MB <= down.unmapped["payload_in"] < down.back.bytes
    assert HUNDRED_MB <= up.unmapped["payload_out"] < up.out.bytes
    assert down.unmapped["payload_out"] < 1000 > up.unmapped["payload_in"]


@pytest.mark.parametrize("family", [4, 6])
def test_iperf3(gateways: Gateways, server: Server, clients: tuple[Client, Client], family: int) -> None:
    """iperf3 over TCP and UDP, each way: the record of the data connection holds what iperf3 says it moved."""
    gateway = gateways.start()
    client, address = clients[0], server_address(family)
    up = iperf3(client.namespace, address, "-t", "1")
    down = iperf3(client.namespace, address, "-t", "1", "-R")
    udp_up = iperf3(client.namespace, address, "-t", "1", "-u", "-b", "10M", "-l", "1200")["sum"]
    udp_down = iperf3(client.namespace, address, "-t", "1", "-u", "-b", "10M", "-l", "1200", "-R")["sum"]
    records = gateway.stop().records

    streams = [flow.unmapped for flow in records.matching(protocol=TCP, port=IPERF_PORT, peer=client.site.name)]
    assert max(stream["payload_out"] for stream in streams) >= up["sum_received"]["bytes"]
    assert max(stream["payload_in"] for stream in streams) >= down["sum_received"]["bytes"]

    first, second = records.matching(protocol=UDP, port=IPERF_PORT, peer=client.site.name)
    sent, received = (first, second) if first.out.packets > first.back.packets else (second, first)
    # One datagram each way begins a test; what was lost was lost before the gateway or after it.
    assert udp_up["packets"] - udp_up["lost_packets"] <= sent.out.packets <= udp_up["packets"] + 1
    assert udp_down["packets"] - udp_down["lost_packets"] <= received.back.packets <= udp_down["packets"] + 1
    assert udp_up["lost_percent"] < 1 > udp_down["lost_percent"]


def test_dns(gateways: Gateways, server: Server, clients: tuple[Client, Client]) -> None:
    """Real DNS questions through the tunnel, over UDP and TCP: one flow each, a packet out and one in for UDP (R11)."""
    gateway = gateways.start()
    client = clients[0]
    for family in (4, 6):
        assert dig(client.namespace, server_address(family), DNS_NAME, "A") == [DNS_V4]
        assert dig(client.namespace, server_address(family), DNS_NAME, "AAAA") == [DNS_V6]
        assert dig(client.namespace, server_address(family), DNS_NAME, "A", "+tcp") == [DNS_V4]
    records = gateway.stop().records

    for family in (4, 6):
        address = server_address(family)
        questions = records.matching(protocol=UDP, destination=address, port=53, peer=client.site.name)
        assert [(flow.out.packets, flow.back.packets) for flow in questions] == [(1, 1), (1, 1)]
        # TCP: a length of two bytes before the question. The question's size is the same both times but for that.
        assert records.one(protocol=TCP, destination=address, port=53).end_reason == "fin"


def test_two_peers_at_once(gateways: Gateways, server: Server, clients: tuple[Client, Client]) -> None:
    """Both clients at once, from the same source port to the same server: no packet is charged to the other (R2).

    Each has a download and short connections, on both families.
    """
    gateway = gateways.start()
    size, connections = 10_000_000, 40

    def work(client: Client) -> str:
        own = {4: client.site.v4, 6: client.site.v6}
        for family in (4, 6):
            churn(client.namespace, server_address(family), connections)
            with client.namespace.udp(own[family], 40_000) as udp:
                udp.settimeout(5)
                udp.sendto(client.site.name.encode(), (server_address(family), services.ECHO_PORT))
                assert udp.recv(100) == client.site.name.encode()
        return download(client.namespace, server_address(4), size)

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(work, clients)) == {services.pattern_digest(size)}
    records = gateway.stop().records

    for client in clients:
        own = {client.site.v4, client.site.v6}
        assert {flow.tuple[0] for flow in records.matching(peer=client.site.name)} == own
        for family in (4, 6):
            to_echo = {"peer": client.site.name, "destination": server_address(family), "port": services.ECHO_PORT}
            assert len(records.matching(protocol=TCP, end_reason="fin", **to_echo)) == connections
            echoed = records.one(protocol=UDP, source_port=40_000, **to_echo)
            assert echoed.out == echoed.back == Tally(1, (28 if family == 4 else 48) + len(client.site.name))
        (fetched,) = records.matching(peer=client.site.name, port=services.HTTP_PORT)
        assert fetched.unmapped["payload_in"] >= size


def test_a_server_reaches_into_the_tunnel(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """A flow that the server opens is inbound, with the server as initiator (R3, scenario 25)."""
    gateway = gateways.start()
    client = clients[0]
    assert ping(client.namespace, server_address(4), count=1).received == 1  # the gateway learns where the client is
    answered = ping(laboratory.server, client.site.v4, count=4)
    assert answered.received == 4
    records = gateway.stop().records

    flow = records.one(direction="inbound")
    assert flow.tuple == (server_address(4), 0, client.site.v4, 0)
    assert flow.peer == client.site.name
    assert flow.out == flow.back == Tally(4, 4 * 84)


def test_masquerade_shows_the_gateways_address(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """With `nat.mode = "masquerade"` the server sees the gateway's exit address only, and needs no route back."""
    laboratory.server_knows_tunnel(False)
    gateway = gateways.start(nat="masquerade")
    seen = Capture(laboratory, laboratory.server, "eth0", f"tcp port {services.ECHO_PORT} or ip6")
    for client in clients:
        for family in (4, 6):
            source, _ = echo_tcp(client.namespace, server_address(family))
            assert source in (client.site.v4, client.site.v6)
    seen.stop()
    records = gateway.stop().records

    tunnel = [*(site.v4 for site in laboratory.clients), *(site.v6 for site in laboratory.clients)]
    addresses = seen.addresses()
    assert {EXIT_V4, EXIT_V6} <= addresses
    assert not addresses & set(tunnel)
    assert {flow.tuple[0] for flow in records.closed if flow.protocol == TCP} == set(tunnel)
