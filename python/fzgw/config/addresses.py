"""Free tunnel addresses."""

import ipaddress
from collections.abc import Iterable, Sequence

from fzgw.config.models import Config

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class NoFreeAddressError(Exception):
    """A network of the gateway has no address left; `str()` names it."""


def tunnel_networks(config: Config) -> list[IPNetwork]:
    """The networks of the gateway's own addresses, each once, in the order of the file."""
    return list(dict.fromkeys(ipaddress.ip_interface(text).network for text in config.gateway.addresses))


def next_free(config: Config) -> list[str]:
    """The lowest free address of each of the gateway's networks, as ``"100.64.0.2/32"``.

    Not free are the gateway's own addresses, whatever lies in a peer's allowed IPs, the network's first address and,
    for IPv4, its broadcast address. Raises NoFreeAddressError.
    """
    own = [ipaddress.ip_interface(text).ip for text in config.gateway.addresses]
    taken = [ipaddress.ip_network(address) for address in own]
    taken += [ipaddress.ip_network(prefix) for peer in config.peers for prefix in peer.allowed_ips]
    return [_lowest(network, taken) for network in tunnel_networks(config)]


def _lowest(network: IPNetwork, taken: Sequence[IPNetwork]) -> str:
    """Walks the taken ranges upwards and stops at the first gap: an IPv6 network is too large to try addresses."""
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.num_addresses > 2:
        first += 1
        last -= 1 if network.version == 4 else 0
    free = first
    for start, end in sorted(_ranges(taken, network.version)):
        if start > free:
            break
        free = max(free, end + 1)
    if free > last:
        raise NoFreeAddressError(f"{network} has no free address left")
    address = type(network.network_address)(free)
    return f"{address}/{network.max_prefixlen}"


def _ranges(networks: Iterable[IPNetwork], version: int) -> Iterable[tuple[int, int]]:
    for network in networks:
        if network.version == version:
            yield int(network.network_address), int(network.broadcast_address)
