"""fzgw.host.HostSetup on real network namespaces: what it sets, what it leaves alone, what it puts back."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from config_files import write_config
from fzgw.config import Config, load
from fzgw.host import HostError, HostSetup, nat
from host_lab import Namespace, Tun, endpoints, eventually, namespaces, needs_root, udp_packet, wire

pytestmark = needs_root

SERVER, SERVER6 = "198.51.100.2", "fd00:51::2"
GATEWAY, GATEWAY6 = "198.51.100.1", "fd00:51::1"
PORT = 9999

STOPPED_BY_KILL = """
import signal, sys
from fzgw import logs
from fzgw.config import load
from fzgw.host import HostSetup
from host_lab import Tun
logs.configure()
config = load(sys.argv[1])
tun = Tun(config.gateway.interface)
HostSetup(config, config.gateway.interface).apply()
print("applied", flush=True)
signal.pause()
"""

WITHOUT_PRIVILEGE = """
import os, sys
import pyroute2
from fzgw import logs
from fzgw.config import load
from fzgw.host import HostSetup, PrivilegeError
from host_lab import Tun
logs.configure()
config = load(sys.argv[1])
tun = Tun(config.gateway.interface)
os.setresuid(65534, 65534, 65534)
try:
    HostSetup(config, config.gateway.interface).apply()
except PrivilegeError as error:
    print(error, flush=True)
"""


@dataclass
class World:
    """A gateway's host between a server (`wan0`) and a network of its own (`lan0`), with an open TUN device `fzgw0`."""

    host: Namespace
    server: Namespace
    lan: Namespace
    tun: Tun
    setups: list[HostSetup] = field(default_factory=list)

    def gateway(self, config: Config, interface: str = "fzgw0") -> HostSetup:
        """The host's side of a gateway, removed at the end if the test does not do it."""
        setup = HostSetup(config, interface)
        self.setups.append(setup)
        return setup

    def source_seen(self, packet: bytes, server: socket.socket) -> str:
        """The source address that the server sees of a packet out of the tunnel."""
        self.tun.write(packet)
        return str(server.recvfrom(2048)[1][0])


@pytest.fixture
def world() -> Iterator[World]:
    """A world in which nothing has been set up yet: no forwarding, no filter on source addresses."""
    with namespaces(3) as (host, server, lan):
        wire(host, "wan0", server, "eth0")
        wire(host, "lan0", lan, "eth0")
        for place, interface, *addresses in (
            (host, "wan0", f"{GATEWAY}/24", f"{GATEWAY6}/64"),
            (host, "lan0", "10.5.0.1/24", "fd00:5::1/64"),
            (server, "eth0", f"{SERVER}/24", f"{SERVER6}/64"),
            (lan, "eth0", "10.5.0.2/24", "fd00:5::2/64"),
        ):
            for address in addresses:
                place.ip("addr", "add", address, "dev", interface)
        for place, gateways in ((server, (GATEWAY, GATEWAY6)), (lan, ("10.5.0.1", "fd00:5::1"))):
            for gateway in gateways:
                place.ip("route", "add", "default", "via", gateway)
        for place in (host, server, lan):
            for interface in ("all", "default", "lan0", "wan0", "eth0"):
                with place.inside():
                    there = Path(f"/proc/sys/net/ipv4/conf/{interface}/rp_filter")
                    if there.exists():
                        there.write_text("0")
        with host.inside():
            tun = Tun("fzgw0")
            world = World(host, server, lan, tun)
            yield world
            for setup in world.setups:
                setup.remove()
            tun.close()


def configuration(
    directory: Path,
    *allowed_ips: str,
    addresses: str = '"100.64.0.1/16", "fd00:64::1/64"',
    nat_mode: str = "masquerade",
    more: str = "",
) -> Config:
    """A configuration with one peer, its state in `directory`/state."""
    allowed = ", ".join(f'"{network}"' for network in allowed_ips or ("100.64.0.2/32", "fd00:64::2/128"))
    text = f"""
[gateway]
name = "exit-1"
private_key_file = "gateway.key"
addresses = [{addresses}]
state_dir = "state"
{more}
[nat]
mode = "{nat_mode}"

[[peers]]
name = "laptop"
public_key = "//////////////////////////////////////////8="
allowed_ips = [{allowed}]
"""
    return load(write_config(directory, text))


IPV4_ALONE = '"100.64.0.1/16"'


def state_file(directory: Path) -> Path:
    """Where the gateway of `configuration(directory)` notes what it changed."""
    return directory / "state" / "host.json"


def addresses_of(host: Namespace, interface: str) -> set[str]:
    """The addresses of an interface with their prefix lengths."""
    (link,) = json.loads(host.ip("-j", "addr", "show", "dev", interface))
    return {f"{item['local']}/{item['prefixlen']}" for item in link["addr_info"]}


def routes_of(host: Namespace, interface: str) -> set[str]:
    """The static routes into an interface, both families."""
    return {
        route["dst"]
        for family in ("-4", "-6")
        for route in json.loads(host.ip("-j", family, "route", "show", "dev", interface, "proto", "static"))
    }


def test_the_tunnel_gets_its_addresses_mtu_and_routes(world: World, tmp_path: Path) -> None:
    """Addresses, MTU and link state are the configuration's; allowed IPs outside the gateway's networks get a route,
    those inside do not, and neither do 0.0.0.0/0 and ::/0."""
    allowed = ("100.64.0.2/32", "10.9.0.0/24", "fd00:9::/48", "0.0.0.0/0", "::/0")
    config = configuration(tmp_path, *allowed, more="mtu = 1380")
    world.gateway(config).apply()
    (link,) = json.loads(world.host.ip("-j", "link", "show", "dev", "fzgw0"))
    assert link["mtu"] == 1380
    assert "UP" in link["flags"]
    assert addresses_of(world.host, "fzgw0") == {"100.64.0.1/16", "fd00:64::1/64"}
    assert routes_of(world.host, "fzgw0") == {"10.9.0.0/24", "fd00:9::/48"}
    assert world.host.ip("route", "show", "default") == ""
    assert world.host.switch("ipv4/conf/fzgw0/send_redirects") == "0"


def test_an_ipv6_address_can_be_used_at_once(world: World, tmp_path: Path) -> None:
    """Without duplicate address detection the address is no tentative one, and it is the tunnel's only IPv6 address."""
    world.gateway(configuration(tmp_path)).apply()
    assert world.host.switch("ipv6/conf/fzgw0/disable_ipv6") == "0"
    assert world.host.switch("ipv6/conf/fzgw0/addr_gen_mode") == "1"
    assert "tentative" not in world.host.ip("-6", "addr", "show", "dev", "fzgw0")
    world.host.udp("fd00:64::1", 5353).close()


def test_without_ipv6_the_kernel_says_nothing_on_the_tunnel(world: World, tmp_path: Path) -> None:
    """A gateway without IPv6 addresses has IPv6 off on the TUN: the first packet that goes into it is the first one
    that was sent there, and IPv6 forwarding stays as it was."""
    world.gateway(configuration(tmp_path, "100.64.0.2/32", addresses=IPV4_ALONE)).apply()
    assert world.host.switch("ipv6/conf/fzgw0/disable_ipv6") == "1"
    assert world.host.switch("ipv6/conf/all/forwarding") == "0"
    with world.host.udp("100.64.0.1", 0) as sender:
        sender.sendto(b"first", ("100.64.0.2", 7))
    packet = world.tun.read()
    assert packet is not None
    assert endpoints(packet) == ("100.64.0.1", "100.64.0.2")
    assert packet.endswith(b"first")


@pytest.mark.parametrize(
    ("peer", "far_peer", "server", "gateway"),
    [("100.64.0.2", "10.9.0.7", SERVER, GATEWAY), ("fd00:64::2", "fd00:9::7", SERVER6, GATEWAY6)],
    ids=["ipv4", "ipv6"],
)
def test_tunnel_sources_are_masqueraded_and_answers_come_back(
    world: World, tmp_path: Path, peer: str, far_peer: str, server: str, gateway: str
) -> None:
    """A packet out of the tunnel leaves with the host's address, from the gateway's network and from other allowed
    IPs alike, and the answer goes back into the tunnel to the peer."""
    config = configuration(tmp_path, "100.64.0.2/32", "fd00:64::2/128", "10.9.0.0/24", "fd00:9::/48")
    world.gateway(config).apply()
    with world.server.udp(server, PORT) as service:
        assert world.source_seen(udp_packet(far_peer, server, (5000, PORT), b"far"), service) == gateway
        world.tun.write(udp_packet(peer, server, (4000, PORT), b"question"))
        _, asker = service.recvfrom(2048)
        service.sendto(b"answer", asker)
    assert asker[0] == gateway
    answer = world.tun.read(lambda packet: packet.endswith(b"answer"))
    assert answer is not None
    assert endpoints(answer) == (server, peer)


def test_what_is_not_the_tunnels_is_not_masqueraded(world: World, tmp_path: Path) -> None:
    """Masquerading leaves alone: other networks that this host forwards, also with a tunnel source; sources that only
    a peer's 0.0.0.0/0 covers; packets from peer to peer; the host's own packets with the tunnel address."""
    world.gateway(configuration(tmp_path, "100.64.0.2/32", "0.0.0.0/0")).apply()
    with world.server.udp(SERVER, PORT) as service:
        with world.lan.udp("10.5.0.2", 0) as client:
            client.sendto(b"lan", (SERVER, PORT))
            assert service.recvfrom(2048)[1][0] == "10.5.0.2"
        world.lan.ip("addr", "add", "100.64.7.7/32", "dev", "lo")
        with world.lan.udp("100.64.7.7", 0) as client:
            client.sendto(b"lan", (SERVER, PORT))
            assert service.recvfrom(2048)[1][0] == "100.64.7.7"
        assert world.source_seen(udp_packet("203.0.113.9", SERVER, (1, PORT), b"any"), service) == "203.0.113.9"
        with world.host.udp("100.64.0.1", 0) as own:
            own.sendto(b"own", (SERVER, PORT))
            assert service.recvfrom(2048)[1][0] == "100.64.0.1"
    world.tun.write(udp_packet("100.64.0.2", "100.64.0.3", (1, 2), b"peer to peer"))
    packet = world.tun.read(lambda packet: packet.endswith(b"peer to peer"))
    assert packet is not None
    assert endpoints(packet) == ("100.64.0.2", "100.64.0.3")


def test_without_nat_there_is_no_table_and_a_leftover_goes(world: World, tmp_path: Path) -> None:
    """nat.mode = "none" forwards with the peer's address, and a table of ours from an earlier run is taken away."""
    world.host.nft("table inet fzgw-fzgw0 { chain postrouting { type nat hook postrouting priority 100; }; }")
    world.host.nft("table inet fzgw-fzgw01 { }")
    world.gateway(configuration(tmp_path, nat_mode="none")).apply()
    assert world.host.tables() == ["inet fzgw-fzgw01"]
    with world.server.udp(SERVER, PORT) as service:
        assert world.source_seen(udp_packet("100.64.0.2", SERVER, (1, PORT), b"plain"), service) == "100.64.0.2"


def test_remove_leaves_nothing(world: World, tmp_path: Path) -> None:
    """After remove() forwarding, accept_ra, the TUN and the nftables rules are as before, no state file is left, and
    a second remove() is fine."""
    setup = world.gateway(configuration(tmp_path, "100.64.0.2/32", "10.9.0.0/24"))
    before = [world.host.switch(f"ipv6/conf/{name}/accept_ra") for name in ("wan0", "lan0", "lo", "default")]
    setup.apply()
    assert world.host.switch("ipv4/ip_forward") == world.host.switch("ipv6/conf/all/forwarding") == "1"
    assert world.host.tables() == ["inet fzgw-fzgw0"]
    assert state_file(tmp_path).stat().st_mode & 0o777 == 0o600
    setup.remove()
    assert world.host.switch("ipv4/ip_forward") == world.host.switch("ipv6/conf/all/forwarding") == "0"
    assert [world.host.switch(f"ipv6/conf/{name}/accept_ra") for name in ("wan0", "lan0", "lo", "default")] == before
    assert world.host.tables() == []
    assert addresses_of(world.host, "fzgw0") == set()
    assert routes_of(world.host, "fzgw0") == set()
    assert list((tmp_path / "state").iterdir()) == []
    setup.remove()


def test_remove_works_after_the_device_went(world: World, tmp_path: Path) -> None:
    """The engine may have closed the TUN device before: the rest is put back all the same."""
    with world.host.inside():
        tun = Tun("other0")
        setup = world.gateway(configuration(tmp_path), "other0")
        setup.apply()
        tun.close()
        setup.remove()
    assert world.host.switch("ipv4/ip_forward") == "0"
    assert world.host.tables() == []


def test_switches_that_stood_right_are_never_touched(world: World, tmp_path: Path) -> None:
    """On a host that forwards already, forwarding and accept_ra stay as they are, during the run and after it."""
    for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        world.host.set_switch(switch, 1)
    setup = world.gateway(configuration(tmp_path))
    setup.apply()
    assert world.host.switch("ipv6/conf/wan0/accept_ra") == "1"
    setup.remove()
    assert world.host.switch("ipv4/ip_forward") == world.host.switch("ipv6/conf/all/forwarding") == "1"


def test_a_switch_that_somebody_moved_meanwhile_is_theirs(world: World, tmp_path: Path) -> None:
    """What an administrator set during the run is not overwritten by remove()."""
    setup = world.gateway(configuration(tmp_path))
    setup.apply()
    world.host.set_switch("ipv6/conf/wan0/accept_ra", 0)
    setup.remove()
    assert world.host.switch("ipv6/conf/wan0/accept_ra") == "0"
    assert world.host.switch("ipv6/conf/lan0/accept_ra") == "1"


def test_what_the_kernel_moves_along_with_forwarding_comes_back(world: World, tmp_path: Path) -> None:
    """Switching IPv4 forwarding off sets accept_redirects to 1 and every interface's forwarding to 0: a host that had
    them otherwise has them so again after remove()."""
    world.host.set_switch("ipv4/conf/all/accept_redirects", 0)
    world.host.set_switch("ipv4/conf/lan0/forwarding", 1)
    world.host.set_switch("ipv6/conf/lan0/forwarding", 1)
    setup = world.gateway(configuration(tmp_path))
    setup.apply()
    setup.remove()
    assert world.host.switch("ipv4/conf/all/accept_redirects") == "0"
    for family in ("ipv4", "ipv6"):
        forwarding = [world.host.switch(f"{family}/conf/{name}/forwarding") for name in ("all", "lan0", "wan0")]
        assert forwarding == ["0", "1", "0"]


def test_forwarding_that_is_off_already_does_not_hide_the_rest(world: World, tmp_path: Path) -> None:
    """Where forwarding was switched off before remove(), by hand or by a run that was killed on its way back, what the
    kernel moved along with it comes back all the same."""
    world.host.set_switch("ipv4/conf/all/accept_redirects", 0)
    world.host.set_switch("ipv4/conf/lan0/forwarding", 1)
    setup = world.gateway(configuration(tmp_path, "100.64.0.2/32", addresses=IPV4_ALONE))
    setup.apply()
    world.host.set_switch("ipv4/ip_forward", 0)
    assert world.host.switch("ipv4/conf/all/accept_redirects") == "1"
    setup.remove()
    assert world.host.switch("ipv4/conf/all/accept_redirects") == "0"
    assert world.host.switch("ipv4/conf/lan0/forwarding") == "1"
    assert world.host.switch("ipv4/ip_forward") == "0"


def test_a_default_route_from_router_advertisements_stays(world: World, tmp_path: Path) -> None:
    """IPv6 forwarding takes away the default route of a host with accept_ra = 1; the gateway's host keeps it, learns
    new ones, and has accept_ra = 1 again in the end. The kernel's own way is shown last."""
    host = world.host

    def router() -> str:
        return host.ip("-6", "route", "show", "default", "proto", "ra")

    advertise(world.server, "eth0")
    assert eventually(lambda: "wan0" in router())
    setup = world.gateway(configuration(tmp_path))
    setup.apply()
    assert host.switch("ipv6/conf/all/forwarding") == "1"
    assert host.switch("ipv6/conf/wan0/accept_ra") == "2"
    assert "wan0" in router()
    host.ip("-6", "route", "flush", "proto", "ra")
    advertise(world.server, "eth0")
    assert eventually(lambda: "wan0" in router())
    setup.remove()
    assert host.switch("ipv6/conf/wan0/accept_ra") == "1"
    assert "wan0" in router()

    host.set_switch("ipv6/conf/all/forwarding", 1)
    assert router() == ""


def advertise(router: Namespace, interface: str) -> None:
    """Sends one router advertisement with a lifetime of half an hour to everybody on the interface."""
    with router.inside(), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
        index = socket.if_nametoindex(interface)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sender.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))


def kill_a_gateway(host: Namespace, config: Config) -> None:
    """Runs a gateway's setup in a process of its own and kills it when it stands."""
    process = host.python(STOPPED_BY_KILL, str(config.path))
    assert process.stdout is not None
    assert process.stdout.readline() == "applied\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_run_is_cleaned_by_the_next_one(world: World, tmp_path: Path) -> None:
    """After SIGKILL the next run replaces the leftover table, and its remove() brings back the values from before the
    killed run, also of switches that it found as it wants them."""
    config = configuration(tmp_path, more='interface = "killed0"')
    kill_a_gateway(world.host, config)
    assert world.host.switch("ipv4/ip_forward") == "1"
    assert world.host.switch("ipv6/conf/wan0/accept_ra") == "2"
    assert world.host.tables() == ["inet fzgw-killed0"]

    tun = Tun("killed0")
    setup = world.gateway(config, "killed0")
    setup.apply()
    assert world.host.tables() == ["inet fzgw-killed0"]
    setup.remove()
    tun.close()
    assert world.host.switch("ipv4/ip_forward") == world.host.switch("ipv6/conf/all/forwarding") == "0"
    assert world.host.switch("ipv6/conf/wan0/accept_ra") == "1"
    assert world.host.tables() == []
    assert not state_file(tmp_path).exists()


def test_a_killed_run_of_another_interface_name_is_cleaned_too(world: World, tmp_path: Path) -> None:
    """A gateway that changed its interface's name after the kill still takes over what is in its state directory; and
    with IPv4 alone now it puts IPv6 back at once."""
    kill_a_gateway(world.host, configuration(tmp_path, more='interface = "killed0"'))
    setup = world.gateway(configuration(tmp_path, "100.64.0.2/32", addresses=IPV4_ALONE))
    setup.apply()
    assert world.host.tables() == ["inet fzgw-fzgw0"]
    assert world.host.switch("ipv6/conf/all/forwarding") == "0"
    assert world.host.switch("ipv6/conf/wan0/accept_ra") == "1"
    setup.remove()
    assert world.host.switch("ipv4/ip_forward") == "0"
    assert world.host.tables() == []


def test_remove_alone_cleans_a_killed_run(world: World, tmp_path: Path) -> None:
    """remove() without apply() puts back what a killed run left, and an interface that has its name now is let be."""
    config = configuration(tmp_path, more='interface = "killed0"')
    kill_a_gateway(world.host, config)
    world.host.ip("link", "add", "killed0", "up", "type", "veth", "peer", "name", "other0")
    world.gateway(config, "killed0").remove()
    assert "UP" in world.host.ip("link", "show", "dev", "killed0")
    assert world.host.switch("ipv4/ip_forward") == world.host.switch("ipv6/conf/all/forwarding") == "0"
    assert world.host.switch("ipv6/conf/wan0/accept_ra") == "1"
    assert world.host.tables() == []


def test_what_was_moved_after_the_kill_is_theirs(world: World, tmp_path: Path) -> None:
    """A switch that somebody set between the kill and the next run is where that run starts from."""
    config = configuration(tmp_path, more='interface = "killed0"')
    kill_a_gateway(world.host, config)
    world.host.set_switch("ipv6/conf/wan0/accept_ra", 0)
    tun = Tun("killed0")
    setup = world.gateway(config, "killed0")
    setup.apply()
    setup.remove()
    tun.close()
    assert world.host.switch("ipv6/conf/wan0/accept_ra") == "0"
    assert world.host.switch("ipv6/conf/lan0/accept_ra") == "1"


def test_a_state_file_of_an_earlier_boot_means_nothing(world: World, tmp_path: Path) -> None:
    """After a reboot the kernel has its own values: those in a state file from before are not put back."""
    config = configuration(tmp_path, more='interface = "killed0"')
    kill_a_gateway(world.host, config)
    stored = json.loads(state_file(tmp_path).read_text())
    for entry in stored["entries"]:
        entry["boot"] = "00000000-0000-0000-0000-000000000000"
    state_file(tmp_path).write_text(json.dumps(stored))
    world.gateway(config, "killed0").remove()
    assert world.host.switch("ipv4/ip_forward") == "1"


def test_two_gateways_of_one_host_do_not_switch_each_other_off(world: World, tmp_path: Path) -> None:
    """The gateway that switched forwarding on leaves it on at its end while another one needs it; the next run puts it
    back."""
    first_directory, second_directory = tmp_path / "first", tmp_path / "second"
    first_directory.mkdir()
    second_directory.mkdir()
    first = world.gateway(configuration(first_directory))
    first.apply()
    tun = Tun("second0")
    second = world.gateway(configuration(second_directory, addresses='"100.99.0.1/16"'), "second0")
    second.apply()
    first.remove()
    assert world.host.switch("ipv4/ip_forward") == "1"
    assert world.host.switch("ipv6/conf/all/forwarding") == "0"  # the second one has no IPv6
    assert world.host.tables() == ["inet fzgw-second0"]
    second.remove()
    tun.close()
    again = world.gateway(configuration(first_directory))
    again.apply()
    again.remove()
    assert world.host.switch("ipv4/ip_forward") == "0"


def test_update_moves_routes_and_sources_and_disturbs_nothing_else(world: World, tmp_path: Path) -> None:
    """A reload adds and takes away routes and masqueraded sources; a flow of an unchanged peer keeps its translated
    port, and a route on the TUN that somebody else made stays."""
    setup = world.gateway(configuration(tmp_path, "100.64.0.2/32", "10.9.0.0/24"))
    setup.apply()
    world.host.ip("route", "add", "203.0.113.0/24", "dev", "fzgw0")
    with world.server.udp(SERVER, PORT) as service:
        ports = []
        for turn in range(2):
            for peer in ("100.64.0.2", "100.64.0.3"):
                world.tun.write(udp_packet(peer, SERVER, (4000, PORT), b"same port"))
                ports.append(service.recvfrom(2048)[1][1])
            if turn == 0:
                setup.update(configuration(tmp_path, "100.64.0.2/32", "10.8.0.0/24", "fd00:9::/48"))
        assert ports[:2] == ports[2:]
        assert len(set(ports)) == 2
        packets = [udp_packet(source, SERVER, (1, PORT), b"") for source in ("10.9.0.1", "10.8.0.1")]
        assert [world.source_seen(packet, service) for packet in packets] == ["10.9.0.1", GATEWAY]
    assert routes_of(world.host, "fzgw0") == {"10.8.0.0/24", "fd00:9::/48"}
    assert "203.0.113.0/24" in world.host.ip("route", "show", "dev", "fzgw0")
    setup.remove()
    assert routes_of(world.host, "fzgw0") == set()


def test_update_may_change_addresses_families_and_nat(world: World, tmp_path: Path) -> None:
    """IPv6 can come and go, an address can give way to another of the same network, and NAT can end."""
    setup = world.gateway(configuration(tmp_path, "100.64.0.2/32", "10.9.0.0/24", addresses=IPV4_ALONE))
    setup.apply()
    setup.update(configuration(tmp_path, "10.9.0.0/24", addresses='"100.64.0.9/16", "fd00:64::1/64"'))
    assert addresses_of(world.host, "fzgw0") == {"100.64.0.9/16", "fd00:64::1/64"}
    assert world.host.switch("ipv6/conf/all/forwarding") == "1"
    setup.update(configuration(tmp_path, "10.9.0.0/24", addresses='"100.65.0.1/16"', nat_mode="none"))
    assert addresses_of(world.host, "fzgw0") == {"100.65.0.1/16"}
    assert routes_of(world.host, "fzgw0") == {"10.9.0.0/24"}
    assert world.host.switch("ipv6/conf/all/forwarding") == "0"
    assert world.host.switch("ipv6/conf/wan0/accept_ra") == "1"
    assert world.host.tables() == []
    assert world.host.switch("ipv4/ip_forward") == "1"
    setup.remove()
    assert world.host.switch("ipv4/ip_forward") == "0"


def test_routes_survive_the_last_ipv4_address(world: World, tmp_path: Path) -> None:
    """The kernel drops every IPv4 route of a device with its last IPv4 address: ours are there again."""
    setup = world.gateway(configuration(tmp_path, "10.9.0.0/24"))
    setup.apply()
    setup.update(configuration(tmp_path, "10.9.0.0/24", addresses='"fd00:64::1/64"'))
    assert routes_of(world.host, "fzgw0") == {"10.9.0.0/24"}


def test_an_apply_that_fails_leaves_nothing(world: World, tmp_path: Path) -> None:
    """A peer's allowed IPs that are another interface's network are one clear error, and what was set until then is
    undone."""
    setup = world.gateway(configuration(tmp_path, "10.4.0.0/24", "10.5.0.0/24"))
    with pytest.raises(HostError, match=r"10\.5\.0\.0/24 are routed to lan0 already: .*ip route del"):
        setup.apply()
    assert addresses_of(world.host, "fzgw0") == set()
    assert routes_of(world.host, "fzgw0") == set()
    assert world.host.switch("ipv4/ip_forward") == "0"
    assert world.host.tables() == []
    assert not state_file(tmp_path).exists()


def test_an_update_that_fails_goes_back(world: World, tmp_path: Path) -> None:
    """A reload is all or nothing: after the error the host is that of the old configuration, and it can be updated."""
    setup = world.gateway(configuration(tmp_path, "10.9.0.0/24", addresses=IPV4_ALONE))
    setup.apply()
    with pytest.raises(HostError, match="routed to lan0 already"):
        setup.update(configuration(tmp_path, "10.4.0.0/24", "10.5.0.0/24"))
    assert routes_of(world.host, "fzgw0") == {"10.9.0.0/24"}
    assert addresses_of(world.host, "fzgw0") == {"100.64.0.1/16"}
    assert world.host.switch("ipv6/conf/all/forwarding") == "0"
    with world.server.udp(SERVER, PORT) as service:
        assert world.source_seen(udp_packet("10.9.0.1", SERVER, (1, PORT), b""), service) == GATEWAY
    setup.update(configuration(tmp_path, "10.4.0.0/24"))
    assert routes_of(world.host, "fzgw0") == {"10.4.0.0/24"}


def test_a_missing_interface_is_named(world: World, tmp_path: Path) -> None:
    """Without the TUN device nothing is changed and the error says so."""
    with pytest.raises(HostError, match="no interface absent0"):
        world.gateway(configuration(tmp_path), "absent0").apply()
    assert world.host.tables() == []


def test_a_missing_nft_is_named_with_its_package(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masquerading without the nft command is an error that names the package; without NAT nothing is missed."""
    monkeypatch.setattr(nat, "find_nft", lambda: None)
    with pytest.raises(HostError, match="package nftables"):
        world.gateway(configuration(tmp_path)).apply()
    assert world.host.switch("ipv4/ip_forward") == "0"
    setup = world.gateway(configuration(tmp_path, nat_mode="none"))
    setup.apply()
    assert world.host.switch("ipv4/ip_forward") == "1"
    setup.remove()


def test_without_privilege_the_two_ways_out_are_named(world: World, tmp_path: Path) -> None:
    """Without CAP_NET_ADMIN the error is a PrivilegeError, one line."""
    config = configuration(tmp_path, nat_mode="none", more='interface = "plain0"')
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 65534, 65534)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    output, _ = world.host.python(WITHOUT_PRIVILEGE, str(config.path)).communicate()
    assert output.count("\n") == 1
    assert output.startswith("no permission to ")
    assert "as root" in output
    assert "CAP_NET_ADMIN" in output
    assert world.host.switch("ipv4/ip_forward") == "0"


def test_a_state_directory_that_cannot_be_written_stops_the_start(world: World, tmp_path: Path) -> None:
    """Where the values from before cannot be kept, nothing is changed; on a host that forwards already there is
    nothing to keep, and the gateway runs."""
    (tmp_path / "state").write_text("a file in the way")
    config = configuration(tmp_path)
    with pytest.raises(HostError, match=r"cannot write .*set gateway\.state_dir"):
        world.gateway(config).apply()
    assert world.host.switch("ipv4/ip_forward") == "0"
    for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        world.host.set_switch(switch, 1)
    setup = world.gateway(config)
    setup.apply()
    assert world.host.tables() == ["inet fzgw-fzgw0"]
    setup.remove()
    assert world.host.tables() == []


def test_no_descriptor_stays_open(world: World, tmp_path: Path) -> None:
    """Netlink sockets and files are closed after each call: a gateway that reloads for years keeps its descriptors."""
    setup = world.gateway(configuration(tmp_path))
    setup.apply()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for turn in range(20):
        setup.update(configuration(tmp_path, f"10.{turn + 10}.0.0/24"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
