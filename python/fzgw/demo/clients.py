"""The tunnels of the clients: our own small WireGuard client, with a TUN device in each client's namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fzgw import _core
from fzgw.demo import plan
from fzgw.demo.configuration import Keys
from fzgw.demo.errors import DemoError
from fzgw.demo.laboratory import Laboratory
from fzgw.host import HostError
from fzgw.testing import Client

_INTERFACE = "wg0"


@contextmanager
def connected(laboratory: Laboratory, keys: Keys) -> Iterator[None]:
    """Every client of the plan has its tunnel, and its default route through it; `DemoError` when one cannot start."""
    with ExitStack() as stack:
        for client in plan.CLIENTS:
            engine = Client(
                gateway_key=_core.public_key(keys.gateway),
                endpoint=f"{client.gateway_underlay}:{plan.LISTEN_PORT}",
                addresses=[f"{client.tunnel}/32"],
                private_key=keys.clients[client.name],
                interface=_INTERFACE,
            )
            try:
                # The engine's sockets, device and thread stay in the namespace in which it is started.
                with laboratory.clients[client.name].entered():
                    stack.enter_context(engine)
            except (_core.StartError, HostError) as error:
                raise DemoError(f"the client {client.name} cannot start: {error}") from error
        yield
