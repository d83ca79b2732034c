"""fzgw.host.forward on rule sets of iptables, whose extensions `nft -j` shows by name alone.

The rules are those that Docker, ufw and iptables make, as nft lists them (ct and icmp matches of iptables are `xt`).
"""

from __future__ import annotations

from typing import Any

import pytest

from fzgw.host.forward import Blockade, Sample, blockades

SAMPLES = [
    Sample(True, "100.64.0.2", "1.1.1.1", "fzgw0", "eth0"),
    Sample(False, "1.1.1.1", "100.64.0.2", "eth0", "fzgw0"),
]

COUNTER = {"counter": {"packets": 0, "bytes": 0}}
CONNTRACK = {"xt": {"type": "match", "name": "conntrack"}}
ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}
RETURN: dict[str, Any] = {"return": None}
REJECT = {"xt": {"type": "target", "name": "REJECT"}}


def jump(target: str) -> dict[str, Any]:
    """A jump to a chain."""
    return {"jump": {"target": target}}


def meta(key: str, value: str, op: str = "==") -> dict[str, Any]:
    """A match of a packet's metadata."""
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": value}}


def filter_table(policy: str, **chains: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What `nft -j list ruleset` says of iptables' filter table; a name's underscores stand for dashes."""
    items: list[dict[str, Any]] = [{"metainfo": {}}, {"table": {"family": "ip", "name": "filter"}}]
    for name, rules in chains.items():
        chain = {"family": "ip", "table": "filter", "name": name.replace("_", "-")}
        hook = {"type": "filter", "hook": "forward", "prio": 0, "policy": policy} if name == "FORWARD" else {}
        items.append({"chain": {**chain, **hook}})
        for rule in rules:
            where = {"family": "ip", "table": "filter", "chain": chain["name"]}
            items.append({"rule": {**where, "expr": [*rule[:-1], COUNTER, rule[-1]]}})
    return {"nftables": items}


def judged(listing: dict[str, Any]) -> Blockade | None:
    """The one blockade of a rule set, or None."""
    found = blockades(listing, SAMPLES, "fzgw0")
    assert len(found) <= 1
    return found[0] if found else None


def docker(*user_rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Docker's rules with `user_rules` in DOCKER-USER."""
    return filter_table(
        "drop",
        FORWARD=[[jump("DOCKER-USER")], [jump("DOCKER-FORWARD")]],
        DOCKER=[[meta("iifname", "docker0", "!="), meta("oifname", "docker0"), DROP]],
        DOCKER_BRIDGE=[[meta("oifname", "docker0"), jump("DOCKER")]],
        DOCKER_CT=[[meta("oifname", "docker0"), CONNTRACK, ACCEPT]],
        DOCKER_FORWARD=[[jump("DOCKER-CT")], [jump("DOCKER-BRIDGE")], [meta("iifname", "docker0"), ACCEPT]],
        DOCKER_USER=[*user_rules, [RETURN]],
    )


def ufw(*user_rules: list[dict[str, Any]]) -> dict[str, Any]:
    """ufw's rules with `user_rules` in its chain for routed traffic."""
    icmp = {"xt": {"type": "match", "name": "icmp"}}
    limit = {"limit": {"rate": 3, "burst": 10, "per": "minute"}}
    log = {"xt": {"type": "target", "name": "LOG"}}
    return filter_table(
        "drop",
        FORWARD=[[jump("ufw-before-forward")], [jump("ufw-after-logging-forward")], [jump("ufw-reject-forward")]],
        ufw_before_forward=[
            [CONNTRACK, ACCEPT],
            [meta("l4proto", "icmp"), icmp, ACCEPT],
            [jump("ufw-user-forward")],
        ],
        ufw_user_forward=list(user_rules),
        ufw_after_logging_forward=[[limit, log]],
        ufw_reject_forward=[],
    )


def test_docker_drops_the_tunnel() -> None:
    """Docker's policy drops what it does not know; the fix goes into its chain for users."""
    blockade = judged(docker())
    assert blockade is not None
    assert (blockade.family, blockade.table, blockade.chain, blockade.certain) == ("ip", "filter", "FORWARD", True)
    assert blockade.fix == (
        "iptables -I DOCKER-USER -i fzgw0 -j ACCEPT && "
        "iptables -I DOCKER-USER -o fzgw0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    )
    assert judged(docker([meta("oifname", "fzgw0"), CONNTRACK, ACCEPT], [meta("iifname", "fzgw0"), ACCEPT])) is None


def test_ufw_drops_the_tunnel() -> None:
    """ufw denies routed traffic by its policy; its own command allows it."""
    blockade = judged(ufw())
    assert blockade is not None
    assert blockade.certain
    assert blockade.fix == "ufw route allow in on fzgw0"
    assert judged(ufw([meta("iifname", "fzgw0"), ACCEPT])) is None


@pytest.mark.parametrize(
    ("rules", "certain"),
    [
        ([[CONNTRACK, ACCEPT], [meta("iifname", "lan0"), ACCEPT], [REJECT]], True),
        ([[CONNTRACK, ACCEPT], [meta("iifname", "fzgw0"), CONNTRACK, ACCEPT], [DROP]], False),
        ([[{"xt": {"type": "match", "name": "set"}}, ACCEPT], [DROP]], False),
        ([[{"xt": {"type": "match", "name": "comment"}}, DROP]], True),
        ([[CONNTRACK, DROP], [{"xt": {"type": "match", "name": "addrtype"}}, DROP]], None),
        ([[meta("oifname", "fzgw0"), DROP]], True),
    ],
    ids=["router", "state of the tunnel unread", "set unread", "comment", "invalid and local only", "answers dropped"],
)
def test_unreadable_matches_of_iptables(rules: list[list[dict[str, Any]]], certain: bool | None) -> None:
    """State matches are read by how they are used: accepting for established, dropping for invalid packets. Where an
    unreadable rule might let the tunnel through, the drop behind it is uncertain; where one might drop, nothing is
    said."""
    blockade = judged(filter_table("accept", FORWARD=rules))
    assert (blockade.certain if blockade else None) == certain


def test_a_dormant_table_drops_nothing() -> None:
    """A table that is switched off does not count, where nft says that it is."""
    listing = filter_table("drop", FORWARD=[])
    assert judged(listing) is not None
    listing["nftables"][1]["table"]["flags"] = "dormant"
    assert judged(listing) is None


def test_chains_that_call_each_other_end() -> None:
    """A rule set that no kernel would take does not hang the check."""
    loop = filter_table("drop", FORWARD=[[jump("a")]], a=[[jump("b")]], b=[[jump("a")]])
    assert judged(loop) is not None
