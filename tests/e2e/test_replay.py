"""Live = replay: what tcpdump saw on the TUN device, replayed with the same configuration, gives the same flows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from . import services
from .conftest import Gateways
from .netlab import Capture, Laboratory, run
from .records import FlowLine, Records
from .test_books import CLOSED_PORT
from .traffic import Server, dig, download, echo_tcp, echo_udp, ping, refused, server_address, upload
from .wg import Client

WITHIN = 50
"""Milliseconds: tcpdump stamps a packet at the device, the gateway takes the time once for a batch."""


def test_live_is_replay(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """Every flow of both families and kinds, with its peer, direction, counts, TCP facts, ICMP errors and end.

    Times are within 50 ms. What differs by nature is left out: uid and sequence, outer paths, and shutdown where the
    capture ends. On the plain device: a capture of super-packets does not know their segments.
    """
    gateway = gateways.start(tun_offload="off")
    capture = Capture(laboratory, laboratory.gateway, gateway.interface, "ip or ip6", snaplen=192)
    first, second = clients
    for client in clients:
        for family, own in ((4, client.site.v4), (6, client.site.v6)):
            there = server_address(family)
            assert ping(client.namespace, there, count=3).received == 3
            # More than the tunnel's MTU: fragments, out and back; the first answer may be too big for the path.
            assert ping(client.namespace, there, count=3, size=3000).received >= 2
            dig(client.namespace, there, "wiki.example.test", "A")
            echo_udp(client.namespace, own, there, count=5)
            echo_tcp(client.namespace, there)
            assert isinstance(refused(client.namespace, there, CLOSED_PORT), ConnectionRefusedError)
            assert download(client.namespace, there, 200_000) == services.pattern_digest(200_000)
            assert upload(client.namespace, there, 200_000) == services.pattern_digest(200_000)
            _datagram_to_nobody(client, own, there)
    for own, other in ((first.site.v4, second.site.v4), (first.site.v6, second.site.v6)):
        with first.namespace.udp(own) as here, second.namespace.udp(other) as there_socket:
            for _ in range(3):
                here.sendto(b"are you there?", there_socket.getsockname()[:2])
                there_socket.settimeout(5)
                said, sender = there_socket.recvfrom(100)
                there_socket.sendto(said, sender[:2])
                here.settimeout(5)
                assert here.recv(100) == b"are you there?"
    assert ping(laboratory.server, first.site.v4, count=2).received == 2
    capture.stop()
    live = gateway.stop().records

    replayed = _replay(laboratory, capture.file, gateway.config)
    assert len(live.closed) >= 2 * 2 * 8 + 4
    theirs, ours = _by_tuple(live), _by_tuple(replayed)
    assert ours.keys() == theirs.keys()
    for key, flows in theirs.items():
        assert len(ours[key]) == len(flows), key
        for before, after in zip(flows, ours[key], strict=True):
            assert _facts(after) == _facts(before), (before, after)
            for name in ("start_time", "end_time", "duration"):
                assert abs(after.line[name] - before.line[name]) <= WITHIN, (name, before, after)
            for name in ("syn_to_syn_ack_ns", "syn_ack_to_ack_ns"):
                assert (name in after.unmapped) == (name in before.unmapped), (name, before, after)
                spread = after.unmapped.get(name, 0) - before.unmapped.get(name, 0)
                assert abs(spread) <= WITHIN * 1_000_000, (name, before, after)


def _datagram_to_nobody(client: Client, own: str, there: str) -> None:
    with client.namespace.udp(own) as udp:
        udp.connect((there, CLOSED_PORT))
        udp.settimeout(2)
        udp.send(b"anybody?")
        try:
            udp.recv(10)
        except ConnectionRefusedError:
            return
    raise AssertionError("somebody answered")


def _replay(laboratory: Laboratory, capture: Path, config: Path) -> Records:
    """The records of `fzgw replay`, whose books must balance and leave nothing out."""
    records, ledger = laboratory.folder / "replayed.jsonl", laboratory.folder / "ledger.json"
    arguments = ["--config", str(config), "--output", str(records), "--ledger", str(ledger)]
    run(sys.executable, "-m", "fzgw", "replay", str(capture), *arguments)
    books: dict[str, Any] = json.loads(ledger.read_text())
    assert books["balanced"] is True, books
    return Records.read(records)


def _by_tuple(records: Records) -> dict[tuple[object, ...], list[FlowLine]]:
    """Close records by who and what, each list in the order of their first packets."""
    found: dict[tuple[object, ...], list[FlowLine]] = {}
    for flow in sorted(records.closed, key=lambda flow: flow.unmapped["start_ns"]):
        icmp = json.dumps(flow.unmapped.get("icmp"))
        found.setdefault((flow.peer, flow.protocol, flow.direction, *flow.tuple, icmp), []).append(flow)
    return found


def _facts(flow: FlowLine) -> dict[str, Any]:
    same = {
        "out": flow.out,
        "in": flow.back,
        "source": flow.source,
        "destination": flow.destination,
        "conn_state": flow.line.get("status_detail"),
        "activity": flow.line["activity_name"],
        "initiator_known": flow.line["is_src_dst_assignment_known"],
        "history": flow.line["connection_info"].get("flag_history"),
        "community_id": flow.line["connection_info"].get("community_uid"),
        "end_reason": "capture_end" if flow.end_reason == "shutdown" else flow.end_reason,
    }
    names = ("payload_out", "payload_in", "tcp_flags_out", "tcp_flags_in", "icmp_errors")
    retransmits = ("retransmits_out", "retransmits_in")
    return same | {name: flow.unmapped.get(name) for name in names + retransmits}
