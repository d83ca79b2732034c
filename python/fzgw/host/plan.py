"""What a configuration asks of the host, as values: parsed once, compared by `HostSetup.update`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    collapse_addresses,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fzgw.config import Config

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class HostPlan:
    """The host's side of one configuration.

    Routes are the peers' allowed IPs that no network of the gateway holds, without 0.0.0.0/0 and ::/0, and without
    IPv6 where the gateway has no IPv6 address (`unrouted` holds those). `nat_sources` is None without NAT.
    """

    interface: str
    mtu: int
    addresses: tuple[Interface, ...]
    routes: tuple[Network, ...]
    nat_sources: tuple[Network, ...] | None
    unrouted: tuple[Network, ...]

    @property
    def families(self) -> frozenset[str]:
        """The families to be forwarded, of "ipv4" and "ipv6": those in which the tunnel has an address or a route."""
        versions = {address.version for address in self.addresses} | {route.version for route in self.routes}
        return frozenset(f"ipv{version}" for version in versions)

    @property
    def ipv6(self) -> bool:
        """Whether the gateway has an IPv6 address: without one IPv6 is off on the TUN."""
        return any(address.version == 6 for address in self.addresses)


def plan_for(config: Config, interface: str) -> HostPlan:
    """The plan of `config` for the TUN device `interface`, whose name is one that `fzgw.config` lets through."""
    addresses = tuple(ip_interface(address) for address in config.gateway.addresses)
    ipv6 = any(address.version == 6 for address in addresses)
    networks = tuple(address.network for address in addresses)
    # A default route among the allowed IPs says what the peer may send, not where the host's own packets go.
    allowed = {
        network for peer in config.peers for network in map(ip_network, peer.allowed_ips) if network.prefixlen > 0
    }
    outside = sorted(
        (network for network in allowed if not any(_within(network, other) for other in networks)),
        key=lambda network: (network.version, network),
    )
    nat_sources = None
    if config.nat.mode == "masquerade":
        sources = _collapsed(network for network in {*networks, *allowed} if network.prefixlen > 0)
        nat_sources = tuple(source for source in sources if source.version == 4 or ipv6)
    return HostPlan(
        interface=interface,
        mtu=config.gateway.mtu,
        addresses=addresses,
        routes=tuple(network for network in outside if network.version == 4 or ipv6),
        nat_sources=nat_sources,
        unrouted=tuple(network for network in outside if network.version == 6 and not ipv6),
    )


def overlap(one: Network, other: Network) -> bool:
    """Whether two networks share an address (two families never do)."""
    return _within(one, other) or _within(other, one)


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _collapsed(networks: Iterable[Network]) -> list[Network]:
    """The fewest networks with the same addresses: IPv4, then IPv6, each in order."""
    networks = list(networks)
    return [
        *collapse_addresses(network for network in networks if isinstance(network, IPv4Network)),
        *collapse_addresses(network for network in networks if isinstance(network, IPv6Network)),
    ]
