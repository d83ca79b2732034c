"""One run of the demo, from nothing to nothing."""

from __future__ import annotations

import queue
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from fzgw.demo import checks, clients, configuration, ledgers, privilege, view
from fzgw.demo.errors import DemoError, Interrupted
from fzgw.demo.gateway import GatewayProcess
from fzgw.demo.laboratory import Laboratory
from fzgw.demo.records import FlowRow, parse
from fzgw.demo.server import Services
from fzgw.demo.traffic import ExpectedFlow, Traffic

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# How long flows may take to close by themselves before the shutdown closes them: the idle limits of the configuration,
# the close delay, and some air.
_CLOSING: Final = 6.0
_OPEN_UNTIL_SHUTDOWN: Final = "deny"


def run_demo(*, as_json: bool, command: str) -> None:
    """Make the laboratory, run the traffic, show the records and the books, and check them.

    `command` is how the user would start the demo with sudo. Raises `DemoError` when it cannot go on, or when something
    in the records or books is missing or wrong (`NoPrivilegeError` for want of privilege), `BrokenPipeError` when who
    read the records has left, `Interrupted` for the signals that end a program. Everything that was made is gone in
    every case. The process may be root of a user namespace of its own afterwards.
    """
    privilege.require_nft()
    privilege.require_namespaces(command + (" --json" if as_json else ""))
    with _signals_interrupt():
        _run(view.choose(as_json=as_json))


def _run(shown: view.View) -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fzgw-demo-")))
        stack.enter_context(shown)
        shown.step("making the laboratory")
        laboratory = stack.enter_context(Laboratory())
        services = stack.enter_context(Services(laboratory.server))
        keys = configuration.generate_keys()
        gateway = stack.enter_context(GatewayProcess(laboratory.gateway, configuration.write(directory, keys)))
        watch = _Watch(gateway, shown)
        try:
            gateway.wait_until_ready()
            with clients.connected(laboratory, keys):
                expected = _make_traffic(Traffic(laboratory, services), watch)
                shown.step("flows close")
                watch.until_closed([flow for flow in expected if flow.verdict != _OPEN_UNTIL_SHUTDOWN], _CLOSING)
            shown.step("the gateway shuts down, which closes the flows that are left")
            gateway.shut_down()
            watch.until_end()
            equations = ledgers.equations(gateway.stats(), watch.rows)
            shown.ledgers(equations)
            checks.check(expected, watch.rows, equations)
        except DemoError as error:
            raise DemoError(f"{error}\nThe end of the gateway's log:\n{gateway.log_tail()}") from error


def _make_traffic(traffic: Traffic, watch: _Watch) -> list[ExpectedFlow]:
    expected = []
    for step in traffic.steps:
        watch.shown.step(step.title)
        try:
            expected.append(step.run())
        except OSError as error:
            raise DemoError(f"{step.title}: {error}") from error
        watch.take()
    return expected


class _Watch:
    """Takes the gateway's lines, shows them, and keeps the flow records among them as `rows`."""

    def __init__(self, gateway: GatewayProcess, shown: view.View) -> None:
        self._gateway = gateway
        self.shown = shown
        self.rows: list[FlowRow] = []

    def take(self) -> None:
        """What is there already."""
        while True:
            try:
                self._show(self._gateway.records.get_nowait())
            except queue.Empty:
                return

    def until_closed(self, flows: Sequence[ExpectedFlow], patience: float) -> None:
        """Until each of the flows has its close record, or `patience` seconds have passed."""
        deadline = time.monotonic() + patience
        while not all(self._closed(flow) for flow in flows):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                self._show(self._gateway.records.get(timeout=left))
            except queue.Empty:
                return

    def until_end(self) -> None:
        """The rest, when the gateway has ended."""
        while (line := self._gateway.records.get()) is not None:
            self._show(line)

    def _closed(self, flow: ExpectedFlow) -> bool:
        return any(row.activity == "close" and checks.is_of(row, flow) for row in self.rows)

    def _show(self, line: bytes | None) -> None:
        if line is None:
            raise DemoError("the gateway closed its stdout")
        try:
            row = parse(line)
        except (ValueError, KeyError) as error:
            raise DemoError(f"the gateway wrote a line that is no record ({error!r}): {line!r}") from error
        if row is not None:
            self.rows.append(row)
        self.shown.record(line, row)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """The first of the signals that end a program raises `Interrupted`; the ones after it do not stop the cleaning."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    # nohup has SIGHUP ignored, which is then meant.
    wanted = [number for number in _SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
