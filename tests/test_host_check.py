"""fzgw.host.check: what it finds on a host, and what it finds nothing in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from config_files import write_config
from fzgw.config import Config, load
from fzgw.host import Finding, HostSetup, check, nat
from host_lab import Namespace, Tun, namespaces, needs_root, wire

pytestmark = needs_root

UNPRIVILEGED = """
import json, os, sys
from dataclasses import asdict
import pyroute2
from fzgw.config import load
from fzgw.host import check
config = load(sys.argv[1])
os.setresuid(65534, 65534, 65534)
print(json.dumps([asdict(finding) for finding in check(config)]))
"""

FORWARD = "type filter hook forward priority filter;"


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with an address and a default route on eth0, and this thread in it."""
    with namespaces(2) as (host, other):
        wire(host, "eth0", other, "eth0")
        for address in ("192.0.2.2/24", "fd00:2::2/64"):
            host.ip("addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
        for router in ("192.0.2.1", "fd00:2::1"):
            host.ip("route", "add", "default", "via", router)
        with host.inside():
            yield host


def configuration(
    directory: Path,
    *allowed_ips: str,
    addresses: str = '"100.64.0.1/16", "fd00:64::1/64"',
    nat_mode: str = "masquerade",
) -> Config:
    """A configuration with one peer, its state in `directory`/state."""
    allowed = ", ".join(f'"{network}"' for network in allowed_ips or ("100.64.0.2/32",))
    text = f"""
[gateway]
name = "exit-1"
private_key_file = "gateway.key"
addresses = [{addresses}]
state_dir = "state"

[nat]
mode = "{nat_mode}"

[[peers]]
name = "laptop"
public_key = "//////////////////////////////////////////8="
allowed_ips = [{allowed}]
"""
    return load(write_config(directory, text))


def only(findings: list[Finding]) -> Finding:
    """The one finding there must be."""
    (finding,) = findings
    return finding


def test_a_host_that_is_fit_has_no_findings(host: Namespace, tmp_path: Path) -> None:
    """Nothing is found on a plain host whose forwarding is off, and nothing is changed."""
    assert check(configuration(tmp_path)) == []
    assert host.switch("ipv4/ip_forward") == "0"
    assert host.tables() == []
    assert not (tmp_path / "state").exists()


def test_a_taken_interface_name(host: Namespace, tmp_path: Path) -> None:
    """An interface of the gateway's name that is not its own is an error with the two ways out."""
    tun = Tun("fzgw0")
    finding = only(check(configuration(tmp_path)))
    tun.close()
    assert (finding.level, finding.message) == ("error", "the interface name fzgw0 is taken")
    assert "gateway.interface" in finding.fix


def test_beside_a_running_gateway_there_are_warnings_only(host: Namespace, tmp_path: Path) -> None:
    """check beside the gateway that it describes says so, and finds no error in what that gateway uses."""
    config = configuration(tmp_path, "10.9.0.0/24")
    tun = Tun("fzgw0")
    setup = HostSetup(config, "fzgw0")
    setup.apply()
    with host.udp("0.0.0.0", config.gateway.listen):
        findings = check(config)
    setup.remove()
    tun.close()
    assert [finding.level for finding in findings] == ["warning", "warning"]
    assert "seems to run" in findings[0].message
    assert findings[1].message == "UDP port 51820 is in use"


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::"])
def test_a_port_in_use(host: Namespace, tmp_path: Path, address: str) -> None:
    """A UDP port that somebody has, on whichever address and family, is an error."""
    with host.udp(address, 51820):
        finding = only(check(configuration(tmp_path)))
    assert (finding.level, finding.message) == ("error", "UDP port 51820 is in use")


@pytest.mark.parametrize(
    ("addresses", "allowed", "level", "part"),
    [
        ('"192.0.2.2/24"', "192.0.2.9/32", "error", "address 192.0.2.2 is eth0's already"),
        ('"192.0.2.7/24"', "192.0.2.9/32", "error", "network 192.0.2.0/24 is eth0's already"),
        ('"192.0.2.129/25"', "192.0.2.130/32", "warning", "overlaps 192.0.2.0/24 of eth0"),
        ('"192.0.0.1/16"', "192.0.9.9/32", "warning", "overlaps 192.0.2.0/24 of eth0"),
        ('"fd00:2::1/64"', "fd00:2::9/128", "error", "network fd00:2::/64 is eth0's already"),
        ('"100.64.0.1/16"', "192.0.2.0/24", "error", "allowed IPs 192.0.2.0/24 are routed to eth0 already"),
        ('"100.64.0.1/16"', "192.0.2.9/32", "warning", "lie in 192.0.2.0/24 of eth0"),
    ],
)
def test_networks_that_are_somebody_elses(
    host: Namespace, tmp_path: Path, addresses: str, allowed: str, level: str, part: str
) -> None:
    """The gateway's address or network on another interface, and allowed IPs that are routed elsewhere, are errors;
    networks that overlap are warnings."""
    finding = only(check(configuration(tmp_path, allowed, addresses=addresses)))
    assert finding.level == level
    assert part in finding.message
    assert finding.fix


def test_a_wider_route_is_no_conflict(host: Namespace, tmp_path: Path) -> None:
    """Allowed IPs that hold the host's own network are fine, the longer prefix wins; 0.0.0.0/0 is no route at all."""
    assert check(configuration(tmp_path, "192.0.0.0/16", "0.0.0.0/0")) == []


def test_ipv6_without_an_ipv6_address(host: Namespace, tmp_path: Path) -> None:
    """A peer's IPv6 needs an IPv6 address of the gateway."""
    finding = only(check(configuration(tmp_path, "100.64.0.2/32", "fd00:9::/48", addresses='"100.64.0.1/16"')))
    assert finding.level == "warning"
    assert "fd00:9::/48" in finding.message


def test_a_missing_nft(host: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nft masquerading is an error that names the package, and the firewall could not be looked at."""
    monkeypatch.setattr(nat, "find_nft", lambda: None)
    error, warning = check(configuration(tmp_path))
    assert (error.level, warning.level) == ("error", "warning")
    assert "package nftables" in error.fix
    assert [finding.level for finding in check(configuration(tmp_path, nat_mode="none"))] == ["warning"]


def test_an_unwritable_state_directory(host: Namespace, tmp_path: Path) -> None:
    """A state directory below a file can never be written."""
    (tmp_path / "state").write_text("a file in the way")
    finding = only(check(configuration(tmp_path)))
    assert finding.level == "error"
    assert "state_dir" in finding.message


def test_legacy_iptables_is_said_to_be_unread(host: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nft does not show the rules of legacy iptables: that they exist is a warning with the command that shows them."""
    (tmp_path / "ip_tables_names").write_text("nat\nfilter\n")
    monkeypatch.setattr("fzgw.host.findings._PROC_NET", tmp_path)
    finding = only(check(configuration(tmp_path)))
    assert finding.level == "warning"
    assert "iptables-legacy -S FORWARD" in finding.fix


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (f"chain forward {{ {FORWARD} policy drop; }};", "its policy is drop"),
        (f"chain forward {{ {FORWARD} policy drop; ct state established,related accept; }};", "its policy is drop"),
        (f"chain forward {{ {FORWARD}; ip6 saddr fd00::/8 drop; }};", "a rule in forward drops them"),
        (f"chain forward {{ {FORWARD}; meta nfproto ipv4 reject; }};", "a rule in forward rejects them"),
        (
            f"chain forward {{ {FORWARD}; ct state vmap {{ established : accept, invalid : drop }}; "
            'iifname vmap { "lan0" : accept, "fzgw0" : drop }; };',
            "a rule in forward drops them",
        ),
        (
            f"chain fromoutside {{ ct state != established counter drop; }}; chain forward {{ {FORWARD}; "
            'iifname != { "lan0", "lan1" } goto fromoutside; };',
            "a rule in fromoutside drops them",
        ),
        (
            "set inside { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 172.16.0.0-172.31.255.255 }; }; "
            f"chain forward {{ {FORWARD} policy drop; ip saddr @inside accept; ct state established accept; "
            "ip6 saddr fd00:64::/64 accept; };",
            "its policy is drop",
        ),
    ],
)
def test_a_chain_that_drops_is_named_with_its_fix(host: Namespace, tmp_path: Path, rules: str, why: str) -> None:
    """A forward chain that drops tunnel traffic, by policy or by rule, is an error that names table and chain; after
    the commands of the fix it is none any more."""
    host.nft(f"table inet site {{ {rules} }}")
    finding = only(check(configuration(tmp_path)))
    assert finding == Finding(
        "error", f"the chain forward of the table inet site drops the tunnel's packets: {why}", finding.fix
    )
    subprocess.run(["/bin/sh", "-ec", finding.fix], check=True)
    assert check(configuration(tmp_path)) == []


@pytest.mark.parametrize(
    "rules",
    [
        f'chain forward {{ {FORWARD} policy drop; iifname "fzgw*" accept; '
        'oifname "fzgw0" ct state established accept; };',
        f"chain forward {{ {FORWARD} policy drop; meta l4proto {{ tcp, udp }} accept; }};",
        f'chain forward {{ {FORWARD}; iifname "lan0" drop; tcp dport {{ 22, 80-90 }} drop; udp dport 53 drop; '
        "fib daddr type local drop; ct state invalid drop; ip daddr 10.0.0.0/8 reject; limit rate 1/second drop; };",
        "chain input { type filter hook input priority filter; policy drop; };",
        f"chain forward {{ {FORWARD} policy drop; jump ours; }}; "
        "chain ours { icmp type echo-request return; accept; };",
    ],
)
def test_a_chain_that_lets_the_tunnel_through_is_no_finding(host: Namespace, tmp_path: Path, rules: str) -> None:
    """Chains that accept the tunnel's packets, drop others, or stand at other hooks are not complained of."""
    # A jump needs its target: chains are declared first.
    host.nft("table inet site { chain ours { }; }")
    host.nft(f"table inet site {{ {rules} }}")
    assert check(configuration(tmp_path)) == []


def test_another_family_does_not_count(host: Namespace, tmp_path: Path) -> None:
    """A table of IPv6 drops nothing where the tunnel has IPv4 alone."""
    host.nft(f"table ip6 site {{ chain forward {{ {FORWARD} policy drop; }}; }}")
    assert check(configuration(tmp_path, addresses='"100.64.0.1/16"')) == []


def test_a_rule_that_may_accept_makes_it_a_warning(host: Namespace, tmp_path: Path) -> None:
    """Where a rule that depends on what cannot be known might accept, the drop behind it is possible, not certain."""
    host.nft(f"table ip site {{ chain forward {{ {FORWARD} policy drop; meta mark 1 accept; }}; }}")
    finding = only(check(configuration(tmp_path)))
    assert finding.level == "warning"
    assert "may drop" in finding.message


def test_without_privilege_what_can_be_seen_is_seen(host: Namespace, tmp_path: Path) -> None:
    """An ordinary user is told of the missing capability and that the firewall is unread, and of what can be seen
    without: here that the interface name is taken."""
    config = configuration(tmp_path)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    tun = Tun("fzgw0")
    output, _ = host.python(UNPRIVILEGED, str(config.path)).communicate()
    tun.close()
    messages = {finding["message"]: finding for finding in json.loads(output)}
    assert messages["the capability CAP_NET_ADMIN is missing"]["level"] == "error"
    assert messages["the interface name fzgw0 is taken"]["level"] == "error"
    assert messages["the host's firewall could not be checked: that needs privilege"]["level"] == "warning"
    assert all("as root" in finding["fix"] for text, finding in messages.items() if "CAP_NET_ADMIN" in text)
