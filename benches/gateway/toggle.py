"""What flow logs cost: switched on and off inside one running gateway, window by window.

    python benches/gateway/toggle.py --harness HARNESS --bin BIN --traffic up,down,churn

Two gateways differ by more than flow logs cost, so this is one: the program of `fzgw run` in this process, its records
written to a file, while a stream (`up`, `down`) or short connections (`churn`) run through it all the time. Logs are
switched as a reload switches them, in the order on, off, off, on, so that a drift of the machine meets both alike. A
pair is two windows next to each other, and its ratio CPU per byte with logs to that without.

CPU is told of the worker's thread, which moves the packets, and of the whole process, which renders and writes the
records besides. The kernel counts softirq work in the thread that it interrupts (unless it was built with
IRQ_TIME_ACCOUNTING), and both contain it.

Without `--rules`, off means that no flow is kept at all; with it, access rules keep the flows without logs too. One
JSON line for each kind of traffic goes to `--raw`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from laboratory import DIRECTIONS, Laboratory, LaboratoryError, main, measuring, options, wait_for
from pyroute2 import netns

from fzgw import _core, logs
from fzgw.app import App
from fzgw.config import Config, load
from fzgw.sinks.stdout import StdoutSink

SETTLE = 0.3
"""Seconds between a switch and its window: what the switch itself costs belongs to neither side. With short connections
the flows' `close_delay` comes on top, after which there are as many records a second as connections."""
MARGIN = 60
"""Seconds that the traffic lasts longer than the windows; it is ended when they are done."""

PATIENCE = 10
"""Seconds in which the measuring thread notices that the program has ended."""

WORKER = "fzgw-worker"
"""The name of the engine's thread."""
PER_THREAD_CPU = 0b110
"""The clock of one thread's CPU time (clock_getcpuclockid(3), CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED)."""


@dataclass(frozen=True)
class Reading:
    """Counters at a moment."""

    worker_ns: int
    process_ns: int
    moved: int
    """IP bytes that the gateway has passed on, both ways."""
    records: int


@dataclass(frozen=True)
class Window:
    """What one window took."""

    logs: bool
    worker_s_per_gb: float
    process_s_per_gb: float
    bytes: int
    records: int


@dataclass(frozen=True)
class Cost:
    """What flow logs cost by one count of CPU."""

    median: float
    """Of the pairs' ratios, on to off."""
    quartiles: tuple[float, float]
    pairs: tuple[float, ...]
    on_s_per_gb: float
    off_s_per_gb: float

    @classmethod
    def of(cls, windows: Sequence[Window], count: Callable[[Window], float]) -> Cost:
        """A pair is two windows next to each other: the first with the second, the third with the fourth."""
        both = [sorted(pair, key=lambda window: window.logs) for pair in zip(windows[::2], windows[1::2], strict=True)]
        pairs = [count(on) / count(off) for off, on in both]
        low, median, high = statistics.quantiles(pairs, n=4, method="inclusive")
        return cls(
            median=median,
            quartiles=(low, high),
            pairs=tuple(pairs),
            on_s_per_gb=statistics.median(count(on) for _, on in both),
            off_s_per_gb=statistics.median(count(off) for off, _ in both),
        )


@dataclass(frozen=True)
class Row:
    """What is told of one kind of traffic."""

    traffic: str
    rules: bool
    device: str | None
    worker: Cost
    process: Cost
    windows: tuple[Window, ...]


class Switch:
    """The running gateway: turns its flow logs on and off, and reads its counters."""

    def __init__(self, gateway: _core.Gateway, config: Config) -> None:
        self._gateway = gateway
        self._config = config
        self._worker = next(
            int(task.name)
            for task in Path("/proc/self/task").iterdir()
            if (task / "comm").read_text().strip() == WORKER
        )

    def turn(self, on: bool) -> None:
        """As a reload does it."""
        self._gateway.reload(self._config, flow_logs=on)

    def read(self) -> Reading:
        """The counters now."""
        stats = self._gateway.stats()
        return Reading(
            worker_ns=time.clock_gettime_ns((~self._worker << 3) | PER_THREAD_CPU),
            process_ns=time.process_time_ns(),
            moved=sum(stats["bytes"][side]["forwarded"] for side in ("from_peer", "to_peer")),
            records=stats["records"]["made"],
        )

    def live_flows(self) -> int:
        """How many flows the gateway keeps."""
        return int(self._gateway.stats()["flows"]["live"])

    def device(self) -> str | None:
        """What the gateway's TUN device can do, where the gateway says so."""
        told = self._gateway.stats().get("tun_offload")
        return None if told is None else str(told)


class Windows(threading.Thread):
    """Measures beside the program, which has the main thread, and ends the program when it is done.

    `over` says that the program has ended already.
    """

    def __init__(self, measure: Callable[[], None], over: threading.Event) -> None:
        super().__init__(name="windows", daemon=True)
        self._measure = measure
        self._over = over
        self.failure: Exception | None = None

    def run(self) -> None:
        """Measures once."""
        try:
            self._measure()
        except Exception as error:  # noqa: BLE001 - told by the main thread, which is what ends the program
            self.failure = error
        finally:
            if not self._over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)


class Toggle:
    """One program, one kind of traffic after another."""

    def __init__(self, given: argparse.Namespace, laboratory: Laboratory, folder: Path) -> None:
        self._given = given
        self._laboratory = laboratory
        self._folder = folder
        self._gateway: _core.Gateway | None = None
        self._over = threading.Event()
        self.rows: list[Row] = []

    def run(self) -> None:
        """Runs the gateway until every kind of traffic is measured, or a signal ends it."""
        with self._configured() as (config, setup), (self._folder / "records.jsonl").open("wb") as records:
            netns.setns(self._laboratory.namespace("g"))
            app = App(
                config,
                load_config=lambda: config,
                stdout=StdoutSink(records.fileno()),
                flow_logs=True,
                gateway_factory=self._start,
            )
            windows = Windows(lambda: self._measure(config, setup), self._over)
            windows.start()
            try:
                code = app.run()
            finally:
                self._over.set()
                windows.join(PATIENCE)
        if windows.failure is not None:
            raise windows.failure
        if code:
            raise LaboratoryError(f"the gateway ended with exit code {code}")

    @contextlib.contextmanager
    def _configured(self) -> Iterator[tuple[Config, subprocess.Popen[bytes]]]:
        """The configuration of setup.sh, which ends when the gateway's interface is up."""
        if self._given.rules:
            self._laboratory.environment["FZGW_BENCH_RULES"] = "1"
        else:
            self._laboratory.environment.pop("FZGW_BENCH_RULES", None)
        setup = self._laboratory.start("g", str(Path(__file__).with_name("setup.sh")), log="setup")
        path = self._folder / f"fzgw-bench-{self._laboratory.interface}" / "gateway.toml"
        wait_for(path.exists, "the configuration of setup.sh")
        yield load(path, self._given.overrides), setup

    def _start(self, config: Config, *, flow_logs: bool, open_events: bool, memory: bool) -> _core.Gateway:
        gateway = _core.Gateway.start(config, flow_logs=flow_logs, open_events=open_events, memory=memory)
        self._gateway = gateway
        return gateway

    def _measure(self, config: Config, setup: subprocess.Popen[bytes]) -> None:
        if setup.wait(30):
            raise LaboratoryError(f"the gateway did not come up: {self._laboratory.log('setup').read_text()}")
        assert self._gateway is not None
        switch = Switch(self._gateway, config)
        self._laboratory.connect()
        for traffic in self._given.traffic:
            settle = SETTLE + (config.flow_logs.close_delay if traffic == "churn" else 0)
            seconds = self._given.windows * (self._given.secs + settle) + MARGIN
            with measuring():
                if traffic in DIRECTIONS:
                    process = self._laboratory.stream(traffic, seconds)
                else:
                    process = self._laboratory.churn(seconds)
                windows = list(self._windows(switch, settle))
                if self._over.is_set():
                    return
                if process.poll() is not None:
                    raise LaboratoryError(f"{traffic}: the traffic ended before the windows did")
                self._laboratory.end(process)
            self._check(traffic, windows)
            self.rows.append(
                Row(
                    traffic=traffic,
                    rules=self._given.rules,
                    device=switch.device(),
                    worker=Cost.of(windows, lambda window: window.worker_s_per_gb),
                    process=Cost.of(windows, lambda window: window.process_s_per_gb),
                    windows=tuple(windows),
                )
            )
            print(f"{traffic} done", file=sys.stderr)

    def _windows(self, switch: Switch, settle: float) -> Iterator[Window]:
        for number in range(self._given.windows):
            on = number % 4 in (0, 3)
            switch.turn(on)
            if self._over.wait(settle):
                return
            before = switch.read()
            if self._over.wait(self._given.secs):
                return
            after = switch.read()
            if not self._given.rules and bool(switch.live_flows()) != on:
                raise LaboratoryError(
                    f"flow logs are {'on' if on else 'off'}, and {switch.live_flows()} flows are kept"
                )
            moved = after.moved - before.moved
            if moved == 0:
                raise LaboratoryError("nothing passed through the gateway for a whole window")
            yield Window(
                logs=on,
                worker_s_per_gb=(after.worker_ns - before.worker_ns) / moved,
                process_s_per_gb=(after.process_ns - before.process_ns) / moved,
                bytes=moved,
                records=after.records - before.records,
            )

    def _check(self, traffic: str, windows: Sequence[Window]) -> None:
        """Short connections make records in every window with logs, and in none without."""
        if traffic == "churn" and any(bool(window.records) != window.logs for window in windows):
            raise LaboratoryError(f"records by window: {[(window.logs, window.records) for window in windows]}")


def run(arguments: Sequence[str] | None) -> int:
    """The program."""
    parser = options(__doc__)
    parser.add_argument("--traffic", type=_traffic, default=["up", "down"], help="kinds of traffic, by commas")
    parser.add_argument("--windows", type=_windows, default=20, help="a multiple of 4; 20 unless given")
    parser.add_argument("--secs", type=float, default=2, help="seconds of a window; 2 unless given")
    parser.add_argument("--rules", action="store_true", help="with an access rule")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="of fzgw run")
    parser.add_argument("--raw", type=Path, help="append a row for each kind of traffic to this file")
    given = parser.parse_args(arguments)

    logs.configure("warning")
    with (
        tempfile.TemporaryDirectory(prefix="fzgw-toggle-") as name,
        Laboratory(given.harness, given.bin, Path(name)) as laboratory,
    ):
        toggle = Toggle(given, laboratory, Path(name))
        toggle.run()
    if len(toggle.rows) < len(given.traffic):
        raise LaboratoryError("ended by a signal before everything was measured")
    print(f"{'traffic':8} {'CPU of':8} {'on s/GB':>8} {'off s/GB':>8} {'on/off':>8} quartiles")
    for row in toggle.rows:
        if given.raw:
            with given.raw.open("a") as raw:
                raw.write(json.dumps(asdict(row)) + "\n")
        for name, cost in (("worker", row.worker), ("process", row.process)):
            low, high = cost.quartiles
            print(
                f"{row.traffic:8} {name:8} {cost.on_s_per_gb:8.3f} {cost.off_s_per_gb:8.3f} {cost.median:8.4f} "
                f"{low:.4f} to {high:.4f}"
            )
    return 0


def _traffic(text: str) -> list[str]:
    wanted = text.split(",")
    if not set(wanted) <= {*DIRECTIONS, "churn"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of up, down and churn")
    return wanted


def _windows(text: str) -> int:
    if not text.isdecimal() or int(text) % 4 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no multiple of 4")
    return int(text)


if __name__ == "__main__":
    main(run)
