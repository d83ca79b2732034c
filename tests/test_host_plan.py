"""What a configuration asks of the host, the NAT table's text, and the state file: no privilege needed."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from config_files import GATEWAY, peer_table, write_config
from fzgw.config import load
from fzgw.host import nat, state
from fzgw.host.plan import HostPlan, plan_for
from fzgw.host.sysctl import Change, in_order


def plan(directory: Path, *peers: tuple[str, ...], gateway: str = GATEWAY, more: str = "") -> HostPlan:
    """The plan of a configuration with these peers' allowed IPs."""
    tables = "".join(peer_table(f"peer-{number}", *allowed) for number, allowed in enumerate(peers))
    return plan_for(load(write_config(directory, gateway + more + tables)), "fzgw0")


IPV4_ALONE = GATEWAY.replace(', "fd00:64::1/64"', "")


def test_routes_are_what_the_gateways_networks_do_not_hold(tmp_path: Path) -> None:
    """Allowed IPs inside a network of the gateway need no route, default routes get none, a wider network does."""
    found = plan(tmp_path, ("100.64.0.2/32", "fd00:64::2/128", "0.0.0.0/0"), ("10.9.0.0/24", "100.64.0.0/10", "::/0"))
    assert found.routes == (ip_network("10.9.0.0/24"), ip_network("100.64.0.0/10"))
    assert found.families == {"ipv4", "ipv6"}
    assert found.unrouted == ()


def test_sources_are_the_tunnels_networks_without_default_routes(tmp_path: Path) -> None:
    """Masqueraded are the gateway's networks and the peers' allowed IPs, in as few networks as there can be; 0.0.0.0/0
    is none of them, and two halves of it are what they say."""
    found = plan(tmp_path, ("100.64.0.2/32", "0.0.0.0/0"), ("10.9.0.0/25", "10.9.0.128/25"))
    assert found.nat_sources == tuple(map(ip_network, ("10.9.0.0/24", "100.64.0.0/16", "fd00:64::/64")))
    halves = plan(tmp_path, ("0.0.0.0/1", "128.0.0.0/1"), gateway=IPV4_ALONE)
    assert halves.nat_sources == (ip_network("0.0.0.0/0"),)
    assert plan(tmp_path, ("100.64.0.2/32",), more='\n[nat]\nmode = "none"\n').nat_sources is None


def test_ipv6_needs_an_ipv6_address(tmp_path: Path) -> None:
    """Without an IPv6 address the tunnel has no IPv6: no route, no source, no forwarding; what is missed is told."""
    found = plan(tmp_path, ("100.64.0.2/32", "fd00:9::/48"), gateway=IPV4_ALONE)
    assert not found.ipv6
    assert found.routes == ()
    assert found.unrouted == (ip_network("fd00:9::/48"),)
    assert found.families == {"ipv4"}
    assert found.nat_sources == (ip_network("100.64.0.0/16"),)


def test_the_table_replaces_its_predecessor_in_one_transaction(tmp_path: Path) -> None:
    """Whatever has the table's name is deleted in the same transaction that makes it; only what came out of the tunnel
    is translated, by a kernel that can tell."""
    text = nat.ruleset(plan(tmp_path, ("100.64.0.2/32",)), kernel=(5, 7))
    assert text is not None
    lines = text.splitlines()
    assert lines[:3] == ["add table inet fzgw-fzgw0", "delete table inet fzgw-fzgw0", "table inet fzgw-fzgw0 {"]
    rules = [line.strip() for line in lines if "masquerade" in line]
    assert rules == [
        'iifname "fzgw0" oifname != "fzgw0" ip saddr @sources4 counter masquerade',
        'iifname "fzgw0" oifname != "fzgw0" ip6 saddr @sources6 counter masquerade',
    ]
    older = nat.ruleset(plan(tmp_path, ("100.64.0.2/32",), gateway=IPV4_ALONE), kernel=(5, 4))
    assert older is not None
    assert [line.strip() for line in older.splitlines() if "masquerade" in line] == [
        'oifname != "fzgw0" ip saddr @sources4 counter masquerade'
    ]
    assert nat.ruleset(plan(tmp_path, ("100.64.0.2/32",), more='\n[nat]\nmode = "none"\n')) is None


def test_switches_are_set_in_an_order_that_can_be_turned_round() -> None:
    """accept_ra comes before all, forwarding last; of two changes of one switch the older one counts."""
    forwarding = Change("net/ipv6/conf/all/forwarding", "0", "1", "ipv6")
    accept_ra = Change("net/ipv6/conf/eth0/accept_ra", "1", "2", "ipv6")
    side_effect = Change("net/ipv6/conf/eth1/forwarding", "1", "1", "ipv6")
    younger = Change("net/ipv6/conf/eth0/accept_ra", "2", "2", "ipv6")
    assert in_order([forwarding, side_effect, accept_ra, younger]) == [accept_ra, side_effect, forwarding]


CHANGE = Change("net/ipv4/ip_forward", "0", "1", "ipv4")


def test_the_state_file_holds_until_its_last_entry_goes(tmp_path: Path) -> None:
    """What is saved is read again; without entries there is no file, and nothing else is left in the directory."""
    entry = state.Entry("fzgw0", frozenset({"ipv4"}), (CHANGE,))
    with state.locked(tmp_path / "deep" / "state") as ledger:
        ledger.entries["fzgw0"] = entry
        ledger.save()
    with state.locked(tmp_path / "deep" / "state") as ledger:
        assert ledger.entries == {"fzgw0": entry}
        del ledger.entries["fzgw0"]
        ledger.save()
    assert list((tmp_path / "deep" / "state").iterdir()) == []


def test_entries_of_other_namespaces_stay_and_of_earlier_boots_go(tmp_path: Path) -> None:
    """A file is of one boot; entries of another network namespace are neither used nor lost."""
    with state.locked(tmp_path) as ledger:
        for name in ("here0", "elsewhere0", "earlier0"):
            ledger.entries[name] = state.Entry(name, frozenset({"ipv4"}), (CHANGE,))
        ledger.save()
    path = tmp_path / state.FILE_NAME
    stored = json.loads(path.read_text())
    stored["entries"][1]["netns"] = "cookie:0"
    stored["entries"][2]["boot"] = "another"
    path.write_text(json.dumps(stored))
    with state.locked(tmp_path) as ledger:
        assert set(ledger.entries) == {"here0"}
        ledger.entries.clear()
        ledger.save()
    assert [entry["interface"] for entry in json.loads(path.read_text())["entries"]] == ["elsewhere0"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"entries": [{"boot": 1}]}',
        '{"entries": [{"boot": "BOOT", "netns": "NETNS", "interface": "x", "families": [], "changes": '
        '[{"path": "kernel/core_pattern", "before": "|evil", "ours": "1", "family": "ipv4"}]}]}',
        '{"entries": [{"boot": "BOOT", "netns": "NETNS", "interface": "x", "families": [], "changes": '
        '[{"path": "net/ipv4/conf/../../../kernel/x/forwarding", "before": "1", "ours": "1", "family": "ipv4"}]}]}',
    ],
    ids=["cut short", "no object", "no entry", "foreign switch", "foreign path"],
)
def test_a_state_file_that_is_none_counts_as_empty(tmp_path: Path, text: str) -> None:
    """A damaged file, or one that names other switches than a gateway's, puts nothing back and stops nothing."""
    text = text.replace("BOOT", state.boot_id()).replace("NETNS", state.network_namespace())
    (tmp_path / state.FILE_NAME).write_text(text)
    with state.locked(tmp_path) as ledger:
        assert ledger.entries == {}
        ledger.entries["fzgw0"] = state.Entry("fzgw0", changes=(CHANGE,))
        ledger.save()
    assert set(state.read(tmp_path).entries) == {"fzgw0"}


def test_a_directory_that_cannot_be_used_is_told_when_it_matters(tmp_path: Path) -> None:
    """Reading where nothing can be kept gives an empty ledger; writing there raises the reason."""
    (tmp_path / "state").write_text("a file in the way")
    with state.locked(tmp_path / "state") as ledger:
        ledger.save()
        ledger.entries["fzgw0"] = state.Entry("fzgw0")
        with pytest.raises(OSError, match="File exists"):
            ledger.save()
    with state.locked(tmp_path / "absent", create=False) as ledger:
        assert ledger.entries == {}
    assert not (tmp_path / "absent").exists()
