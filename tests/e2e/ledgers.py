"""The gateway's own books, and the equalities that must hold in them (L1 to L4)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .records import Tally

if TYPE_CHECKING:
    from .records import Records

SIDES = ("from_peer", "to_peer")


class Books:
    """One set of statistics: what `--stats-file` holds."""

    def __init__(self, stats: dict[str, Any]) -> None:
        self.stats = stats

    def packets(self, side: str, what: str) -> Tally:
        """`received`, `forwarded` or `waiting` of one direction."""
        return Tally(self.stats["packets"][side][what], self.stats["bytes"][side][what])

    def dropped(self, side: str, *reasons: str) -> Tally:
        """Drops of one direction, for these reasons or for all."""
        packets, sizes = self.stats["packets"][side]["dropped"], self.stats["bytes"][side]["dropped"]
        tally = Tally()
        for reason, count in packets.items():
            if not reasons or reason in reasons:
                tally += Tally(count, sizes[reason])
        return tally

    def drop_reasons(self, side: str) -> dict[str, int]:
        """The reasons for which packets of one direction were dropped, with how many."""
        return {reason: n for reason, n in self.stats["packets"][side]["dropped"].items() if n}

    def flows(self, side: str, what: str) -> Tally:
        """`forwarded`, `ended`, `live`, `icmp_errors` or `pending_fragments` of the flow engine; 0 of what it lacks."""
        return Tally(*self.stats["flows"][side].get(what, (0, 0)))

    def untracked(self, side: str, *reasons: str) -> Tally:
        """What was forwarded and belongs to no flow, for these reasons or for all."""
        tally = Tally()
        for reason, counts in self.stats["flows"][side]["untracked"].items():
            if not reasons or reason in reasons:
                tally += Tally(*counts)
        return tally

    @property
    def originated(self) -> dict[str, int]:
        """Packets that the gateway made itself, by reason."""
        return {reason: n for reason, n in self.stats["originated"].items() if n}


def check_balanced(books: Books) -> None:
    """L1, L2 and L2b, at any quiet moment."""
    for side in SIDES:
        received = books.packets(side, "received")
        explained = books.packets(side, "forwarded") + books.packets(side, "waiting") + books.dropped(side)
        assert received == explained, f"L1 {side}: {received} received, {explained} explained\n{books.stats}"

        forwarded = books.flows(side, "forwarded")
        explained = books.untracked(side)
        for what in ("ended", "live", "icmp_errors", "pending_fragments"):
            explained += books.flows(side, what)
        assert forwarded == explained, f"L2 {side}: {forwarded} forwarded, {explained} explained\n{books.stats}"
        assert forwarded == books.packets(side, "forwarded"), f"L1 and L2 differ, {side}\n{books.stats}"

    denied = sum(books.dropped(side, "denied").packets for side in SIDES)
    assert denied == books.stats["denied"]["dropped"] == books.stats["denied"]["attempts"], f"L2b\n{books.stats}"
    assert books.stats["balanced"] is True, books.stats


def check_final(books: Books, records: Records) -> None:
    """The ledgers after the end: balanced, nothing live or waiting, and the same sums in the records."""
    check_balanced(books)
    for side in SIDES:
        assert books.packets(side, "waiting") == Tally(), f"{side}: packets still wait\n{books.stats}"
        assert books.flows(side, "live") == Tally(), f"R27 {side}: flows still live\n{books.stats}"

    made, handed, lost = (books.stats["records"][key] for key in ("made", "handed", "lost"))
    assert (made, lost) == (handed, 0), f"L3\n{books.stats}"
    assert len(records.flows) == handed, f"L3: {handed} records handed over, {len(records.flows)} lines written"

    check_deltas(records)
    for side in SIDES:
        ended = books.flows(side, "ended")
        assert records.total(side) == ended, f"{side}: the records say {records.total(side)}, the ledger {ended}"
    attempts = sum(flow.attempts for flow in records.closed)
    assert attempts == books.stats["denied"]["attempts"], f"L2b: the records say {attempts}\n{books.stats}"


def check_deltas(records: Records) -> None:
    """R19: per flow, numbers from 1 without a hole, one close at the end, and deltas that add up to the last total."""
    numbers: Counter[str] = Counter()
    totals: dict[str, dict[str, Tally]] = {}
    closed: set[str] = set()
    for flow in records.flows:
        assert flow.uid not in closed, f"R8: a record after the close of {flow.uid}"
        numbers[flow.uid] += 1
        assert flow.number == numbers[flow.uid], f"{flow}: number {flow.number}"
        before = totals.get(flow.uid, dict.fromkeys(SIDES, Tally()))
        delta = flow.by_side("traffic")
        totals[flow.uid] = {side: before[side] + delta[side] for side in SIDES}
        assert totals[flow.uid] == flow.by_side(), f"R19: {flow}"
        if flow.activity == "close":
            closed.add(flow.uid)
    assert closed == set(numbers), f"R27: never closed: {set(numbers) - closed}"
