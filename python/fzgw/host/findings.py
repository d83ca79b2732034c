"""Would a gateway run on this host? Looks, and changes nothing.

Each look is a function of its own that yields what it found; what cannot be seen without privilege is a finding too,
so that silence means that all is well.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from fzgw.host import nat, state, sysctl
from fzgw.host.errors import NFT_FIX, NFT_MISSING, PRIVILEGE_FIX, HostError
from fzgw.host.forward import Sample, blockades
from fzgw.host.link import host_addresses, host_routes, interface_exists, interface_name, open_netlink, route_taken
from fzgw.host.plan import HostPlan, Interface, overlap, plan_for

if TYPE_CHECKING:
    from fzgw.config import Config

Level = Literal["error", "warning"]

_TUN_DEVICE: Final = Path("/dev/net/tun")
_PROC_NET: Final = Path("/proc/thread-self/net")
_CAP_NET_ADMIN: Final = 12
_LEGACY_TABLES: Final = {"iptables": "ip_tables_names", "ip6tables": "ip6_tables_names"}

# Somewhere in the internet, for the firewall walk: no packet is sent there.
_FAR: Final = {4: "1.1.1.1", 6: "2606:4700:4700::1111"}


@dataclass(frozen=True)
class Finding:
    """Something that keeps the gateway from working ("error") or may do so ("warning"), and what to do about it.

    `message` and `fix` are one line each; `fix` is a command where one does it.
    """

    level: Level
    message: str
    fix: str


def check(config: Config) -> list[Finding]:
    """What stands in the way of a gateway with `config` in this network namespace; empty if nothing does.

    Works without privilege as far as that goes. Beside a running gateway of the same interface its interface and
    port are warnings. `ip_forward = 0` is no finding: the gateway sets it.
    """
    plan = plan_for(config, config.gateway.interface)
    running = interface_exists(plan.interface) and plan.interface in state.read(config.gateway.state_dir).entries
    return [
        *_tun_device(),
        *_privilege(),
        *_interface(plan, running=running),
        *(_port(config.gateway.listen, running=running) if config.gateway.listen else ()),
        *_ipv6(plan),
        *_networks(plan),
        *_switches(plan, config.gateway.state_dir),
        *_firewall(plan),
        *_legacy_firewall(),
    ]


def _tun_device() -> Iterator[Finding]:
    try:
        os.close(os.open(_TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        yield Finding(
            "error",
            f"{_TUN_DEVICE} does not exist",
            "modprobe tun (in a container: --device /dev/net/tun)",
        )
    except PermissionError:
        yield Finding("error", f"{_TUN_DEVICE} may not be opened", PRIVILEGE_FIX)
    except OSError as error:
        yield Finding("error", f"{_TUN_DEVICE} does not open: {error.strerror}", "modprobe tun")


def _privilege() -> Iterator[Finding]:
    if not _has_net_admin():
        yield Finding("error", "the capability CAP_NET_ADMIN is missing", PRIVILEGE_FIX)


def _interface(plan: HostPlan, *, running: bool) -> Iterator[Finding]:
    if running:
        yield Finding(
            "warning",
            f"the interface {plan.interface} exists: a gateway of this configuration seems to run",
            "stop it before you start another one",
        )
    elif interface_exists(plan.interface):
        yield Finding(
            "error",
            f"the interface name {plan.interface} is taken",
            f"choose another gateway.interface, or remove it (ip link del {plan.interface})",
        )


def _port(port: int, *, running: bool) -> Iterator[Finding]:
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((anywhere, port))
        except PermissionError:
            yield Finding("warning", f"whether UDP port {port} is free could not be checked", PRIVILEGE_FIX)
            return
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                level: Level = "warning" if running else "error"
                fix = f"choose another gateway.listen, or stop what uses it (ss -lunp 'sport = :{port}')"
                yield Finding(level, f"UDP port {port} is in use", fix)
                return
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:  # a host without this family
                yield Finding("error", f"UDP port {port} cannot be opened: {error.strerror}", "choose another port")
                return


def _ipv6(plan: HostPlan) -> Iterator[Finding]:
    if plan.ipv6 and sysctl.read(sysctl.FORWARDING["ipv6"]) is None:
        yield Finding(
            "error",
            "gateway.addresses has IPv6 and this kernel has none",
            "start the kernel without ipv6.disable=1, or take the IPv6 addresses out",
        )
    if plan.unrouted:
        yield Finding(
            "warning",
            f"allowed IPs are IPv6 and the gateway has no IPv6 address: nothing reaches {plan.unrouted[0]}"
            + (f" and {len(plan.unrouted) - 1} more" if len(plan.unrouted) > 1 else ""),
            "add an IPv6 address to gateway.addresses",
        )


def _networks(plan: HostPlan) -> Iterator[Finding]:
    """Networks of the tunnel that are somebody else's already."""
    try:
        with open_netlink() as netlink:
            addresses = [item for item in host_addresses(netlink) if item[0] not in {plan.interface, "lo"}]
            routed = {}
            if plan.routes:
                wanted = set(plan.routes)
                routed = {
                    route.network: interface_name(route.index) if route.index else "nowhere"
                    for route in host_routes(netlink)
                    if route.network in wanted
                }
    except (HostError, OSError) as error:
        yield Finding("warning", f"the host's addresses and routes could not be read: {error}", PRIVILEGE_FIX)
        return
    for address in plan.addresses:
        for interface, other in addresses:
            yield from _address_conflict(address, interface, other)
    for network, interface in routed.items():
        if interface != plan.interface:
            yield Finding("error", *_split_fix(route_taken(network, interface)))
    for route in plan.routes:
        for interface, other in addresses:
            if route != other.network and overlap(route, other.network) and route.prefixlen > other.network.prefixlen:
                yield Finding(
                    "warning",
                    f"the allowed IPs {route} lie in {other.network} of {interface}: the host reaches them through the "
                    "tunnel only",
                    "give the peer an address that no interface of the host has",
                )


def _address_conflict(address: Interface, interface: str, other: Interface) -> Iterator[Finding]:
    fix = "choose another network for gateway.addresses (and for the peers)"
    if address.ip == other.ip:
        yield Finding("error", f"the gateway's address {address.ip} is {interface}'s already", fix)
    elif address.network == other.network and address.network.num_addresses > 1:
        yield Finding("error", f"the gateway's network {address.network} is {interface}'s already", fix)
    elif overlap(address.network, other.network):
        yield Finding(
            "warning",
            f"the gateway's network {address.network} overlaps {other.network} of {interface}: the smaller one wins",
            fix,
        )


def _switches(plan: HostPlan, directory: Path) -> Iterator[Finding]:
    """Switches that the gateway will have to set and cannot, or could not put back after a crash."""
    needed = [
        sysctl.FORWARDING[family]
        for family in sorted(plan.families)
        if sysctl.read(sysctl.FORWARDING[family]) not in {"1", None}
    ]
    for path in needed:
        if os.statvfs(sysctl.PROC_SYS / path).f_flag & os.ST_RDONLY:
            name = sysctl.dotted(path)
            yield Finding(
                "error",
                f"{name} is 0 and /proc/sys is read-only here",
                f"sysctl -w {name}=1 on the host (in a container: --sysctl {name}=1)",
            )
    existing = next((path for path in (directory, *directory.parents) if path.exists()), directory)
    if needed and _has_net_admin() and not (existing.is_dir() and os.access(existing, os.W_OK)):
        yield Finding(
            "error",
            f"gateway.state_dir = {directory} cannot be written: the settings from before the run are kept there",
            "choose another gateway.state_dir",
        )


def _firewall(plan: HostPlan) -> Iterator[Finding]:
    """Chains of others that drop what the tunnel forwards."""
    if nat.find_nft() is None:
        if plan.nat_sources is not None:
            yield Finding("error", NFT_MISSING, NFT_FIX)
        yield Finding("warning", "the host's firewall could not be checked: there is no nft command", NFT_FIX)
        return
    unread = "the host's firewall could not be checked: "
    try:
        result = nat.run_nft("-j", "list", "ruleset")
        if result.returncode != 0:
            reason = "that needs privilege" if nat.denied(result) else result.stderr.strip().splitlines()[0]
            yield Finding("warning", unread + reason, PRIVILEGE_FIX)
            return
        found = blockades(json.loads(result.stdout), _samples(plan), plan.interface)
    except (HostError, ValueError, LookupError, TypeError) as error:
        yield Finding("warning", unread + str(error), "nft list ruleset shows it: look for chains with `hook forward`")
        return
    for blockade in found:
        chain = f"the chain {blockade.chain} of the table {blockade.family} {blockade.table}"
        level: Level = "error" if blockade.certain else "warning"
        verb = "drops" if blockade.certain else "may drop"
        yield Finding(level, f"{chain} {verb} the tunnel's packets: {blockade.why}", blockade.fix)


def _legacy_firewall() -> Iterator[Finding]:
    """Rules of legacy iptables, which nft does not see."""
    for command, name in _LEGACY_TABLES.items():
        try:
            tables = (_PROC_NET / name).read_text().split()
        except OSError:
            continue  # none of them, or not ours to see, which the look at nft's rules has said already
        if "filter" in tables:
            yield Finding(
                "warning",
                f"there are rules of legacy {command}, which could not be checked",
                f"{command}-legacy -S FORWARD shows whether they drop the tunnel's packets",
            )


def _samples(plan: HostPlan) -> list[Sample]:
    """A packet out of the tunnel and one back, for each family."""
    uplink = _uplink()
    samples = []
    for version, far in _FAR.items():
        near = next((str(address.network[-1]) for address in plan.addresses if address.version == version), None)
        if near is not None:
            samples.append(Sample(True, near, far, plan.interface, uplink[version]))
            samples.append(Sample(False, far, near, uplink[version], plan.interface))
    return samples


def _uplink() -> dict[int, str | None]:
    """The interface of the default route, for each family."""
    found: dict[int, str | None] = {4: None, 6: None}
    try:
        with open_netlink() as netlink:
            for route in host_routes(netlink):
                if route.network.prefixlen == 0 and route.index:
                    found[route.network.version] = interface_name(route.index)
    except (HostError, OSError):
        return found
    return found


def _has_net_admin() -> bool:
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


def _split_fix(message: str) -> tuple[str, str]:
    wrong, _, fix = message.partition(": ")
    return wrong, fix
