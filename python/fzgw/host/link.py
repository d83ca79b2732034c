"""The TUN device: its switches, MTU, addresses, state and routes, by netlink.

pyroute2 is imported where it is used: it costs a third of a second and 12 MB, which only the running gateway pays.
Its socket is closed after each change. What is set here goes with the device when the engine closes it.

The kernel sends ICMP redirects to peers that reach each other through the gateway as long as
`conf/all/send_redirects` is 1, whatever the TUN's own switch says; that one is the host's and stays as it is. The
engine drops redirects.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any, Final

from fzgw import logs
from fzgw.host import sysctl
from fzgw.host.errors import HostError, PrivilegeError
from fzgw.host.plan import HostPlan, Interface, Network

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_IFA_F_NODAD: Final = 0x02
_RTPROT_STATIC: Final = 4
_RT_SCOPE_LINK: Final = 253
_RT_TABLE_MAIN: Final = 254


@dataclass(frozen=True)
class HostRoute:
    """A route of the host's main table; `index` is its interface's (0: none, such as a blackhole)."""

    network: Network
    index: int


class TunnelLink:
    """The TUN device `interface`, which the engine has opened, and what was set on it by this object."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._addresses: set[Interface] = set()
        self._routes: set[Network] = set()
        self._touched = False
        self._log = logs.get_logger()

    def converge(self, plan: HostPlan) -> None:
        """Bring the device to `plan`; what is there already is not touched, and neither is what others put there.

        New addresses and routes come before old ones go. Raises `HostError`, `PrivilegeError`; what was done by then
        stands, and `converge` with another plan, or `clear`, goes on from there.
        """
        index = interface_index(self.interface)
        self._touched = True
        self._set_switches(plan)
        with open_netlink() as netlink:
            self._set_link(netlink, index, plan)
            wanted = set(plan.addresses)
            self._add_addresses(netlink, index, _sorted_addresses(wanted - self._addresses))
            leaving = self._addresses - wanted
            for address in _sorted_addresses(leaving):
                _tolerating({errno.EADDRNOTAVAIL}, netlink.addr, "del", **_address(index, address))
                self._addresses.discard(address)
            # An address that goes may take routes with it (the last IPv4 address takes all): then each is looked at.
            missing = set(plan.routes) if leaving else set(plan.routes) - self._routes
            for route in _sorted_routes(missing):
                self._add_route(netlink, index, route)
            for route in _sorted_routes(self._routes - set(plan.routes)):
                _tolerating({errno.ESRCH}, netlink.route, "del", **_route(index, route))
                self._routes.discard(route)

    def clear(self) -> None:
        """Take away what this object set and the link down, if the device is still there. A device of that name that
        this object never set up is somebody else's."""
        if self._touched and interface_exists(self.interface):
            index = interface_index(self.interface)
            with open_netlink() as netlink:
                # Every route goes with the link's state.
                _tolerating({errno.ENODEV}, netlink.link, "set", index=index, state="down")
                for address in _sorted_addresses(self._addresses):
                    gone = {errno.EADDRNOTAVAIL, errno.ENODEV}
                    _tolerating(gone, netlink.addr, "del", **_address(index, address))
        self._addresses.clear()
        self._routes.clear()
        self._touched = False

    def _set_switches(self, plan: HostPlan) -> None:
        """Before the link is up: no address of the kernel's own making, so that it has nothing to say on the TUN."""
        wanted = [
            (f"net/ipv4/conf/{self.interface}/send_redirects", "0"),
            # Without it the kernel takes every other address of a network away together with its first one.
            (f"net/ipv4/conf/{self.interface}/promote_secondaries", "1"),
        ]
        ipv6 = f"net/ipv6/conf/{self.interface}"
        if sysctl.read(f"{ipv6}/disable_ipv6") is not None:
            wanted += [
                (f"{ipv6}/addr_gen_mode", "1"),  # none
                (f"{ipv6}/accept_ra", "0"),  # a peer is no router of the host
                (f"{ipv6}/disable_ipv6", "0" if plan.ipv6 else "1"),
            ]
        elif plan.ipv6:
            raise HostError(
                "gateway.addresses has IPv6 and this kernel has none (ipv6.disable=1?): switch it on, or take the IPv6 "
                "addresses out"
            )
        for path, value in wanted:
            try:
                if sysctl.ensure(path, value):
                    self._log.debug("switch_set", path=path, value=value)
            except OSError as error:
                if path.endswith("/disable_ipv6") and value == "0":
                    raise HostError(
                        f"IPv6 is off on {self.interface} and {sysctl.PROC_SYS / path} cannot be written "
                        f"({error.strerror}): set net.ipv6.conf.default.disable_ipv6=0 before the gateway starts"
                    ) from error
                # In a container /proc/sys may be read-only: the tunnel works without these.
                self._log.warning("switch_not_set", path=path, value=value, reason=error.strerror)

    def _set_link(self, netlink: IPRoute, index: int, plan: HostPlan) -> None:
        (link,) = netlink.get_links(index)
        if link.get("mtu") != plan.mtu:
            netlink.link("set", index=index, mtu=plan.mtu)
        if link.get("state") != "up":
            netlink.link("set", index=index, state="up")

    def _add_addresses(self, netlink: IPRoute, index: int, addresses: Iterable[Interface]) -> None:
        for address in addresses:
            _tolerating({errno.EEXIST}, netlink.addr, "add", **_address(index, address))
            self._addresses.add(address)
            self._log.debug("address_set", interface=self.interface, address=str(address))

    def _add_route(self, netlink: IPRoute, index: int, route: Network) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            netlink.route("add", **_route(index, route))
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            others = [entry for entry in host_routes(netlink) if entry.network == route and entry.index != index]
            if others:
                raise HostError(route_taken(route, interface_name(others[0].index))) from error
        self._routes.add(route)
        self._log.debug("route_set", interface=self.interface, route=str(route))


@contextmanager
def open_netlink() -> Iterator[IPRoute]:
    """A netlink socket, closed at the end. Raises `HostError`, `PrivilegeError` for what the kernel refuses."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as error:
        if error.code in {errno.EPERM, errno.EACCES}:
            raise PrivilegeError("change addresses and routes by netlink") from error
        raise HostError(f"netlink: {os.strerror(error.code)}") from error


def host_routes(netlink: IPRoute) -> Iterator[HostRoute]:
    """The unicast routes of the main table, both families; blackholes and the like too."""
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for route in netlink.get_routes(family=family, table=_RT_TABLE_MAIN):
            network = ip_network(f"{route.get('dst') or anywhere}/{route['dst_len']}")
            yield HostRoute(network, route.get("oif") or _first_hop(route))


def host_addresses(netlink: IPRoute) -> Iterator[tuple[str, Interface]]:
    """Each address of the host with the name of its interface."""
    for address in netlink.get_addr():
        # On a point-to-point link IFA_ADDRESS is the other end.
        own = address.get("local") or address.get("address")
        yield interface_name(address["index"]), ip_interface(f"{own}/{address['prefixlen']}")


def route_taken(route: Network, interface: str) -> str:
    """What is wrong, and what to do, when a peer's allowed IPs are another interface's route."""
    return (
        f"the allowed IPs {route} are routed to {interface} already: take that route away "
        f"(ip route del {route} dev {interface}), or these allowed IPs out of the configuration"
    )


def interface_index(interface: str) -> int:
    """The index of an interface. Raises `HostError` when there is none of that name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise HostError(f"there is no interface {interface}: the engine must open it first") from error


def interface_exists(interface: str) -> bool:
    """Whether this network namespace has an interface of that name."""
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def interface_name(index: int) -> str:
    """The name of an interface, or its number where it went meanwhile."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"


def _first_hop(route: Any) -> int:
    hops = route.get("multipath") or ()
    return int(hops[0]["oif"]) if hops else 0


def _address(index: int, address: Interface) -> dict[str, Any]:
    fields: dict[str, Any] = {"index": index, "address": str(address.ip), "prefixlen": address.network.prefixlen}
    if address.version == 6:
        # Nobody on a tunnel answers duplicate address detection, and until it is over the address cannot be used.
        fields["flags"] = _IFA_F_NODAD
    return fields


def _route(index: int, route: Network) -> dict[str, Any]:
    fields: dict[str, Any] = {"dst": str(route), "oif": index, "proto": _RTPROT_STATIC}
    if route.version == 4:
        fields["scope"] = _RT_SCOPE_LINK
    return fields


def _sorted_addresses(addresses: Iterable[Interface]) -> list[Interface]:
    return sorted(addresses, key=lambda address: (address.version, address))


def _sorted_routes(routes: Iterable[Network]) -> list[Network]:
    return sorted(routes, key=lambda route: (route.version, route))


def _tolerating(codes: Collection[int], call: Callable[..., object], *arguments: str, **fields: Any) -> None:
    """Call, and take the errors in `codes` for success: it is as it should be already."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        call(*arguments, **fields)
    except NetlinkError as error:
        if error.code not in codes:
            raise
