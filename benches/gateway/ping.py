"""Ping through the tunnel while one TCP stream runs through it: gateways in turn, round by round.

    python benches/gateway/ping.py --harness HARNESS --bin BIN --rounds 3 \\
        wireguard-go='wireguard -f {ifname}' fzgw='benches/gateway/start.sh {ifname}'@benches/gateway/setup.sh

Gateways are given as to the harness's compare.py. For each and each direction of the stream, once a round: p50 and p99
of the round trips from client to server in milliseconds. A lost ping is slower than any other; `answered` leaves those
out. One JSON line for each goes to `--raw`, the medians over the rounds to stdout.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from laboratory import DIRECTIONS, SERVER, Laboratory, LaboratoryError, Spec, main, measuring, options

INTERVAL = 0.005
"""Seconds between two pings: next to nothing beside the stream."""
MARGIN = 15
"""Seconds that the stream is longer than the pings; it is ended when they are done."""

TRIP = re.compile(r"icmp_seq=(\d+) .*time=([\d.]+) ms")


def percentile(trips: Sequence[float], share: float) -> float:
    """The smallest trip that so many of them do not exceed (nearest rank). Ascending, at least one."""
    return trips[max(0, math.ceil(share * len(trips)) - 1)]


def trips(printed: str, sent: int) -> list[float]:
    """Round trips in milliseconds out of what ping printed, ascending; a lost one is infinite."""
    answered = {int(number): float(trip) for number, trip in TRIP.findall(printed)}  # a duplicate counts once
    return sorted(answered.values()) + [math.inf] * (sent - len(answered))


def ping_under(laboratory: Laboratory, direction: str, seconds: float) -> dict[str, float | None]:
    """p50 and p99 under one stream, and what the stream moved meanwhile."""
    sent = round(seconds / INTERVAL)
    with measuring():
        stream = laboratory.stream(direction, seconds + MARGIN)
        bytes_before, before = laboratory.tunnel_bytes(), time.monotonic()
        command = ("ping", "-n", "-i", str(INTERVAL), "-c", str(sent), "-W", "1", SERVER)
        printed = laboratory.run("c", *command, timeout=seconds * 4 + MARGIN)
        moved, took = laboratory.tunnel_bytes() - bytes_before, time.monotonic() - before
        if stream.poll() is not None:
            raise LaboratoryError(f"the stream {direction} ended before the pings did")
        laboratory.end(stream)
    found = trips(printed, sent)
    answered = [trip for trip in found if math.isfinite(trip)]
    if not answered:
        raise LaboratoryError(f"no ping was answered under a stream {direction}")
    p50, p99 = percentile(found, 0.50), percentile(found, 0.99)
    return {
        "p50_ms": p50 if math.isfinite(p50) else None,
        "p99_ms": p99 if math.isfinite(p99) else None,
        "p99_answered_ms": percentile(answered, 0.99),
        "lost_percent": round(100 * (1 - len(answered) / sent), 2),
        "gbps": round(moved * 8 / took / 1e9, 3),
    }


def run(arguments: Sequence[str] | None) -> int:
    """The program; 1 where a gateway could not be measured in a round."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--secs", type=float, default=8, help="seconds of pings for each direction")
    parser.add_argument("--raw", type=Path, help="append every row to this file, as it comes")
    parser.add_argument("gateways", nargs="+", type=Spec.parse, metavar="NAME=COMMAND[@SETUP_SCRIPT]")
    given = parser.parse_args(arguments)

    rows: dict[tuple[str, str], list[dict[str, float | None]]] = {}
    failed = False
    for number in range(1, given.rounds + 1):
        for spec in given.gateways:
            try:
                with (
                    tempfile.TemporaryDirectory(prefix="fzgw-ping-") as folder,
                    Laboratory(given.harness, given.bin, Path(folder)) as laboratory,
                ):
                    laboratory.start_gateway(spec)
                    laboratory.connect()
                    for direction in DIRECTIONS:
                        row = ping_under(laboratory, direction, given.secs)
                        rows.setdefault((direction, spec.name), []).append(row)
                        told = {"name": spec.name, "test": f"ping_{direction}", "round": number, **row}
                        if given.raw:
                            with given.raw.open("a") as raw:
                                raw.write(json.dumps(told) + "\n")
            except LaboratoryError as error:
                failed = True
                print(f"round {number}, {spec.name}: {error}", file=sys.stderr)
        print(f"round {number} of {given.rounds} done", file=sys.stderr)

    print(f"{'stream':8} {'gateway':16} {'p50 ms':>8} {'p99 ms':>8} {'answered':>8} {'lost %':>8} {'Gbit/s':>8}")
    for (direction, name), found in sorted(rows.items()):
        keys = ("p50_ms", "p99_ms", "p99_answered_ms", "lost_percent", "gbps")
        print(f"{direction:8} {name:16} " + " ".join(f"{_median(found, key):8.2f}" for key in keys))
    return int(failed)


def _median(rows: Sequence[dict[str, float | None]], key: str) -> float:
    return statistics.median(math.inf if (value := row[key]) is None else value for row in rows)


if __name__ == "__main__":
    main(run)
