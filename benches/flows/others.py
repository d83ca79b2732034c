"""Compares fzgw's flows with what tshark and argus count, conversation by conversation, exactly.

    python benches/flows/others.py [--verbose] CAPTURE…

A conversation is an IP protocol, two addresses and two ports. For each and each direction, packets and bytes of all of
fzgw's close records are held against

- `tshark`: the fields of tshark, packet by packet: IP bytes (`ip.len`, `ipv6.plen` + 40), any protocol;
- `conv,…`: its tables (`-z conv,tcp`, `udp`, `ip`, `ipv6`). They count frames with their link headers, and round bytes
  from 10,000 on. fzgw's bytes are compared after adding the link headers and padding of the same packets, as exactly
  as the table shows;
- `argus`, merged by racluster: frames with their link headers, exact.

Where a row differs, the difference must be the exact sum of the frames that a rule (`flow-rules.md`, or the other
program's) treats otherwise. Which frames these are comes from a slow parse of the capture (`comparison/slow.py`) and a
model of the rules (`comparison/belonging.py`), which share nothing with fzgw; `ledger` holds how many they are against
fzgw's books, reason by reason. Exit code 1 where a difference is left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from comparison import by_argus, by_tshark
from comparison.belonging import Belonging, conversation
from comparison.counts import Comparison, NotReadError, Totals, compare, nothing
from comparison.slow import QUERY, CutError, Frame, frames

import fzgw

ECHO_REQUESTS = ((8, 0), (128, 0))
SHOWN = 5
"""Differences of a table that are shown without --verbose."""


def flows(capture: Path) -> Totals:
    """The sums of all of fzgw's close records, by conversation. A damaged file: of what came before."""
    totals: Totals = defaultdict(nothing)
    try:
        for flow in fzgw.read(capture):
            src, dst = (flow.src_ip, flow.src_port), (flow.dst_ip, flow.dst_port)
            if flow.icmp and flow.icmp not in ECHO_REQUESTS:
                src, dst = (flow.src_ip, QUERY | flow.icmp[0] << 8 | flow.icmp[1]), (flow.dst_ip, 0)
            key, turned = conversation(flow.protocol, src, dst)
            totals[key][turned].add(flow.packets_out, flow.bytes_out)
            totals[key][not turned and src != dst].add(flow.packets_in, flow.bytes_in)
    except fzgw.CaptureError as error:
        print(error, file=sys.stderr)
    return totals


def ledger(capture: Path) -> Counter[str]:
    """Frames by what became of them, out of the books of `fzgw replay`.

    Raises NotReadError where the books are not balanced or there are none.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.json"
        command = [sys.executable, "-m", "fzgw", "replay", "--output", os.devnull, "--ledger", str(path), str(capture)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not path.exists():
            raise NotReadError(done.stderr.strip())
        books = json.loads(path.read_text(encoding="utf-8"))
    if not books["balanced"]:
        raise NotReadError("fzgw's ledger is not balanced")
    found: Counter[str] = Counter()
    for reason, number in books["packets"]["not_ip"].items():
        found["malformed link header" if reason == "malformed" else reason] += number
    for side in ("from_peer", "to_peer"):
        found.update(books["packets"][side]["dropped"])
        found["flow"] += books["flows"][side]["ended"][0]
        found["icmp_error"] += books["flows"][side]["icmp_errors"][0]
        for reason, (number, _) in books["flows"][side]["untracked"].items():
            found["untracked icmp_error" if reason == "icmp_error" else reason] += number
    return +found


class Capture:
    """One capture and its comparisons."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames: list[Frame] = []
        self.comparisons: list[Comparison] = []
        self.notes: list[str] = []
        try:
            # One by one: what came before a fault is compared.
            for frame in frames(path):
                self.frames.append(frame)
        except CutError as cut:
            self.notes.append(f"the file ends early: {cut}")
        self.fates = Belonging().all(self.frames)

    def run(self) -> None:
        """Compares it with everybody. Raises NotReadError where fzgw or tshark cannot read it."""
        self._compare_ledger()
        ours = flows(self.path)
        seen, tables = by_tshark.read(self.path)
        self.comparisons.append(compare(by_tshark.by_packet(seen, self.fates), ours, self.fates))
        for name, totals in tables.items():
            table = by_tshark.by_table(name, totals, seen, self.frames, self.fates)
            self.comparisons.append(compare(table, ours, self.fates))
        if any(fate.reason == "unknown_link" for fate in self.fates):
            self.notes.append("argus: not asked, a link type that fzgw does not know")
            return
        try:
            totals = by_argus.read(self.path)
        except NotReadError as failed:
            self.notes.append(f"argus: {failed}")
            return
        self.comparisons.append(compare(by_argus.table(totals, seen, self.frames, self.fates), ours, self.fates))

    def _compare_ledger(self) -> None:
        found, expected = ledger(self.path), Counter(fate.reason for fate in self.fates)
        result = Comparison("ledger")
        for reason in sorted(found.keys() | expected.keys()):
            result.compared += 1
            result.equal += found[reason] == expected[reason]
            if found[reason] != expected[reason]:
                result.unexplained.append(f"{reason}: fzgw {found[reason]}, expected {expected[reason]}")
        self.comparisons.append(result)

    def unexplained(self) -> int:
        """How many rows differ without a rule that says why."""
        return sum(len(result.unexplained) for result in self.comparisons)

    def report(self, verbose: bool) -> Iterator[str]:
        """What was compared, and what differs."""
        reasons = sorted(Counter(fate.reason for fate in self.fates if fate.reason != "flow").items())
        yield f"{self.path}: {len(self.frames)} frames" + "".join(f", {number} {reason}" for reason, number in reasons)
        for result in self.comparisons:
            yield (
                f"  {result.name:9} {result.compared:6} compared {result.equal:6} equal {result.explained:5} explained"
                f" {len(result.unexplained):5} unexplained"
                + "".join(f", {rule} ({number})" for rule, number in sorted(result.rules.items()))
            )
            for line in result.unexplained[: None if verbose else SHOWN]:
                yield f"    {line}"
        for note in self.notes:
            yield f"  {note}"


def main() -> int:
    """Compares each capture."""
    parser = argparse.ArgumentParser(description="Compares fzgw's flows with what tshark and argus count.")
    parser.add_argument("captures", nargs="+", type=Path, metavar="CAPTURE")
    parser.add_argument("-v", "--verbose", action="store_true", help="every difference, not the first few")
    options = parser.parse_args()
    unexplained = failed = 0
    for path in options.captures:
        capture = Capture(path)
        try:
            capture.run()
        except NotReadError as error:
            failed += 1
            print(f"{path}: {error}", file=sys.stderr, flush=True)
            continue
        unexplained += capture.unexplained()
        print("\n".join(capture.report(options.verbose)), flush=True)
    print(f"{len(options.captures) - failed} captures compared, {failed} not readable, {unexplained} rows unexplained")
    return 1 if unexplained or failed else 0


if __name__ == "__main__":
    sys.exit(main())
