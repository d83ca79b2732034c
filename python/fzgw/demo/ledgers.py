"""The books of the gateway (ledgers L1 to L3 of the flow rules) as equations that a person can check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fzgw.demo.errors import DemoError
from fzgw.demo.records import FlowRow

_SIDES: Final = {"from_peer": "from peers", "to_peer": "to peers"}


@dataclass(frozen=True)
class Equation:
    """`total = Σ parts`, every number in `unit` (packets, bytes or records)."""

    name: str
    unit: str
    total: tuple[str, int]
    parts: tuple[tuple[str, int], ...]

    @property
    def balanced(self) -> bool:
        """Whether both sides are equal, exactly."""
        return self.total[1] == sum(count for _, count in self.parts)

    @property
    def text(self) -> str:
        """Both sides with their numbers; parts of 0 are left out."""
        parts = " + ".join(f"{count:,} {name}" for name, count in self.parts if count) or "0"
        return f"{self.total[1]:,} {self.total[0]} = {parts}"

    def __str__(self) -> str:
        return f"{self.name}, {self.unit}: {self.text} ({'balanced' if self.balanced else 'NOT BALANCED'})"


def equations(stats: Mapping[str, Any], rows: Sequence[FlowRow]) -> list[Equation]:
    """The ledgers, out of what `fzgw run --stats-file` wrote and of `rows`, all records of the same run.

    L2 and L2b take what is in ended flows from the close records themselves, which so are part of the proof. In the
    demo every initiator is a peer. `DemoError` when the counters are not those of a gateway.
    """
    closed = [row for row in rows if row.activity == "close"]
    try:
        return [
            *(_packets(stats, side) for side in _SIDES),
            *(_flows(stats, closed, side, unit) for side in _SIDES for unit in ("packets", "bytes")),
            _denied(stats, closed),
            *_records(stats),
        ]
    except KeyError as error:
        raise DemoError(f"the gateway's counters lack {error}") from error


def _packets(stats: Mapping[str, Any], side: str) -> Equation:
    """L1."""
    counts = stats["packets"][side]
    parts = [
        ("forwarded", counts["forwarded"]),
        ("waiting", counts["waiting"]),
        *((f"dropped ({reason})", count) for reason, count in counts["dropped"].items()),
    ]
    return Equation(f"L1 {_SIDES[side]}", "packets", ("received", counts["received"]), tuple(parts))


def _flows(stats: Mapping[str, Any], closed: Sequence[FlowRow], side: str, unit: str) -> Equation:
    """L2."""
    column = ("packets", "bytes").index(unit)
    way = "out" if side == "from_peer" else "in"
    counts = stats["flows"][side]
    parts = [
        ("in close records", sum(getattr(row, f"{unit}_{way}") for row in closed)),
        ("in live flows", counts["live"][column]),
        ("ICMP errors", counts["icmp_errors"][column]),
        ("fragments that wait", counts["pending_fragments"][column]),
        *((f"untracked ({reason})", tally[column]) for reason, tally in counts["untracked"].items()),
    ]
    return Equation(f"L2 {_SIDES[side]}", unit, ("forwarded", stats[unit][side]["forwarded"]), tuple(parts))


def _denied(stats: Mapping[str, Any], closed: Sequence[FlowRow]) -> Equation:
    """L2b."""
    dropped = sum(stats["packets"][side]["dropped"].get("denied", 0) for side in _SIDES)
    attempts = sum(row.attempts for row in closed)
    return Equation("L2b", "packets", ("denied", dropped), (("attempts in close records", attempts),))


def _records(stats: Mapping[str, Any]) -> list[Equation]:
    """L3."""
    records = stats["records"]
    made = Equation(
        "L3", "records", ("made", records["made"]), (("handed to Python", records["handed"]), ("lost", records["lost"]))
    )
    sinks = [
        Equation(
            f"L3 {name}",
            "records",
            ("rendered", sink["rendered"]),
            tuple((what, sink[what]) for what in ("delivered", "waiting", "refused")),
        )
        for name, sink in stats["sinks"].items()
    ]
    return [made, *sinks]
