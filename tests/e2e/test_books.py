"""The books against something that is not ours: nftables counts the same packets at the device's two hooks.

With segmentation offload super-packets cross the device. Then it counts at the meter in the cable to the server, where
they are cut; what never gets there (rules, lies, peers that are away) is counted at a plain device.

Everything that the gateway wrote to its TUN device, and everything that the kernel gave to it, must be in a record, in
`icmp_errors`, in `untracked`, or dropped for a reason after the device: exactly, per direction and protocol, in packets
and in bytes, and for TCP and UDP per five-tuple.
"""

from __future__ import annotations

import contextlib
import socket
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from . import services
from .conftest import Gateways
from .gateway import Fzgw, Outcome, Peer
from .ledgers import SIDES, Books, check_balanced
from .load import carry, make_flows
from .netlab import GATEWAY_TUNNEL_ADDRESSES, Laboratory, Namespace, wait_until
from .nftbooks import NftBooks, Reading, Tuple, queue_drops
from .records import ICMP, ICMPV6, TCP, UDP, Tally
from .superpackets import SuperPackets
from .test_access import ACCESS, DENIED_PORT
from .traffic import Server, churn, dig, download, echo_udp, iperf3, ping, refused, server_address, upload
from .wg import MTU, Client, generate_private_key, public_key

GHOST_V4, GHOST_V6 = "100.64.0.9", "fd00:64::9"
GHOST = Peer("ghost", public_key(generate_private_key()), [f"{GHOST_V4}/32", f"{GHOST_V6}/128"])
"""A peer that never comes: what is sent to it ends as dropped{no_session}."""
CLOSED_PORT = 9
EXPERIMENTAL = 253
"""An IP protocol without ports."""

MORE_CLASSES = {
    "ghost4": f"ip daddr {GHOST_V4}",
    "ghost6": f"ip6 daddr {GHOST_V6}",
    # "Administratively prohibited": in these tests nobody says it but the gateway.
    "own4": "icmp type destination-unreachable icmp code 13",
    "own6": "icmpv6 type destination-unreachable icmpv6 code 1",
}


class Audit:
    """Both books over the same traffic: opened on a quiet interface, compared when it is quiet again.

    With a `meter` that is where the kernel counts, instead of at the device: then all traffic must pass it.
    """

    def __init__(self, laboratory: Laboratory, gateway: Fzgw, meter: Namespace | None = None) -> None:
        self.gateway = gateway
        self._at_device = meter is None
        # What is dropped in their queues, the kernel has counted and nobody else.
        self._queues = [(laboratory.gateway, gateway.interface)]
        if meter is None:
            self.kernel = NftBooks(laboratory.gateway, gateway.interface, MORE_CLASSES)
        else:
            self.kernel = NftBooks(meter, "to-gateway", MORE_CLASSES, opposite="to-server")
            self._queues += [(meter, "to-gateway"), (laboratory.gateway, "exit")]
        self._drops_before = self._drops()
        # What the kernel itself says on a new interface came before the counters or is in both readings.
        self._kernel_before, self._ours_before = wait_until(self._both_quiet, "the new interface is quiet", timeout=30)
        for side in SIDES:
            assert self._ours_before.packets(side, "forwarded") == Tally(), "counted before the first packet"

    def close(self, *, own: int = 0) -> Outcome:
        """Compare everything; the gateway is stopped by it. `own`: packets that it made for the outside itself."""
        after, ours = wait_until(self._both_quiet, "the interface is quiet again", timeout=30)
        assert self._drops() == self._drops_before, "the laboratory overran a device's queue: nobody can count that"
        counted = after - self._kernel_before
        self._compare_packets(counted, ours)

        outcome = self.gateway.stop()
        at_the_end = self.kernel.read()
        for side in SIDES:
            for name in ("tcp", "udp", "icmp", "other"):
                assert at_the_end.get(side, name) == after.get(side, name), "traffic after the books were closed"
        assert counted.get("from_peer", "own4", "own6").packets == own
        assert outcome.books.originated.get("prohibited_to_outside", 0) == own
        self._compare_protocols(counted, outcome)
        self._compare_tuples(outcome)
        return outcome

    def _drops(self) -> list[int]:
        return [queue_drops(*queue) for queue in self._queues]

    def _both_quiet(self) -> tuple[Reading, Books] | None:
        """Both readings, if nothing was counted between them."""
        reading = self.kernel.quiet(1.0)
        ours = self.gateway.books()
        return (reading, ours) if self.kernel.read() == reading else None

    def _compare_packets(self, counted: Reading, ours: Books) -> None:
        """L1 against the kernel, while the gateway runs."""
        check_balanced(ours)
        written = ours.packets("from_peer", "forwarded") - self._ours_before.packets("from_peer", "forwarded")
        assert counted.total("from_peer") - counted.get("from_peer", "own4", "own6") == written
        given = ours.packets("to_peer", "received") - self._ours_before.packets("to_peer", "received")
        noise = ours.dropped("to_peer", "no_peer") - self._ours_before.dropped("to_peer", "no_peer")
        multicast = counted.get("to_peer", "multicast4", "multicast6")
        assert counted.total("to_peer") - multicast == given - noise
        if self._at_device:
            assert multicast == noise, "what the gateway's kernel says by itself"

    def _compare_protocols(self, counted: Reading, outcome: Outcome) -> None:
        """Records, ICMP errors, untracked and dropped against the kernel, per protocol, after the end."""
        books, records = outcome.books, outcome.records
        known = {"from_peer": {"spoofed", "denied"}, "to_peer": {"no_peer", "no_session", "denied", "redirect"}}
        for side in SIDES:
            assert books.drop_reasons(side).keys() <= known[side]
            assert books.untracked(side, "fragment") == Tally()
            errors = counted.get(side, "icmp_error", "icmpv6_error")
            own = counted.get(side, "own4", "own6") if side == "from_peer" else Tally()
            assert errors - own == books.flows(side, "icmp_errors") + books.untracked(side, "icmp_error")

            assert counted.get(side, "tcp") == records.total(side, [TCP]) + books.untracked(side, "stray")
            ghosts = counted.get(side, "ghost4", "ghost6") if side == "to_peer" else Tally()
            denied = books.dropped(side, "denied") if side == "to_peer" else Tally()
            assert counted.get(side, "udp") == records.total(side, [UDP]) + ghosts + denied
            queries = counted.get(side, "icmp") - counted.get(side, "icmp_error", "redirect4")
            assert queries == records.total(side, [ICMP])
            queries = counted.get(side, "icmpv6") - counted.get(side, "icmpv6_error", "redirect6", "multicast6")
            assert queries == records.total(side, [ICMPV6])
            # A kernel that routes from the device back into it tells the sender of a shorter way.
            assert counted.get(side, "redirect4", "redirect6") == books.dropped(side, "redirect")
            others = counted.get(side, "other") - counted.get(side, "multicast4")
            assert others == records.total(side) - records.total(side, [TCP, UDP, ICMP, ICMPV6])
            if side == "to_peer":
                assert ghosts == books.dropped(side, "no_session")

    def _compare_tuples(self, outcome: Outcome) -> None:
        """Each TCP and UDP conversation of the records against the kernel's count of the same five-tuple."""
        ours: dict[str, dict[Tuple, Tally]] = {side: defaultdict(Tally) for side in SIDES}
        for flow in outcome.records.closed:
            if flow.protocol in (TCP, UDP) and flow.verdict == "allow":
                source, source_port, destination, port = flow.tuple
                assert source is not None
                assert destination is not None
                there = (source, destination, flow.protocol, source_port, port)
                back = (destination, source, flow.protocol, port, source_port)
                out_side, in_side = SIDES if flow.direction == "outbound" else reversed(SIDES)
                ours[out_side][there] += flow.out
                ours[in_side][back] += flow.back
        theirs = self.kernel.tuples()
        for side in SIDES:
            strays = Tally()
            for key in ours[side].keys() | theirs[side].keys():
                if side == "to_peer" and (key[1] in (GHOST_V4, GHOST_V6) or key[4] == DENIED_PORT):
                    continue  # never forwarded
                difference = theirs[side][key] - ours[side][key]
                assert difference == Tally() or key[2] == TCP, f"{side} {key}: {difference}"
                strays += difference
            assert strays == outcome.books.untracked(side, "stray"), side


@pytest.mark.parametrize("nat", ["none", "masquerade"])
def test_the_books_are_exact(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client], nat: str
) -> None:
    """After a mix of traffic with churn, closed ports, pings and a client that leaves, both books say the same.

    L1, L2, R8, R13, R20, R21, R2 (a lying source never reaches the device), with and without the kernel's NAT.
    """
    laboratory.server_knows_tunnel(nat == "none")
    gateway = gateways.start(peers=[*map(Peer.of, clients), GHOST], nat=nat, tun_offload="off", join=False)
    audit = Audit(laboratory, gateway)
    gateways.join(gateway)
    _small_windows(*(client.namespace for client in clients), laboratory.server)

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(_mix, clients)) == 2 * 2 * 60
    _between_peers(*clients)
    if nat == "none":
        _from_outside(laboratory, clients[0])
    lies = _lie(clients[0])
    _leave(*clients)

    outcome = audit.close()
    assert outcome.books.dropped("from_peer", "spoofed").packets == lies
    assert outcome.books.dropped("to_peer", "no_session").packets == 6
    assert outcome.books.flows("to_peer", "icmp_errors") + outcome.books.untracked("to_peer", "icmp_error") != Tally()
    assert {flow.peer for flow in outcome.records.closed} == {"client1", "client2"}


def test_the_books_are_exact_with_offload(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """With segmentation offload both books count the segments that travel, and not the super-packets (R22).

    TCP and UDP super-packets cross the device in both directions.
    """
    meter = laboratory.insert_meter()
    laboratory.gateway.merge_on_arrival("exit")
    gateway = gateways.start(join=False)
    audit = Audit(laboratory, gateway, meter)
    crossing = SuperPackets(laboratory, gateway)
    gateways.join(gateway)
    _small_windows(*(client.namespace for client in clients), laboratory.server)

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(_mix, clients)) == 2 * 2 * 60
    _from_outside(laboratory, clients[0])
    flows, _ = carry(laboratory, make_flows(laboratory.clients), [], seconds=1, rate=200)
    assert all(flow.received == flow.sent > 100 for flow in flows)
    assert not [flow.faults for flow in flows if flow.faults]

    outcome = audit.close()
    assert crossing.seen() >= crossing.wanted(outcome.books)
    assert outcome.books.drop_reasons("from_peer") == {}
    assert outcome.books.drop_reasons("to_peer").keys() <= {"no_peer"}


def test_the_books_are_exact_with_rules(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """What rules deny is dropped before the device on the way out, after it on the way in, and counted there (L2b).

    The gateway's own "administratively prohibited" for the outside is written to the device and originated (R23).
    """
    peers = [Peer.of(clients[0], groups=("engineering",)), Peer.of(clients[1])]
    gateway = gateways.start(peers=peers, access=ACCESS, tun_offload="off", join=False)
    audit = Audit(laboratory, gateway)
    gateways.join(gateway)
    for family in (4, 6):
        churn(clients[0].namespace, server_address(family), 20)
        refused(clients[0].namespace, server_address(family), DENIED_PORT)
        refused(clients[1].namespace, server_address(family), services.ECHO_PORT)
    knocks = 0
    for source, address in ((server_address(4), clients[0].site.v4), (server_address(6), clients[1].site.v6)):
        with laboratory.server.udp(source) as udp:
            for _ in range(3):
                udp.sendto(b"knock", (address, DENIED_PORT))
                knocks += 1

    outcome = audit.close(own=knocks)
    assert outcome.books.dropped("to_peer", "denied").packets == knocks
    denied = outcome.books.dropped("from_peer", "denied").packets
    assert denied >= 4, "a SYN each, at least"
    assert outcome.books.stats["denied"]["attempts"] == knocks + denied


def test_the_books_are_exact_with_fragments(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """Fragmented pings and datagrams pass, and each fragment is counted somewhere (R15, L2).

    Under masquerade, where the kernel puts them together behind the device and takes them apart again before it.
    """
    laboratory.server_knows_tunnel(False)
    # So that it makes fragments that fit into the tunnel, as it would once it knows the path.
    laboratory.server.ip("link", "set", "eth0", "mtu", str(MTU))
    gateway = gateways.start(nat="masquerade", tun_offload="off", join=False)
    kernel = NftBooks(laboratory.gateway, gateway.interface)
    before = kernel.quiet(1.0)
    dropped_before = gateway.books().dropped("to_peer")
    gateways.join(gateway)
    client = clients[0]
    for family, own in ((4, client.site.v4), (6, client.site.v6)):
        assert ping(client.namespace, server_address(family), size=3000).received == 5
        echo_udp(client.namespace, own, server_address(family), count=5, size=5000)
    counted = kernel.quiet(1.0) - before
    outcome = gateway.stop()

    for side in SIDES:
        later = counted.get(side, "fragment4", "fragment6")
        assert later.packets == 2 * (5 * 2 + 5 * 3), "3 fragments a ping, 4 a datagram, the first ones not counted"
        forwarded = counted.total(side)
        if side == "to_peer":
            forwarded -= outcome.books.dropped(side) - dropped_before
        assert outcome.books.packets(side, "forwarded") == forwarded
        assert outcome.records.total(side) + outcome.books.untracked(side, "fragment") == forwarded
        assert outcome.books.untracked(side, "fragment").packets in (0, later.packets)


def _mix(client: Client) -> int:
    """One client's traffic over both families; how many short connections it made."""
    here = client.namespace
    connections = 0
    for family, own in ((4, client.site.v4), (6, client.site.v6)):
        there = server_address(family)
        connections += churn(here, there, 60)
        for size in (1, 100, 1300):
            echo_udp(here, own, there, count=3, size=max(size, 4))
        assert ping(here, there, count=3).received == 3
        assert ping(here, there, count=2, size=1200).received == 2
        dig(here, there, "wiki.example.test", "A")
        assert upload(here, there, 3_000_000) == services.pattern_digest(3_000_000)
        assert download(here, there, 3_000_000) == services.pattern_digest(3_000_000)
        for _ in range(5):
            assert isinstance(refused(here, there, CLOSED_PORT), ConnectionRefusedError)
        with here.udp(own) as udp:
            udp.connect((there, CLOSED_PORT))
            udp.settimeout(2)
            udp.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                udp.recv(10)
        with here.entered(), socket.socket(udp.family, socket.SOCK_RAW, EXPERIMENTAL) as raw:
            raw.bind((own, 0))
            for size in (0, 7, 500):
                raw.sendto(bytes(size), (there, 0))
        # An abortive close: RST instead of FIN.
        with here.connect(there, services.ECHO_PORT) as stream:
            stream.send(b"goodbye")
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    if client.site.number == 1:
        for arguments in (("-b", "40M"), ("-b", "40M", "-R")):
            iperf3(here, server_address(4), "-n", "3M", *arguments)
        for arguments in (("-b", "10M"), ("-b", "10M", "-R")):
            iperf3(here, server_address(6), "-u", "-t", "1", "-l", "1200", *arguments)
    return connections


def _between_peers(first: Client, second: Client) -> None:
    """Peer to peer, through the device twice: out as one peer's flow, back in as the other's. And to one who is not."""
    for own, other in ((first.site.v4, second.site.v4), (first.site.v6, second.site.v6)):
        with first.namespace.udp(own) as here, second.namespace.udp(other) as there:
            for _ in range(4):
                here.sendto(b"are you there?", there.getsockname()[:2])
                there.settimeout(5)
                said, sender = there.recvfrom(100)
                there.sendto(said, sender[:2])
            here.settimeout(5)
            assert here.recv(100) == b"are you there?"
    for own, ghost in ((first.site.v4, GHOST_V4), (first.site.v6, GHOST_V6)):
        with first.namespace.udp(own) as here:
            for size in (0, 10, 1000):
                here.sendto(bytes(size), (ghost, services.SINK_PORT))


def _from_outside(laboratory: Laboratory, client: Client) -> None:
    """The server begins: a ping, a connection to nobody, a datagram to nobody."""
    for own, address in ((server_address(4), client.site.v4), (server_address(6), client.site.v6)):
        assert ping(laboratory.server, address, count=3).received == 3
        assert isinstance(refused(laboratory.server, address, CLOSED_PORT), ConnectionRefusedError)
        with laboratory.server.udp(own) as udp:
            udp.connect((address, CLOSED_PORT))
            udp.settimeout(2)
            udp.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                udp.recv(10)


def _lie(client: Client) -> int:
    """Packets with a source that is nobody's, the other client's, and the gateway's own; how many."""
    lies = ("100.64.77.7", "100.64.0.3", GATEWAY_TUNNEL_ADDRESSES[0].split("/")[0])
    for source in lies:
        client.namespace.ip("addr", "add", f"{source}/32", "dev", client.interface)
        with client.namespace.udp(source) as udp:
            udp.sendto(b"it was not me", (server_address(4), services.ECHO_PORT))
        client.namespace.ip("addr", "del", f"{source}/32", "dev", client.interface)
    return len(lies)


def _leave(first: Client, second: Client) -> None:
    """The second client disappears without a word while the first one still talks to it."""
    second.stop()
    with first.namespace.udp(first.site.v4) as udp:
        for _ in range(10):
            with contextlib.suppress(ConnectionRefusedError):
                udp.sendto(bytes(200), (second.site.v4, services.SINK_PORT))


def _small_windows(*namespaces: Namespace) -> None:
    """TCP windows that fit into the device's queue of 500 packets: what that drops, the hook alone has counted."""
    for namespace in namespaces:
        namespace.sysctl("net.ipv4.tcp_rmem", "4096 65536 131072")
