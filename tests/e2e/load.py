"""Numbered traffic (`numbered.py`) between the clients and the server, both ways at once, and what came of it."""

from __future__ import annotations

import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import numbered
from .netlab import ClientSite, Laboratory, Namespace, wait_until
from .numbered import Findings, Flow, Found, Stream
from .traffic import server_address

Carried = TypeVar("Carried", Flow, Stream)


@dataclass(frozen=True)
class Journey:
    """One flow, or one direction of a stream."""

    name: str
    sent: int
    """Datagrams, or bytes of a stream."""
    received: int
    faults: list[str]
    """The first ones that its receiver found, and trouble of its sender."""


class _Helper:
    """One process of numbered traffic."""

    def __init__(self, laboratory: Laboratory, namespace: Namespace, role: str, **plan: Any) -> None:
        self._said = laboratory.folder / f"{namespace.name}-{role}.json"
        self._log = self._said.with_suffix(".log")
        with self._said.open("wb") as stdout:
            self._process = laboratory.spawn(
                namespace,
                *(sys.executable, str(Path(numbered.__file__)), role, json.dumps(plan)),
                stdout=stdout,
                log=self._log.name,
            )

    def ready(self) -> bool:
        """Whether it listens."""
        assert self._process.running(), self._log.read_text()
        return self._said.read_text().startswith("ready")

    def findings(self, timeout: float) -> Findings:
        """What it found, when it has come to its end."""
        code = self._process.wait(timeout)
        assert code == 0, self._log.read_text()
        found = json.loads(self._said.read_text().splitlines()[-1])
        return {int(number): Found(**one) for number, one in found.items()}


def make_flows(sites: Sequence[ClientSite]) -> list[Flow]:
    """Flows of each kind of sizes, for each client and family, from the client and from the server."""
    numbers = itertools.count()
    return [
        Flow(next(numbers), sizes, *ends)
        for site in sites
        for family, own in ((4, site.v4), (6, site.v6))
        for sizes in numbered.SIZES
        for ends in ((own, server_address(family)), (server_address(family), own))
    ]


def make_streams(sites: Sequence[ClientSite]) -> list[Stream]:
    """Two streams for each client and family: one in large pieces, one in small ones."""
    numbers = itertools.count(1000)
    return [
        Stream(next(numbers), small, own, server_address(family))
        for site in sites
        for family, own in ((4, site.v4), (6, site.v6))
        for small in (False, True)
    ]


def carry(
    laboratory: Laboratory, flows: Sequence[Flow], streams: Sequence[Stream], *, seconds: float, rate: float
) -> tuple[list[Journey], list[Journey]]:
    """Send all of it at once for so long, `rate` datagrams a second of each flow, and wait for what arrives.

    Returns what became of the flows, and of the streams in both directions.
    """

    def start(role: str, plans: dict[Namespace, list[dict[str, Any]]], what: str, **more: Any) -> list[_Helper]:
        return [_Helper(laboratory, namespace, role, **{what: plan}, **more) for namespace, plan in plans.items()]

    receivers = start("receive", _by_namespace(laboratory, flows, lambda flow: flow.destination), "flows")
    accepting = _by_namespace(laboratory, streams, lambda stream: stream.server)
    acceptors = start("accept", accepting, "streams", seconds=seconds)
    wait_until(lambda: all(helper.ready() for helper in (*receivers, *acceptors)), "the receivers listen")
    connecting = _by_namespace(laboratory, streams, lambda stream: stream.client)
    connectors = start("connect", connecting, "streams", seconds=seconds)
    sending = _by_namespace(laboratory, flows, lambda flow: flow.source)
    senders = start("send", sending, "flows", seconds=seconds, rate=rate)

    sent, received, clients, servers = (
        {number: found for helper in helpers for number, found in helper.findings(seconds + 40).items()}
        for helpers in (senders, receivers, connectors, acceptors)
    )
    return (
        [_journey(_name(flow), sent[flow.number], received[flow.number]) for flow in flows],
        [
            journey
            for stream in streams
            for journey in (
                _journey(_name(stream), clients[stream.number], servers[stream.number]),
                _journey(f"{_name(stream)}, back", servers[stream.number], clients[stream.number]),
            )
        ],
    )


def _by_namespace(
    laboratory: Laboratory, carried: Iterable[Carried], end: Callable[[Carried], str]
) -> dict[Namespace, list[dict[str, Any]]]:
    """The plans of each namespace that has an end of something."""
    owners = {address: site.namespace for site in laboratory.clients for address in (site.v4, site.v6)}
    plans: dict[Namespace, list[dict[str, Any]]] = defaultdict(list)
    for one in carried:
        plans[owners.get(end(one), laboratory.server)].append(asdict(one))
    return plans


def _name(carried: Flow | Stream) -> str:
    if isinstance(carried, Flow):
        return f"UDP {carried.sizes}, {carried.source} to {carried.destination}, port {carried.port}"
    kind = "small" if carried.small else "large"
    return f"TCP in {kind} pieces, {carried.client} to {carried.server}, port {carried.port}"


def _journey(name: str, sender: Found, receiver: Found) -> Journey:
    return Journey(name, sender.sent, receiver.received, sender.first_faults + receiver.first_faults)
