"""The figures of `scripts/bench-gateway.sh` as Markdown: goals with what was reached, then everything measured.

    python benches/gateway/report.py --bin BIN FOLDER

FOLDER has what the measurements wrote, a JSON line a row: `gateways.jsonl` and `niclike.jsonl` (compare.py's `--raw`),
`ping.jsonl` and `toggle.jsonl`. Ratios are taken within a round; the median over the rounds is told, and in
brackets the lowest and the highest. Ends with 1 where a figure of a goal is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fzgw

FZGW, PLAIN, WIREGUARD_GO, BORINGTUN = "fzgw", "fzgw-plain", "wireguard-go", "boringtun-cli"
"""The names that the gateways were measured by."""

HEADINGS = {
    WIREGUARD_GO: "wireguard-go",
    BORINGTUN: "boringtun-cli",
    PLAIN: 'fzgw, `tun_offload = "off"`',
    FZGW: "fzgw",
}

FIGURES = (
    ("up", "one TCP stream up", (("gw_s_per_GB", "CPU s/GB"), ("gbps", "Gbit/s"))),
    ("down", "one TCP stream down", (("gw_s_per_GB", "CPU s/GB"), ("gbps", "Gbit/s"))),
    ("churn", "short connections, 32 at once", (("gw_us_per_conn", "CPU µs each"), ("conn_per_s", "a second"))),
    ("udp_up", "UDP up, 200 bytes, 20,000/s", (("gw_us_per_pkt", "CPU µs/packet"),)),
    ("udp_down", "UDP down, 200 bytes, 20,000/s", (("gw_us_per_pkt", "CPU µs/packet"),)),
    ("up4", "four TCP streams up", (("gw_s_per_GB", "CPU s/GB"), ("gbps", "Gbit/s"), ("gw_rss_mb", "resident MB"))),
    ("down4", "four TCP streams down", (("gw_s_per_GB", "CPU s/GB"), ("gbps", "Gbit/s"), ("gw_rss_mb", "resident MB"))),
)
"""Test, what it is, and its figures by compare.py's keys."""

PING_FIGURES = (
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("p99_answered_ms", "p99 ms, answered ones alone"),
    ("lost_percent", "lost %"),
    ("gbps", "Gbit/s of the stream"),
)

TRAFFIC = {"up": "one TCP stream up", "down": "one TCP stream down", "churn": "short connections"}


@dataclass(frozen=True)
class Spread:
    """A median, and what lies around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"

    def exact(self) -> str:
        """With the digits that a bound like 1.02 is held against."""
        median, low, high = (
            "lost" if math.isinf(value) else f"{value:.4g}" for value in (self.median, self.low, self.high)
        )
        return f"{median} ({low}–{high})"


class Rounds:
    """The rows of a file by round, gateway and test. Of a row that was written twice the second counts."""

    def __init__(self, path: Path) -> None:
        self.rows: dict[tuple[int, str, str], dict[str, Any]] = {
            (row["round"], row["name"], row["test"]): row for row in lines(path)
        }

    def value(self, name: str, test: str, key: str) -> float | None:
        """The median over the rounds; infinite where most rounds have none (pings that were lost)."""
        found = [self._read(row, key) for (_, of, what), row in self.rows.items() if (of, what) == (name, test)]
        return statistics.median(found) if found else None

    def ratio(self, key: str, test: str, name: str, base: str) -> Spread | None:
        """One gateway's figure to another's."""
        return self.over(lambda of: divided(of(name, test, key), of(base, test, key)))

    def over(self, figure: Callable[[Callable[[str, str, str], float]], float]) -> Spread | None:
        """A figure worked out in each round that has what it asks for, by gateway, test and key."""
        found = []
        for number_ in sorted({key[0] for key in self.rows}):

            def of(name: str, test: str, key: str, number_: int = number_) -> float:
                return self._read(self.rows[number_, name, test], key)

            with contextlib.suppress(KeyError):  # a gateway that did not start is left out of its round
                found.append(figure(of))
        return Spread(statistics.median(found), min(found), max(found)) if found else None

    @staticmethod
    def _read(row: dict[str, Any], key: str) -> float:
        return math.inf if row[key] is None else float(row[key])


@dataclass(frozen=True)
class Goal:
    """A goal, and how far it was reached."""

    text: str
    must: float
    aim: float
    measured: Spread | None
    at_least: bool = False
    unit: str = ""

    def verdict(self) -> str:
        """In words."""
        if self.measured is None:
            return "not measured"
        value = self.measured.median

        def reached(bound: float) -> bool:
            return value >= bound if self.at_least else value <= bound

        return "aim reached" if reached(self.aim) else "must reached" if reached(self.must) else "**missed**"

    def cells(self) -> list[str]:
        """Its row."""
        sign = "≥" if self.at_least else "≤"
        bounds = [f"{sign} {bound:g}{self.unit}" for bound in (self.must, self.aim)]
        return [self.text, *bounds, "–" if self.measured is None else self.measured.exact(), self.verdict()]


def goals(gateways: Rounds, niclike: Rounds, ping: Rounds, toggles: Sequence[dict[str, Any]]) -> Iterator[Goal]:
    """Every goal of the gateway, as far as it was measured."""

    def mean(rounds: Rounds, key: str, tests: tuple[str, str], base: str) -> Spread | None:
        return rounds.over(
            lambda of: divided(sum(of(FZGW, test, key) for test in tests), sum(of(base, test, key) for test in tests))
        )

    streams = ("up", "down")
    yield Goal(
        "CPU per GB, one stream, mean of up and down, to wireguard-go",
        0.7,
        0.5,
        mean(gateways, "gw_s_per_GB", streams, WIREGUARD_GO),
    )
    yield Goal(
        "the same on an underlay without UDP segmentation",
        0.6,
        0.4,
        mean(niclike, "gw_s_per_GB", streams, WIREGUARD_GO),
    )
    yield Goal(
        "CPU per short connection, to boringtun-cli",
        1.15,
        0.8,
        gateways.ratio("gw_us_per_conn", "churn", FZGW, BORINGTUN),
    )
    yield Goal(
        "CPU per 200-byte UDP packet, mean of up and down, to boringtun-cli",
        1.0,
        0.75,
        mean(gateways, "gw_us_per_pkt", ("udp_up", "udp_down"), BORINGTUN),
    )
    yield Goal(
        "throughput of one stream, the lower of up and down, to wireguard-go",
        1.2,
        1.5,
        gateways.over(
            lambda of: min(divided(of(FZGW, test, "gbps"), of(WIREGUARD_GO, test, "gbps")) for test in streams),
        ),
        at_least=True,
    )
    yield Goal(
        "ping p99 under one stream, the higher of up and down, to wireguard-go",
        1.0,
        0.7,
        ping.over(
            lambda of: max(
                divided(of(FZGW, test, "p99_ms"), of(WIREGUARD_GO, test, "p99_ms")) for test in ("ping_up", "ping_down")
            ),
        ),
    )
    for traffic, text in TRAFFIC.items():
        costs = [row["process"] for row in toggles if row["traffic"] == traffic and not row["rules"]]
        spread = Spread(costs[-1]["median"], *costs[-1]["quartiles"]) if costs else None
        yield Goal(f"flow logs on to off in one process, CPU per GB, {text}", 1.05, 1.02, spread)
    yield Goal(
        "resident memory after four streams, Python included",
        100,
        60,
        gateways.over(lambda of: max(of(FZGW, test, "gw_rss_mb") for test in ("up4", "down4"))),
        unit=" MB",
    )


def figures(rounds: Rounds) -> str:
    """Every figure of compare.py's tests."""
    wanted = [(test, text, key, unit) for test, text, of_test in FIGURES for key, unit in of_test]
    return comparison(rounds, wanted)


def pings(rounds: Rounds) -> str:
    """Every figure of ping.py."""
    wanted = [(f"ping_{test}", TRAFFIC[test], key, unit) for test in ("up", "down") for key, unit in PING_FIGURES]
    return comparison(rounds, wanted)


def comparison(rounds: Rounds, wanted: Sequence[tuple[str, str, str, str]]) -> str:
    """A table of (test, what it is, key, unit): every gateway's figure, and fzgw's ratio to each peer's."""
    rows = [["test", "figure", *HEADINGS.values(), "fzgw to wireguard-go", "fzgw to boringtun-cli"]]
    told = None
    for test, text, key, unit in wanted:
        values = [rounds.value(name, test, key) for name in HEADINGS]
        if all(value is None for value in values):
            continue
        ratios = [
            None if key == "lost_percent" else rounds.ratio(key, test, FZGW, of) for of in (WIREGUARD_GO, BORINGTUN)
        ]
        rows.append(
            [
                "" if text == told else text,
                unit,
                *("–" if value is None else number(value) for value in values),
                *("–" if ratio is None else str(ratio) for ratio in ratios),
            ]
        )
        told = text
    return table(rows)


def switches(rows: Sequence[dict[str, Any]]) -> str:
    """Every figure of toggle.py."""
    cells = [["traffic", "access rules", "CPU of", "on s/GB", "off s/GB", "on to off (quartiles)"]]
    for row in rows:
        for what, text in (("worker", "the thread that moves packets"), ("process", "the whole process")):
            cost = row[what]
            spread = Spread(cost["median"], *cost["quartiles"])
            values = (number(cost["on_s_per_gb"]), number(cost["off_s_per_gb"]))
            cells.append([TRAFFIC[row["traffic"]], "on" if row["rules"] else "off", text, *values, spread.exact()])
    return table(cells)


def conditions(binaries: Path, gateways: Rounds, niclike: Rounds, toggles: Sequence[dict[str, Any]]) -> str:
    """When, on what, and with which versions it was measured."""
    device = next((row["device"] for row in toggles if row["device"]), None)
    rounds = len({key[0] for key in gateways.rows})
    rows = [*gateways.rows.values(), *niclike.rows.values()]
    disturbed = max((row.get("foreign_cpu", 0) / row["wall"] for row in rows), default=0.0)
    kernel = re.match(r"[\d.]*\d", platform.release())
    return (
        f"{datetime.datetime.now().astimezone():%Y-%m-%d}, {os.cpu_count()} cores, "
        f"Linux {kernel[0] if kernel else platform.release()}; "
        f"fzgw {fzgw.__version__}{f' on a TUN device with {device}' if device else ''}, "
        f"wireguard-go {version(binaries / 'wireguard')}, boringtun-cli {version(binaries / 'boringtun-cli')} with one "
        f"thread. {rounds} round{'' if rounds == 1 else 's'}, every gateway once in each; MTU 1420, no NAT, flow logs "
        "on (records to a file), one access rule. CPU is the gateway's own, user and system, softirq work charged to it"
        f" included; a GB is 10⁹ bytes. Other programs on the machine took up to {disturbed:.2f} of a core in a run."
    )


def left_out(name: str, rounds: Rounds) -> Iterator[str]:
    """A sentence for each gateway that failed in a round of a measurement."""
    tests = {key[2] for key in rounds.rows}
    for number_ in range(1, max((key[0] for key in rounds.rows), default=0) + 1):
        for gateway in HEADINGS:
            missing = sorted(test for test in tests if (number_, gateway, test) not in rounds.rows)
            if missing:
                yield f"Left out of {name}, round {number_}: {gateway} ({', '.join(missing)})."


def version(program: Path) -> str:
    """The version that a peer tells of itself."""
    told = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", told)
    return found[0] if found else "of an unknown version"


def divided(figure: float, base: float) -> float:
    """A ratio. Where pings were lost with both, nobody is better, and the figure stays lost."""
    return math.inf if math.isinf(figure) else figure / base


def number(value: float) -> str:
    """With as many digits as mean something."""
    if math.isinf(value):
        return "lost"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first row is the heading."""
    heading, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([heading, "|" + "---|" * len(rows[0]), *rest])


def lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines; nothing where there is none, since that measurement has failed."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="the folder with wireguard and boringtun-cli")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()

    measured = {name: Rounds(given.folder / f"{name}.jsonl") for name in ("gateways", "niclike", "ping")}
    gateways, niclike, ping = measured.values()
    toggles = lines(given.folder / "toggle.jsonl")
    reached = list(goals(gateways, niclike, ping, toggles))
    parts = [
        "## Gateway, compared",
        conditions(given.bin, gateways, niclike, toggles),
        *(text for name, rounds in measured.items() for text in left_out(name, rounds)),
        "The median, and in brackets the lowest and the highest of the rounds' ratios; of flow logs the quartiles.",
        table([["goal", "must", "aim", "measured", ""], *(goal.cells() for goal in reached)]),
        "### Figures",
        figures(gateways),
        "### On an underlay without UDP segmentation",
        figures(niclike),
        "### Ping while one TCP stream runs",
        "200 pings a second from the client to the server. A lost one is slower than any other; “lost” for a p99 "
        "says that more than one in a hundred was.",
        pings(ping),
        "### Flow logs on and off",
        "Switched in one process, window by window, in the order on, off, off, on. Without access rules, off keeps no "
        "flow at all: that is what the goal is held against, with the whole process.",
        switches(toggles),
    ]
    print("\n\n".join(parts))
    missing = [goal.text for goal in reached if goal.measured is None]
    for text in missing:
        print(f"not measured: {text}", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
