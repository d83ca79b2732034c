"""Reads the host's own firewall: would it drop what the tunnel forwards?

The walk: `nft -j list ruleset` is taken apart into tables; a `Sample`, one packet as the tunnel sends it or one as it
comes back, walks through each base chain of the forward hook; a chain in which it is dropped is a `Blockade`, with
the command that opens it. Every chain counts on its own, because a drop in one ends the packet whatever others say.

A rule matches, does not match, or cannot be read (rules of iptables keep their extensions to themselves: nft calls
them `xt` and a name). A rule that cannot be read is passed over, and a drop behind one that might have accepted is
reported as possible, not as certain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final

Json = dict[str, Any]
Facts = list[str | int]
"""Every way in which nft may write one value."""

_JUMPS: Final = 16
"""Chains deep that a packet may go: the kernel's own limit (NFT_JUMP_STACK_SIZE)."""

# Statements that say nothing about the packet's fate.
_NO_VERDICT: Final = frozenset({"counter", "log", "mangle", "notrack", "meter", "flow", "comment", "ct helper", "set"})
_IP_HEADER: Final = {4: "ip", 6: "ip6"}
_OTHER_HEADERS: Final = frozenset({"udp", "udplite", "icmp", "icmpv6", "igmp", "sctp", "dccp", "esp", "ah", "comp"})
_ASKING_PORT: Final = 50_000
_ANSWERING_PORT: Final = 443
_XT_ALWAYS: Final = frozenset({"comment"})
_XT_STATE: Final = frozenset({"conntrack", "state"})


@dataclass(frozen=True)
class Sample:
    """One forwarded packet: a TCP segment from `source` to `destination`. An interface of None is not known."""

    from_tunnel: bool
    source: str
    destination: str
    input: str | None
    output: str | None

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_address(self.source).version

    @property
    def state(self) -> str:
        """Its connection tracking state: the tunnel asks, the world answers."""
        return "new" if self.from_tunnel else "established"


@dataclass(frozen=True)
class Blockade:
    """A chain of the forward hook that drops tunnel traffic (`certain`), or may."""

    family: str
    table: str
    chain: str
    certain: bool
    why: str
    fix: str


def blockades(listing: Json, samples: list[Sample], interface: str) -> list[Blockade]:
    """The chains in `listing` (the output of `nft -j list ruleset`) that drop one of `samples`; one for each chain."""
    tables = _tables(listing)
    found: dict[tuple[str, str, str], Blockade] = {}
    for table in tables:
        for name, chain in table.chains.items():
            if chain.get("hook") != "forward":
                continue
            for sample in samples:
                if table.family not in {"inet", _IP_HEADER[sample.version]}:
                    continue
                fate = _Walk(table, sample).base_chain(name)
                key = (table.family, table.name, name)
                if fate is not None and (key not in found or (fate.certain and not found[key].certain)):
                    found[key] = Blockade(*key, fate.certain, fate.why, _fix(table, name, interface))
    return list(found.values())


@dataclass
class _Table:
    family: str
    name: str
    chains: dict[str, Json] = field(default_factory=dict)
    rules: dict[str, list[list[Any]]] = field(default_factory=dict)
    sets: dict[str, list[Any]] = field(default_factory=dict)


def _tables(listing: Json) -> list[_Table]:
    tables: dict[tuple[str, str], _Table] = {}
    for item in listing.get("nftables", ()):
        ((kind, value),) = item.items()
        if kind == "table":
            if "dormant" not in value.get("flags", ()):
                tables[value["family"], value["name"]] = _Table(value["family"], value["name"])
            continue
        table = tables.get((value.get("family", ""), value.get("table", "")))
        if table is None:
            continue
        if kind == "chain":
            table.chains[value["name"]] = value
        elif kind == "rule":
            table.rules.setdefault(value["chain"], []).append(value["expr"])
        elif kind in {"set", "map"}:
            table.sets[value["name"]] = value.get("elem", [])
    return list(tables.values())


@dataclass(frozen=True)
class _Drop:
    certain: bool
    why: str


# What becomes of a packet at the end of a rule or a chain, beside a `_Drop`.
_ACCEPTED: Final = "accepted"
_RETURNED: Final = "returned"
_ON: Final = None
_Fate = _Drop | str | None


class _Walk:
    """One sample on its way through one base chain."""

    def __init__(self, table: _Table, sample: Sample) -> None:
        self._table = table
        self._sample = sample
        self._maybe_accepted = False
        """A rule that cannot be read, and might have accepted, was passed over."""

    def base_chain(self, name: str) -> _Drop | None:
        fate = self._chain(name, depth=0)
        if isinstance(fate, _Drop):
            return fate
        if fate != _ACCEPTED and self._table.chains[name].get("policy") == "drop":
            return self._drop("its policy is drop")
        return None

    def _chain(self, name: str, depth: int) -> _Fate:
        if depth > _JUMPS:
            return _RETURNED
        for expressions in self._table.rules.get(name, ()):
            fate = self._rule(name, expressions, depth)
            if fate is not _ON:
                return fate
        return _RETURNED

    def _rule(self, chain: str, expressions: list[Any], depth: int) -> _Fate:
        matches: bool | None = True
        opaque = set()
        about_tunnel = False
        for expression in expressions:
            ((kind, value),) = expression.items()
            if kind == "match":
                match = self._match(value)
                about_tunnel = about_tunnel or (match is True and _names_tunnel(value))
            elif kind == "xt" and value.get("type") == "match":
                opaque.add(value["name"])
                match = True if value["name"] in _XT_ALWAYS else None
            elif kind == "xt":
                verdict = "drop" if value["name"] in {"REJECT", "DROP"} else "continue"
                return self._verdict({verdict: None}, chain, depth, self._state(matches, opaque, about_tunnel, verdict))
            elif kind == "vmap":
                return self._vmap(value, chain, depth, matches)
            elif kind in {"accept", "drop", "reject", "jump", "goto", "return", "continue", "queue"}:
                return self._verdict(expression, chain, depth, self._state(matches, opaque, about_tunnel, kind))
            else:
                match = True if kind in _NO_VERDICT else None
            if match is False:
                return _ON
            matches = None if match is None else matches
        return _ON

    def _state(self, matches: bool | None, opaque: set[str], about_tunnel: bool, verdict: str) -> bool | None:
        """A guess at iptables' unreadable state matches by how they are used: accepting is for ESTABLISHED unless the
        rule names the tunnel, dropping for INVALID."""
        if matches is not None or opaque - _XT_ALWAYS - _XT_STATE or not opaque & _XT_STATE:
            return matches
        if verdict == "accept":
            return True if self._sample.state == "established" else (None if about_tunnel else False)
        return False if verdict in {"drop", "reject"} else None

    def _verdict(self, statement: Json, chain: str, depth: int, matches: bool | None) -> _Fate:
        if matches is False:
            return _ON
        ((kind, value),) = statement.items()
        if kind in {"jump", "goto"}:
            fate = self._chain(value["target"], depth + 1)
            if kind == "jump" and fate == _RETURNED:
                return _ON
        else:
            fates: dict[str, _Fate] = {
                "accept": _ACCEPTED,
                "queue": _ACCEPTED,
                "return": _RETURNED,
                "drop": self._drop(f"a rule in {chain} drops them"),
                "reject": self._drop(f"a rule in {chain} rejects them"),
            }
            fate = fates.get(kind, _ON)
        if matches is None:
            # Whether it applies is not known: it counts for nothing but a doubt.
            self._maybe_accepted = self._maybe_accepted or fate in {_ACCEPTED, _RETURNED}
            return _ON
        return fate

    def _vmap(self, value: Json, chain: str, depth: int, matches: bool | None) -> _Fate:
        facts = self._facts(value["key"])
        data = value["data"]
        elements = self._elements(data) if isinstance(data, str) else data.get("set", [])
        for key, statement in elements or ():
            match = None if facts is None else self._equal(facts, key)
            if match is not False and "continue" not in statement:
                fate = self._verdict(statement, chain, depth, matches if match else None)
                if match:
                    return fate
        return _ON

    def _drop(self, why: str) -> _Drop:
        return _Drop(not self._maybe_accepted, why)

    def _match(self, value: Json) -> bool | None:
        facts = self._facts(value["left"])
        if facts is None or value["op"] not in {"==", "in", "!="}:
            return None
        if not facts:
            return False  # a header that the sample has not: neither == nor != holds
        equal = self._equal(facts, value["right"])
        return not equal if value["op"] == "!=" and equal is not None else equal

    def _facts(self, left: Any) -> Facts | None:
        """The sample's values of a field: none if it has no such field, None if they are not known."""
        if not isinstance(left, dict) or len(left) != 1:
            return None
        ((kind, value),) = left.items()
        if kind == "meta":
            return self._meta(value.get("key"))
        if kind == "ct":
            return [self._sample.state] if value.get("key") == "state" else None
        if kind == "fib":
            return ["unicast"] if value.get("result") == "type" and value.get("flags") == ["daddr"] else None
        if kind == "payload":
            return self._header(value.get("protocol"), value.get("field"))
        return None

    def _meta(self, key: str) -> Facts | None:
        sample = self._sample
        if key in {"iifname", "iif"}:
            return None if sample.input is None else [sample.input]
        if key in {"oifname", "oif"}:
            return None if sample.output is None else [sample.output]
        facts: dict[str, Facts] = {
            "nfproto": [f"ipv{sample.version}"],
            "protocol": [_IP_HEADER[sample.version]],
            "l4proto": ["tcp", 6],
        }
        return facts.get(key)

    def _header(self, header: str, name: str) -> Facts | None:
        sample = self._sample
        if header in _IP_HEADER.values():
            if header != _IP_HEADER[sample.version]:
                return []
            addresses: dict[str, Facts] = {
                "saddr": [sample.source],
                "daddr": [sample.destination],
                "protocol": ["tcp", 6],
                "nexthdr": ["tcp", 6],
            }
            return addresses.get(name)
        if header in {"tcp", "th"}:
            ports = (_ASKING_PORT, _ANSWERING_PORT) if sample.from_tunnel else (_ANSWERING_PORT, _ASKING_PORT)
            facts: dict[str, Facts] = {"sport": [ports[0]], "dport": [ports[1]]}
            return facts.get(name)
        return [] if header in _OTHER_HEADERS else None

    def _equal(self, facts: Facts, right: Any) -> bool | None:
        if isinstance(right, str) and right.startswith("@"):
            elements = self._elements(right)
            return None if elements is None else self._any(facts, elements)
        if isinstance(right, list):
            return self._any(facts, right)
        if isinstance(right, dict):
            if "set" in right:
                return self._any(facts, right["set"])
            if "elem" in right:
                return self._equal(facts, right["elem"].get("val"))
            if "prefix" in right:
                prefix = right["prefix"]
                return _in_network(facts, f"{prefix['addr']}/{prefix['len']}")
            if "range" in right:
                return _in_range(facts, *right["range"])
            return None
        if isinstance(right, str) and right.endswith("*"):
            return any(str(fact).startswith(right[:-1]) for fact in facts)
        return right in facts

    def _any(self, facts: Facts, elements: list[Any]) -> bool | None:
        answers = [self._equal(facts, element) for element in elements]
        if True in answers:
            return True
        return None if None in answers else False

    def _elements(self, reference: str) -> list[Any] | None:
        return self._table.sets.get(reference.removeprefix("@"))


def _names_tunnel(match: Json) -> bool:
    left = match["left"] if isinstance(match["left"], dict) else {}
    key = left.get("meta", {}).get("key") or left.get("payload", {}).get("field")
    return match["op"] == "==" and key in {"iifname", "iif", "saddr"}


def _in_network(facts: Facts, network: str) -> bool | None:
    try:
        return any(ip_address(fact) in ip_network(network, strict=False) for fact in facts)
    except ValueError:
        return None


def _in_range(facts: Facts, low: Any, high: Any) -> bool | None:
    try:
        if isinstance(low, int):
            return any(low <= fact <= high for fact in facts if isinstance(fact, int))
        first, last = ip_address(low), ip_address(high)
        return any(first.packed <= ip_address(fact).packed <= last.packed for fact in facts)
    except ValueError:
        return None


def _fix(table: _Table, chain: str, interface: str) -> str:
    """The commands that let the tunnel through, in the words of whoever made the chain."""
    reached = set(_reached(table, chain))
    if any(name.startswith(("ufw-", "ufw6-")) for name in reached):
        return f"ufw route allow in on {interface}"
    if table.name == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-interface={interface} && firewall-cmd --reload"
    if table.name == "filter" and chain == "FORWARD":
        command = "iptables" if table.family == "ip" else "ip6tables"
        into = "DOCKER-USER" if "DOCKER-USER" in reached else "FORWARD"
        replies = "-m conntrack --ctstate ESTABLISHED,RELATED"
        return f"{command} -I {into} -i {interface} -j ACCEPT && {command} -I {into} -o {interface} {replies} -j ACCEPT"
    rule = f"nft insert rule {table.family} {table.name} {chain}"
    return (
        f"{rule} iifname '\"{interface}\"' accept && "
        f"{rule} oifname '\"{interface}\"' ct state established,related accept"
    )


def _reached(table: _Table, chain: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """The chains that packets can get to from `chain`, itself included."""
    yield chain
    for expressions in table.rules.get(chain, ()):
        for expression in expressions:
            for kind in ("jump", "goto"):
                target = expression.get(kind, {}).get("target") if isinstance(expression.get(kind), dict) else None
                if target and target not in seen and target != chain:
                    yield from _reached(table, target, seen | {chain, target})
