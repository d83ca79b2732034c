"""The namespaces of the demo and the cables between them, as `plan.py` draws them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from fzgw.demo import plan
from fzgw.demo.errors import DemoError
from fzgw.demo.namespaces import NetworkNamespace
from fzgw.host import HostError

# What everybody but the gateway calls their end of a cable.
_DEVICE: Final = "eth0"


class Laboratory:
    """Two clients, a gateway and a server, each in a network namespace; a context manager that takes all away.

    `PermissionError` when the process may not make namespaces, `DemoError` when the kernel has no cables for them.
    """

    def __init__(self) -> None:
        with ExitStack() as stack:
            self.gateway = _held(stack)
            self.server = _held(stack)
            self.clients = {client.name: _held(stack) for client in plan.CLIENTS}
            for client in plan.CLIENTS:
                _cable(
                    self.gateway,
                    f"to-{client.name}",
                    client.gateway_underlay,
                    self.clients[client.name],
                    client.underlay,
                )
            _cable(self.gateway, "to-server", plan.SERVER_GATEWAY, self.server, plan.SERVER)
            self._stack = stack.pop_all()

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def roam(self, client: plan.ClientPlan) -> None:
        """Give the client its other outer address in place of the first, as a phone that changes networks."""
        assert client.roams_to is not None
        with self.clients[client.name].netlink() as link:
            [index] = link.link_lookup(ifname=_DEVICE)
            link.addr("del", index=index, address=client.underlay, prefixlen=plan.UNDERLAY_PREFIX)
            link.addr("add", index=index, address=client.roams_to, prefixlen=plan.UNDERLAY_PREFIX)


def _held(stack: ExitStack) -> NetworkNamespace:
    namespace = NetworkNamespace()
    stack.callback(namespace.close)
    return namespace


def _cable(here: NetworkNamespace, interface: str, address: str, there: NetworkNamespace, other_address: str) -> None:
    try:
        with here.netlink() as link:
            peer = {"ifname": _DEVICE, "net_ns_fd": there.descriptor}
            link.link("add", ifname=interface, kind="veth", peer=peer)
    except HostError as error:
        raise DemoError(f"cannot join two namespaces ({error}): load the kernel module (modprobe veth)") from error
    for namespace, name, own in ((here, interface, address), (there, _DEVICE, other_address)):
        with namespace.netlink() as link:
            [index] = link.link_lookup(ifname=name)
            link.addr("add", index=index, address=own, prefixlen=plan.UNDERLAY_PREFIX)
            link.link("set", index=index, state="up")
