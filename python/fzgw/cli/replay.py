"""``fzgw replay``: the flow engine on capture files.

The walk: what was asked for is checked before anything is written. The engine reads on its own thread; each batch of
records that it hands over is shown to the handlers, rendered, and written as a whole (`_Delivery`). Afterwards come the
books: a summary on stderr, and `--ledger`.

A small capture is read in less time than many libraries take to import. What few runs need (configuration, handlers,
the progress bar) is imported where it is needed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from fzgw.cli.errors import Failure
from fzgw.cli.options import set_option

if TYPE_CHECKING:
    from rich.progress import Progress

    from fzgw._core import Batch, Replay
    from fzgw.config import Config, FlowLogsConfig
    from fzgw.handlers import HandlerSet

FORMATS = ("ocsf", "ecs", "zeek")

PROGRESS_AFTER = 0.5
"""Seconds after which a run is long enough for a progress bar."""

PROGRESS_EVERY = 0.1
"""Seconds between two looks at the progress."""


@click.command
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    default="ocsf",
    show_default=True,
    help="The form of the JSON lines. ocsf has open, update and close records; ecs and zeek close records alone.",
)
@click.option("--output", metavar="PATH", type=click.Path(dir_okay=False), help="Write the lines there, not to stdout.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A gateway's configuration: its peers are found by their allowed IPs, its limits hold, its handlers run.",
)
@click.option(
    "--handler",
    "handlers",
    metavar="FILE.PY:NAME",
    multiple=True,
    help="A flow handler beside those of the configuration; relative to the working directory. May be repeated.",
)
@set_option
@click.option("--ledger", metavar="PATH", type=click.Path(dir_okay=False), help="Write the books there as JSON.")
@click.pass_context
def replay(
    ctx: click.Context,
    files: tuple[str, ...],
    format_name: str,
    output: str | None,
    config: Path | None,
    handlers: tuple[str, ...],
    overrides: tuple[str, ...],
    ledger: str | None,
) -> None:
    """Read captures and tell their flows, as the gateway would have.

    FILE is a pcap or pcapng file, plain, gzip or zstd, or - for standard input. Several files are read in their order,
    as one capture. Time goes by the packets' clock. Without --config there are no peers, and --set knows the keys of
    flow_logs alone.

    Records go to stdout, or to --output, as JSON lines; a summary with the books goes to stderr. Where a file ends too
    early or is damaged, what came before is told, the error names the place, the files after it are not read, and the
    exit code is 1.
    """
    from fzgw.reading import check_readable, configured

    _check_names(files, output, ledger)
    check_readable(files)
    loaded, flow_logs = configured(config, overrides)
    limits = flow_logs or (loaded.flow_logs if loaded is not None else None)
    handler_set = _load_handlers(loaded, handlers, limits)

    with _opened(output) as target:
        delivery = _Delivery(format_name, handler_set, target)
        from fzgw._core import Replay

        reading = Replay.start(
            files,
            config=loaded,
            flow_logs=flow_logs,
            # Where neither a line nor a hook is for them, the engine need not make them.
            updates=format_name == "ocsf" or (handler_set is not None and handler_set.wants_update),
            open_events=handler_set is not None and handler_set.wants_open,
        )
        try:
            with _interruptible(handler_set), _Bar(reading, target) as bar:
                delivery.run(reading, bar)
        finally:
            reading.stop()

    books = delivery.books(reading.ledger())
    if ledger is not None:
        _write_ledger(Path(ledger), books)
    if reading.error is None or books["packets"]["frames"]:
        click.echo(_summary(books), err=True)
    if reading.error is not None:
        raise Failure(reading.error)
    if not books["balanced"]:
        raise Failure("the books do not balance: this is a bug of fzgw, please report it")


class _Target:
    """Where the lines go: a descriptor, and its name in messages."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name

    @property
    def is_terminal(self) -> bool:
        """Whether somebody watches the lines themselves."""
        return os.isatty(self._descriptor)

    def write(self, lines: bytes) -> None:
        """Writes all of it. Raises OSError with the name; BrokenPipeError when the reader has gone."""
        left = memoryview(lines)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody who shares the descriptor has made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._name) from error


class _Delivery:
    """Takes what the engine hands over to the handlers and to the target, and keeps the books of it (L3)."""

    def __init__(self, format_name: str, handlers: HandlerSet | None, target: _Target) -> None:
        self._format = format_name
        self._handlers = handlers
        self._target = target
        self._handed = 0
        self._notes = 0
        self._rendered = 0
        self._no_line = 0
        self._omitted = 0

    def run(self, reading: Replay, bar: _Bar) -> None:
        """Until the engine has no more."""
        from fzgw.reading import BATCH, POLL

        while (batch := reading.recv(BATCH, POLL)) is not None:
            self._deliver(batch)
            bar.look()

    def books(self, ledger: Mapping[str, Any]) -> dict[str, Any]:
        """The engine's ledgers with L3 as it went on here: `made = handed`, `handed + notes = rendered + omitted`."""
        records = {
            "made": ledger["records"]["made"],
            "handed": self._handed,
            "notes": self._notes,
            "rendered": self._rendered,
            "omitted": {"no_line": self._no_line, "handler": self._omitted},
        }
        # In OCSF there is a line for everything.
        whole = records["made"] == self._handed and (self._no_line == 0 or self._format != "ocsf")
        return {**ledger, "records": records, "balanced": ledger["balanced"] and whole}

    def _deliver(self, batch: Batch) -> None:
        remarks = {} if self._handlers is None else self._handlers.run(batch)
        lines, count = batch.render(self._format, self._rendered + 1, remarks)
        self._target.write(lines)
        flows = batch.flow_records
        self._handed += flows
        self._notes += len(batch) - flows
        self._rendered += count
        omitted = sum(said.omit for said in remarks.values())
        self._omitted += omitted
        self._no_line += len(batch) - count - omitted


class _Bar:
    """A progress bar on stderr, where that is a terminal and the lines go elsewhere. Short runs go without."""

    def __init__(self, reading: Replay, target: _Target) -> None:
        self._reading = reading
        self._began = time.monotonic()
        shown = sys.stderr is not None and sys.stderr.isatty() and not target.is_terminal
        self._next = self._began + PROGRESS_AFTER if shown else float("inf")
        self._progress: Progress | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def look(self) -> None:
        """Shows how far the reading is, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PROGRESS_EVERY
        if self._progress is None:
            self._progress = _progress()
            self._progress.add_task("", total=None, rate=0, flows=0)
            self._progress.start()
        far = self._reading.progress()
        self._progress.update(
            self._progress.task_ids[0],
            completed=far["bytes"],
            total=far["bytes_total"] or None,
            rate=far["packets"] / (now - self._began),
            flows=far["flows"],
        )
        self._progress.refresh()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rate]:,.0f} packets/s"),
        TextColumn("{task.fields[flows]:,} flows"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )


def _check_names(files: Sequence[str], output: str | None, ledger: str | None) -> None:
    """What would overwrite a capture, or read standard input twice, is a slip of the hand."""
    if files.count("-") > 1:
        raise click.UsageError("standard input (-) can be read once")
    written = [(option, path) for option, path in (("--output", output), ("--ledger", ledger)) if path is not None]
    for option, path in written:
        for file in files:
            if file != "-" and _same_file(file, path):
                raise click.UsageError(f"{option} {path} is the capture itself")
    if output is not None and ledger is not None and (output == ledger or _same_file(output, ledger)):
        raise click.UsageError("--output and --ledger are the same file")


def _same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # one of them is not there yet
        return False


def _load_handlers(config: Config | None, specs: Sequence[str], flow_logs: FlowLogsConfig | None) -> HandlerSet | None:
    """The configuration's handlers and those of the command line; None when there are none."""
    configured = [] if config is None else [(handler.load, config.path.parent) for handler in config.handlers]
    everything = [*configured, *((spec, Path.cwd()) for spec in specs)]
    if not everything:
        return None
    from fzgw import logs
    from fzgw.handlers import MAX_FLOWS, load_handlers

    logs.configure()
    return load_handlers(everything, max_flows=MAX_FLOWS if flow_logs is None else flow_logs.max_flows)


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[_Target]:
    """Opens where the lines go. What a handler prints meanwhile must not land among them: it goes to stderr."""
    with contextlib.ExitStack() as stack:
        if output is None or output == "-":
            os.fstat(_STDOUT)  # were it closed, the next file to be opened would get the lines
            target = _Target(_STDOUT, "stdout")
        else:
            target = _Target(stack.enter_context(Path(output).open("wb", buffering=0)).fileno(), output)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield target


_STDOUT = 1


@contextlib.contextmanager
def _interruptible(handlers: HandlerSet | None) -> Iterator[None]:
    """Ctrl-C gets through a handler, which otherwise takes it for an error of its own."""
    if handlers is None or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    from fzgw.handlers import ShutdownCut

    def cut(_number: int, _frame: FrameType | None) -> None:
        raise ShutdownCut

    signal.signal(signal.SIGINT, cut)
    try:
        yield
    except ShutdownCut:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _write_ledger(path: Path, books: Mapping[str, Any]) -> None:
    import json

    path.write_text(json.dumps(books, indent=2) + "\n", encoding="utf-8")


def _summary(books: Mapping[str, Any]) -> str:
    """The books for a human, in four lines."""
    packets, records = books["packets"], books["records"]
    sides = [packets["from_peer"], packets["to_peer"]]
    forwarded = sum(side["forwarded"] for side in sides)
    size = sum(books["bytes"][side]["forwarded"] for side in ("from_peer", "to_peer"))
    dropped = _sum([packets["not_ip"], *(side["dropped"] for side in sides)])

    flows = [books["flows"][side] for side in ("from_peer", "to_peer")]
    in_flows = sum(side["ended"][0] for side in flows)
    in_none = _sum({"icmp_errors": side["icmp_errors"][0], **_packets_of(side["untracked"])} for side in flows)

    lines = {
        "packets": f"{packets['frames']:,} read, {forwarded:,} of them ({size:,} bytes) passed on{_but(dropped)}",
        "flows": f"{books['flows']['opened']:,} of {in_flows:,} packets{_but(in_none)}",
        "records": f"{records['made']:,} made, {records['rendered']:,} rendered{_but(records['omitted'])}",
        "balanced": "yes" if books["balanced"] else "NO",
    }
    return "\n".join(f"{name + ':':<10}{text}" for name, text in lines.items())


def _packets_of(tallies: Mapping[str, Sequence[int]]) -> dict[str, int]:
    return {reason: packets for reason, (packets, _) in tallies.items()}


def _sum(several: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in several:
        for reason, count in counts.items():
            total[reason] = total.get(reason, 0) + count
    return total


def _but(counts: Mapping[str, int]) -> str:
    """What is not among them, by reason; nothing for nothing."""
    told = [f"{count:,} {reason}" for reason, count in counts.items() if count]
    return f"; apart from them {', '.join(told)}" if told else ""
