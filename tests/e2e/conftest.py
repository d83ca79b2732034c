"""Fixtures of the end-to-end tests, and the reasons for which they are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from .gateway import Fzgw, Peer
from .netlab import ClientSite, Laboratory, missing_tools
from .traffic import Server
from .wg import HOW_TO_INSTALL, Client, find_wireguard_go

UNDERLAY = {1: 4, 2: 6}
"""client1 reaches the gateway over IPv4, client2 over IPv6."""


@pytest.fixture(scope="session", autouse=True)
def _machine() -> None:
    if os.geteuid() != 0:
        pytest.skip("end-to-end tests make network namespaces: run them as root")
    if missing := missing_tools():
        pytest.skip(f"missing: {', '.join(missing)}; scripts/test.sh installs them")
    if find_wireguard_go() is None:
        pytest.skip(f"no wireguard-go: {HOW_TO_INSTALL}")


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    """Namespaces and cables, nothing running in them."""
    with Laboratory() as laboratory:
        yield laboratory


@pytest.fixture
def server(laboratory: Laboratory) -> Server:
    """The services outside."""
    return Server(laboratory)


@pytest.fixture
def sites(laboratory: Laboratory) -> tuple[ClientSite, ClientSite]:
    """Where the two clients are."""
    first, second = laboratory.clients
    return first, second


@pytest.fixture
def clients(laboratory: Laboratory, sites: tuple[ClientSite, ClientSite]) -> tuple[Client, Client]:
    """Two wireguard-go, running, without a peer yet."""
    return Client(laboratory, sites[0]), Client(laboratory, sites[1])


class Gateways:
    """Makes the gateway of a test and closes its books at the end."""

    def __init__(self, laboratory: Laboratory, clients: tuple[Client, Client]) -> None:
        self._laboratory = laboratory
        self._clients = clients
        self._made: list[Fzgw] = []

    def start(self, *, peers: Sequence[Peer] | None = None, join: bool = True, **options: Any) -> Fzgw:
        """A running gateway that knows both clients, or `peers`; with `join` the clients have it as their peer."""
        known = [Peer.of(client) for client in self._clients] if peers is None else peers
        gateway = Fzgw(self._laboratory, known, **options)
        self._made.append(gateway)
        gateway.start()
        if join:
            self.join(gateway)
        return gateway

    def join(self, gateway: Fzgw) -> None:
        """Both clients make the gateway their exit."""
        for client in self._clients:
            client.join(gateway.public_key, gateway.port, family=UNDERLAY[client.site.number], mtu=gateway.mtu)

    def close(self) -> None:
        """Stop what still runs; its ledgers must balance whatever the test was about.

        What is printed shows beside a test that failed.
        """
        for gateway in self._made:
            print(gateway.log())
        for gateway in self._made:
            if gateway.running():
                outcome = gateway.stop()
                print(outcome.books.stats, *outcome.records.closed, sep="\n")


@pytest.fixture
def gateways(laboratory: Laboratory, clients: tuple[Client, Client]) -> Iterator[Gateways]:
    """`gateways.start()` starts fzgw."""
    gateways = Gateways(laboratory, clients)
    yield gateways
    gateways.close()
