"""The records that the gateway wrote, read back from their OCSF lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ocsf import validate

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


@dataclass(frozen=True)
class Tally:
    """Packets and IP bytes."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.packets + other.packets, self.bytes + other.bytes)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.packets - other.packets, self.bytes - other.bytes)


class FlowLine:
    """One flow record, by the names of the flow rules."""

    def __init__(self, line: dict[str, Any]) -> None:
        self.line = line
        self.unmapped: dict[str, Any] = line["unmapped"]
        self.uid: str = line["connection_info"]["uid"]
        self.activity: str = self.unmapped["activity"]
        self.number: int = self.unmapped["number"]
        self.protocol: int = line["connection_info"].get("protocol_num", 0)
        self.direction: str = line["connection_info"]["direction"].lower()
        self.verdict: str = {"Allowed": "allow", "Denied": "deny"}[line["action"]]
        self.rule: str | None = line.get("firewall_rule", {}).get("name")
        self.end_reason: str | None = line.get("status_code")
        self.attempts: int = self.unmapped.get("attempts", 0)
        self.attempted_bytes: int = self.unmapped.get("attempted_bytes", 0)
        self.source: dict[str, Any] = line.get("src_endpoint", {})
        self.destination: dict[str, Any] = line.get("dst_endpoint", {})

    @property
    def peer(self) -> str:
        """The peer's name."""
        name: str = (self.source if self.direction == "outbound" else self.destination)["name"]
        return name

    @property
    def tuple(self) -> tuple[str | None, int, str | None, int]:
        """Initiator and responder, address and port (0 where there is none)."""
        return (
            self.source.get("ip"),
            self.source.get("port", 0),
            self.destination.get("ip"),
            self.destination.get("port", 0),
        )

    @cached_property
    def out(self) -> Tally:
        """Initiator to responder, since the flow began."""
        return _tally(self.line["cumulative_traffic"], "out")

    @cached_property
    def back(self) -> Tally:
        """Responder to initiator, since the flow began: `in` of the rules."""
        return _tally(self.line["cumulative_traffic"], "in")

    def by_side(self, counts: str = "cumulative_traffic") -> dict[str, Tally]:
        """The counts by the ledgers' directions; of `traffic`, the record's delta, on request."""
        out, back = _tally(self.line[counts], "out"), _tally(self.line[counts], "in")
        if self.direction == "outbound":
            return {"from_peer": out, "to_peer": back}
        return {"from_peer": back, "to_peer": out}

    @property
    def remotes(self) -> list[str]:
        """The peer's endpoints, in order."""
        return [path["remote"] for path in self.unmapped.get("paths", [])]

    def __repr__(self) -> str:
        who = self.line["connection_info"].get("protocol_name", self.protocol)
        return f"<{self.activity} {self.peer} {who} {self.tuple} out {self.out} in {self.back} {self.end_reason}>"


class Records:
    """All lines of one run, each checked against the published schema, their numbers without a hole (L4)."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = [validate(line) for line in lines]
        numbers = [line["metadata"]["sequence"] for line in self.lines]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True, "L4: a hole"
        self.flows = [FlowLine(line) for line in self.lines if line["class_uid"] == 4001]
        self.others = [line for line in self.lines if line["class_uid"] != 4001]

    @classmethod
    def read(cls, path: Path) -> Records:
        """Every line of a file."""
        data = path.read_bytes()
        assert not data or data.endswith(b"\n"), "the last record was cut short"
        return cls(data.splitlines())

    @property
    def closed(self) -> list[FlowLine]:
        """The close records."""
        return [flow for flow in self.flows if flow.activity == "close"]

    def one(self, **wanted: object) -> FlowLine:
        """The single close record whose attributes are these; `source_port` and `port` are those of its tuple."""
        found = self.matching(**wanted)
        assert len(found) == 1, f"{wanted}: {found or self.closed}"
        return found[0]

    def matching(self, **wanted: object) -> list[FlowLine]:
        """The close records whose attributes are these."""
        places = {"source": 0, "source_port": 1, "destination": 2, "port": 3}
        return [
            flow
            for flow in self.closed
            if all(
                (flow.tuple[places[key]] if key in places else getattr(flow, key)) == value
                for key, value in wanted.items()
            )
        ]

    def total(self, side: str, protocols: Iterable[int] | None = None) -> Tally:
        """What the closed flows counted in one direction, of some protocols or of all."""
        wanted = None if protocols is None else set(protocols)
        tally = Tally()
        for flow in self.closed:
            if wanted is None or flow.protocol in wanted:
                tally += flow.by_side()[side]
        return tally


def _tally(traffic: dict[str, int], way: str) -> Tally:
    return Tally(traffic[f"packets_{way}"], traffic[f"bytes_{way}"])
