"""A client that changes its address while it talks."""

from __future__ import annotations

import pytest

from . import services
from .conftest import Gateways
from .netlab import wait_until
from .records import UDP
from .traffic import Server, Trickle, server_address
from .wg import Client

LONGEST_GAP = 1.0
"""Seconds without an answer that a change of address may cost, at a datagram every 50 ms."""


@pytest.mark.parametrize("underlay", [4, 6])
def test_a_flow_survives_roaming(
    gateways: Gateways, server: Server, clients: tuple[Client, Client], underlay: int
) -> None:
    """The client's underlay address changes mid-flow: one flow with two paths, and hardly a gap (R24, scenario 18)."""
    gateway = gateways.start()
    client = clients[0] if underlay == 4 else clients[1]
    trickle = Trickle(client.namespace, client.site.v4, server_address(4), every=0.05)
    trickle.start()
    try:
        wait_until(lambda: len(trickle.returned) > 20, "answers before roaming")
        client.site.move(2, 3)
        before = len(trickle.returned)
        wait_until(lambda: len(trickle.returned) > before + 40, "answers after roaming")
    finally:
        trickle.stop()
    stats = gateway.books().stats
    records = gateway.stop().records

    assert trickle.longest_gap() < LONGEST_GAP
    assert not trickle.errors
    flow = records.one(protocol=UDP, peer=client.site.name, source_port=trickle.port, port=services.ECHO_PORT)
    assert [remote.rpartition(":")[0].strip("[]") for remote in flow.remotes] == [
        client.site.underlay(2, underlay),
        client.site.underlay(3, underlay),
    ]
    assert flow.unmapped["paths_total"] == 2
    first, second = (path["since"] for path in flow.unmapped["paths"])
    assert flow.line["start_time"] == first < second < flow.line["end_time"]
    assert flow.back.packets >= len(trickle.returned)
    (peer,) = (peer for peer in stats["peers"] if peer["name"] == client.site.name)
    assert client.site.underlay(3, underlay) in peer["endpoint"]
