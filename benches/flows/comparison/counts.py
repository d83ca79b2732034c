"""Counts of conversations, and what explains that two programs' counts differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from comparison.belonging import Fate, Key, conversation

RULES = {
    "stray": "R6 stray segment",
    "icmp_error": "R13 ICMP error of a flow",
    "untracked icmp_error": "R13 ICMP error of no flow",
    "redirect": "R13 redirect",
    "fragment": "R15 fragment of no flow",
    "malformed": "scenario 40, malformed",
    "cut": "headers cut by the snaplen",
    "not_ip": "link protocol other than IP",
    "unknown_link": "unknown link type",
    "malformed link header": "malformed link header",
}
"""Why fzgw does not count a frame in a flow, by the ledgers' word."""
LATER = "R15 later fragment"
LENGTH_0 = "scenario 40, IP length 0"


class NotReadError(Exception):
    """A program did not read the capture. `str()` says why."""


@dataclass(slots=True)
class Counts:
    """Packets, and bytes as far as they are known: from `low` to `high`."""

    packets: int = 0
    low: int = 0
    high: int = 0

    def add(self, packets: int, low: int, high: int | None = None) -> None:
        """Adds so many; without `high` the bytes are exact."""
        self.packets += packets
        self.low += low
        self.high += low if high is None else high

    def admits(self, other: Counts) -> bool:
        """Whether the other's exact counts may be these."""
        return self.packets == other.packets and self.low <= other.low <= self.high

    def __str__(self) -> str:
        return f"{self.packets}/{self.low}" + (f"–{self.high}" if self.low != self.high else "")


Both = tuple[Counts, Counts]
"""What the first and what the second endpoint of a key sent."""
Totals = dict[Key, Both]
Project = Callable[[Key], Key | None]
"""From a conversation to the row of a table that it is counted in."""


def nothing() -> Both:
    """No packets either way."""
    return Counts(), Counts()


@dataclass(frozen=True, slots=True)
class Part:
    """What one frame adds to a table: a packet in this row and direction, with so many bytes."""

    key: Key
    second: bool
    bytes: int


@dataclass(slots=True)
class View:
    """How another program counts one frame in a table of its own."""

    parts: list[tuple[Part, str | None]] = field(default_factory=list)
    """Each with the rule that explains it where fzgw counts nothing like it; None: what fzgw does with the frame."""
    without: str | None = None
    """Why it does not count what fzgw counts of the frame."""


@dataclass(slots=True)
class Comparison:
    """One table of another program against fzgw's flows."""

    name: str
    compared: int = 0
    equal: int = 0
    explained: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    """How many rows each rule has a part in explaining."""
    unexplained: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of another program.

    `views` says how it counts each frame; `extra` is how many bytes it counts of a frame beside the packet.
    """

    name: str
    totals: Totals
    project: Project
    views: Callable[[int], View]
    extra: Callable[[int], int]


def row(key: Key, second: bool, project: Project) -> tuple[Key, bool] | None:
    """The row of a conversation in a table, and the direction in it; None: it is not in the table."""
    found = project(key)
    if found is None:
        return None
    ordered, turned = conversation(*found)
    # Between an endpoint and itself there is one direction.
    return ordered, second != turned and found[1] != found[2]


def compare(table: Table, flows: Totals, fates: list[Fate]) -> Comparison:
    """Holds a table against the totals of fzgw's flows. `fates` say which frame the model counts in which flow."""
    result = Comparison(table.name)
    own = projected(flows, table.project)
    adjusted: dict[Key, dict[str | None, Both]] = defaultdict(lambda: defaultdict(nothing))
    for at, fate in enumerate(fates):
        part = None
        if fate.reason == "flow" and fate.key and fate.packet and (place := row(fate.key, fate.second, table.project)):
            extra = table.extra(at)
            own[place[0]][place[1]].add(0, extra)
            part = Part(*place, fate.packet.length + extra)
        view, rule_of_ours = table.views(at), why(fate)
        rule_of_theirs = None
        for theirs, rule in view.parts:
            if theirs == part:
                part = None
                continue
            adjusted[theirs.key][rule or rule_of_ours][theirs.second].add(1, theirs.bytes)
            rule_of_theirs = rule_of_theirs or rule
        if part:
            adjusted[part.key][view.without or rule_of_theirs or rule_of_ours][part.second].add(-1, -part.bytes)
    for key in sorted(table.totals.keys() | own.keys()):
        _judge(result, key, table.totals.get(key) or nothing(), own.get(key) or nothing(), adjusted.get(key) or {})
    return result


def projected(totals: Totals, project: Project) -> Totals:
    """Totals by the rows of a table."""
    rows: Totals = defaultdict(nothing)
    for key, sides in totals.items():
        for second, counts in enumerate(sides):
            if place := row(key, bool(second), project):
                rows[place[0]][place[1]].add(counts.packets, counts.low, counts.high)
    return rows


def why(fate: Fate) -> str | None:
    """The rule by which fzgw counts a frame unlike others; None: it counts it as anybody would."""
    if fate.reason != "flow" or fate.packet is None:
        return RULES[fate.reason]
    if not fate.packet.first:
        return LATER
    return LENGTH_0 if fate.packet.guessed else None


def _judge(result: Comparison, key: Key, theirs: Both, ours: Both, adjusted: dict[str | None, Both]) -> None:
    result.compared += 1
    if _admits(theirs, ours):
        result.equal += 1
        return
    corrected = nothing()
    for counts in (ours, *adjusted.values()):
        for side, more in enumerate(counts):
            corrected[side].add(more.packets, more.low)
    if None not in adjusted and _admits(theirs, corrected):
        result.explained += 1
        result.rules.update(str(rule) for rule in adjusted)
        return
    parts = "; ".join(f"{rule}: {counts[0]} {counts[1]}" for rule, counts in adjusted.items())
    result.unexplained.append(f"{key}: {theirs[0]} {theirs[1]}, fzgw {ours[0]} {ours[1]}; {parts or 'no rule applies'}")


def _admits(theirs: Both, ours: Both) -> bool:
    return all(their.admits(own) for their, own in zip(theirs, ours, strict=True))
