"""Segmentation offload on the TUN device: nobody behind it can tell, and nobody else's device is taken."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from . import services
from .conftest import Gateways
from .gateway import Fzgw
from .load import carry, make_flows, make_streams
from .netlab import Laboratory, Namespace, wait_until
from .numbered import LARGEST, Check, CheckStream, Flow, Found, content
from .records import UDP, Tally
from .superpackets import SuperPackets
from .traffic import Server, download, ping, server_address, upload
from .wg import Client

SECONDS = 4.0
RATE = 1000
"""Datagrams a second of each of 32 flows, beside what 8 streams can carry: more than a machine of two cores has for
all of it."""

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI, IFF_MULTI_QUEUE, IFF_VNET_HDR = 0x0001, 0x1000, 0x0100, 0x4000


def test_order_and_bytes_at_full_rate(
    laboratory: Laboratory, gateways: Gateways, clients: tuple[Client, Client]
) -> None:
    """Numbered datagrams of equal and of mixed sizes and TCP streams, both ways at once, from both clients, over IPv4
    and IPv6: whatever arrives has the order and the bytes with which it was sent, and of TCP everything arrives.

    Super-packets crossed the device in both directions. What got lost was lost in the kernel's queues: the gateway
    dropped nothing, and each flow's record has no more than was sent and no less than arrived.
    """
    for namespace, device in laboratory.cable_ends:
        namespace.merge_on_arrival(device)
    gateway = gateways.start()
    crossing = SuperPackets(laboratory, gateway)
    for client in clients:
        assert ping(client.namespace, server_address(4), count=1).received == 1  # a session before the rush
    flows, streams = make_flows(laboratory.clients), make_streams(laboratory.clients)
    of_flows, of_streams = carry(laboratory, flows, streams, seconds=SECONDS, rate=RATE)
    outcome = gateway.stop()

    assert [f"{journey.name}: {fault}" for journey in of_flows + of_streams for fault in journey.faults] == []
    for journey in of_streams:
        assert journey.sent == journey.received > 50_000, journey
    for journey in of_flows:
        assert journey.sent >= journey.received > 200, journey
    # A segment that overtook another is found out by the sender of both, from the acknowledgements.
    for namespace in (laboratory.server, *(site.namespace for site in laboratory.clients)):
        assert _reordered(namespace) == 0

    assert crossing.seen() >= crossing.wanted(outcome.books)
    assert outcome.books.drop_reasons("from_peer") == {}
    assert outcome.books.drop_reasons("to_peer").keys() <= {"no_peer"}
    assert not any(outcome.books.stats["datagrams"]["dropped"].values())
    clients_own = {address for site in laboratory.clients for address in (site.v4, site.v6)}
    for flow, journey in zip(flows, of_flows, strict=True):
        direction = "outbound" if flow.source in clients_own else "inbound"
        record = outcome.records.one(protocol=UDP, port=flow.port, direction=direction)
        assert journey.received <= record.out.packets <= journey.sent, record
        assert record.back == Tally()


def test_faults_are_found() -> None:
    """The checks of this file know what is swapped, repeated, cut, lengthened, shifted, or another flow's."""
    for sizes in ("equal", "mixed", "runs", "full"):
        flow, other = Flow(1, sizes, "a", "b"), Flow(2, sizes, "a", "b")
        payload = flow.payload
        assert _faults(flow, [payload(number) for number in (0, 1, 5, 7000)]) == 0, "gaps are no faults"
        wrong = bytearray(payload(3))
        wrong[-1] ^= 1
        for datagrams in (
            [payload(1), payload(0)],
            [payload(1), payload(1)],
            [payload(1)[:-1]],
            [payload(1) + b"\0"],
            [payload(1) + payload(2)],
            [bytes(wrong)],
            [other.payload(1)],
            [payload(1)[:10] + payload(2)[10:]],
        ):
            assert _faults(flow, datagrams) == 1, datagrams

    for parts, faults in (
        ([content(3, 0, 1000), content(3, 1000, 500)], 0),
        ([content(3, 0, 1000), content(3, 1000 + LARGEST, 500)], 1),
        ([content(3, 0, 1000), content(3, 0, 1000)], 1),
        ([content(4, 0, 1000)], 1),
    ):
        stream = CheckStream(3, Found())
        for part in parts:
            stream.take(part)
        assert stream.found.faults == faults


def test_without_offload(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """`tun_offload = "off"`: a plain device that no super-packet crosses, even where one has arrived."""
    laboratory.gateway.merge_on_arrival("exit")
    gateway = gateways.start(tun_offload="off")
    crossing = SuperPackets(laboratory, gateway)
    size = 5_000_000
    for client in clients:
        for family in (4, 6):
            assert download(client.namespace, server_address(family), size) == services.pattern_digest(size)
            assert upload(client.namespace, server_address(family), size) == services.pattern_digest(size)
    outcome = gateway.stop()
    assert outcome.books.stats["tun_offload"] == "off"
    assert crossing.seen() == set()


def test_where_udp_segments_are_refused(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """Datagrams that do not fit the underlay are refused several in one call (EINVAL): they go out one by one, in
    fragments, nothing is lost, and the log says so once."""
    laboratory.set_mtu(1400)
    laboratory.gateway.merge_on_arrival("exit")
    gateway = gateways.start()
    size = 5_000_000
    for client in clients:
        for family in (4, 6):
            assert download(client.namespace, server_address(family), size) == services.pattern_digest(size)
    outcome = gateway.stop()
    assert gateway.log().count("datagrams go out one by one") == 1
    assert outcome.books.drop_reasons("to_peer").keys() <= {"no_peer"}


@pytest.mark.parametrize("tun_offload", ["auto", "off"])
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(0, id="plain"),
        pytest.param(IFF_VNET_HDR, id="vnet_hdr"),
        pytest.param(IFF_MULTI_QUEUE, id="multi_queue"),
        pytest.param(IFF_MULTI_QUEUE | IFF_VNET_HDR, id="multi_queue,vnet_hdr"),
    ],
)
def test_a_device_in_use_is_not_joined(laboratory: Laboratory, flags: int, tun_offload: str) -> None:
    """A device that another process holds, whatever kind of TUN device it is: exit code 1, one clear line that names
    it, and its holder goes on with it as if nothing had been."""
    gateway = Fzgw(laboratory, [], tun_offload=tun_offload)
    with _held(laboratory.gateway, gateway.interface, IFF_TUN | IFF_NO_PI | flags) as device:
        laboratory.gateway.ip("link", "set", gateway.interface, "up", "addrgenmode", "none", "mtu", "1400")
        laboratory.add_address(laboratory.gateway, gateway.interface, "192.0.2.1/24")
        before = _link(laboratory.gateway, gateway.interface)
        code, said = gateway.refuses_to_start()
        assert _link(laboratory.gateway, gateway.interface) == before
        _says_taken(gateway, code, said)

        with laboratory.gateway.udp("192.0.2.1") as udp:
            udp.sendto(b"for the holder", ("192.0.2.2", services.SINK_PORT))
        wait_until(lambda: b"for the holder" in _read(device), "the holder gets what is sent to its device")


@pytest.mark.parametrize("tun_offload", ["auto", "off"])
@pytest.mark.parametrize("kind", ["tun", "tun multi_queue", "tun vnet_hdr", "bridge"])
def test_a_device_that_stays_is_not_taken(laboratory: Laboratory, kind: str, tun_offload: str) -> None:
    """A persistent TUN device that nobody holds at the moment is somebody's all the same, and so is one of another
    kind."""
    gateway = Fzgw(laboratory, [], tun_offload=tun_offload)
    if kind == "bridge":
        laboratory.gateway.ip("link", "add", gateway.interface, "type", kind)
    else:
        laboratory.gateway.ip("tuntap", "add", "dev", gateway.interface, "mode", *kind.split())
    before = _link(laboratory.gateway, gateway.interface)
    code, said = gateway.refuses_to_start()
    assert _link(laboratory.gateway, gateway.interface) == before
    _says_taken(gateway, code, said)


def _faults(flow: Flow, datagrams: list[bytes]) -> int:
    check = Check(flow)
    for datagram in datagrams:
        check.take(datagram)
    return check.found.faults


def _reordered(namespace: Namespace) -> int:
    """How often a TCP sender in there learned that a segment had overtaken another."""
    lines = namespace.run("cat", "/proc/net/netstat").splitlines()
    counters: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        counters |= dict(zip(names.split()[1:], map(int, values.split()[1:]), strict=True))
    return sum(counters[name] for name in ("TCPSACKReorder", "TCPRenoReorder", "TCPTSReorder"))


@contextmanager
def _held(namespace: Namespace, name: str, flags: int) -> Iterator[int]:
    """A TUN device that this process holds."""
    with namespace.entered():
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        # The device is made where its file was opened.
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        yield device
    finally:
        os.close(device)


def _read(device: int) -> bytes:
    try:
        return os.read(device, 2000)
    except BlockingIOError:
        return b""


def _link(namespace: Namespace, name: str) -> object:
    """All that there is to say of a device, its counters left out, and of its addresses and routes."""
    link = json.loads(namespace.ip("-j", "-d", "addr", "show", "dev", name))
    return link, [namespace.ip(family, "route", "show", "dev", name) for family in ("-4", "-6")]


def _says_taken(gateway: Fzgw, code: int, said: str) -> None:
    assert code == 1, said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if gateway.interface in line]
    assert len(lines) == 1, said
    assert "exists already" in lines[0]
