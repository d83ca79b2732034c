"""The program's own log, on stderr: a human's lines on a terminal, JSON lines everywhere else.

Flow records never come this way: they are a stream of their own (stdout, or a sink), so that people can pipe them.
`RUST_LOG` is read here all the same, because its target `flow_logs` asks for that stream, as on Firezone's gateway.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

LEVELS = ("debug", "info", "warning", "error")
"""The levels of `--log-level`. Nothing is logged per packet at any of them."""

STDERR_PATIENCE = 0.2
"""Seconds that a log line waits for a reader that does not read; then lines are lost, and counted."""

FLOW_LOGS_TARGET = "flow_logs"

_RUST_LEVELS = ("off", "error", "warn", "info", "debug", "trace")


def configure(level: str = "info", *, fd: int = 2, environ: Mapping[str, str] = os.environ) -> None:
    """Sets up the log of this process: lines of `level` and above (one of `LEVELS`) go to the file descriptor.

    On a terminal they are written for a human, coloured unless `NO_COLOR` is set or the terminal is dumb; elsewhere
    each is a JSON object with `timestamp` (UTC), `level`, `event` and the event's own fields. Warnings of libraries
    come the same way.
    """
    structlog = _structlog()
    minimum = getattr(logging, level.upper())
    writer = StderrWriter(fd)
    terminal = os.isatty(fd)
    if terminal:
        colours = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        rendering = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            # Not the default formatter of tracebacks: it may show local variables, and some of ours are keys.
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback),
        ]
    else:
        rendering = [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _render_json,
        ]
    structlog.configure(
        processors=[structlog.processors.add_log_level, writer.tell_lost, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=max(minimum, logging.WARNING), force=True)
    logging.captureWarnings(True)


def get_logger() -> FilteringBoundLogger:
    """The program's logger: `log.info("gateway_started", port=51820)`. An event is a name, what varies is a field."""
    logger: FilteringBoundLogger = _structlog().get_logger()
    return logger


def flow_logs_enabled(environ: Mapping[str, str]) -> bool:
    """Whether `RUST_LOG` enables the target `flow_logs` at trace.

    Directives are `target=level`, `target` (everything) or `level`, separated by commas. The most specific one
    decides: `trace` enables flow logs, `trace,flow_logs=info` does not. Of two for the same target the later one
    counts. What is no directive, or is about spans, is passed over.
    """
    decided = ("", "off")
    for directive in environ.get("RUST_LOG", "").split(","):
        target, level = _parse_directive(directive.strip())
        if FLOW_LOGS_TARGET.startswith(target) and level is not None and len(target) >= len(decided[0]):
            decided = (target, level)
    return decided[1] == "trace"


class StderrWriter:
    """Writes log lines to a file descriptor and never holds the program up for long.

    A reader that has gone, or that reads too slowly, loses lines: the next line that can be written says how many.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lost = 0

    def msg(self, line: str) -> None:
        """Writes one line."""
        patience = 0.0 if self._lost else STDERR_PATIENCE
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            while data:
                if not _writable(self._fd, patience):
                    self._lost += 1
                    return
                data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]
        except OSError:  # a log that cannot be written has nowhere to say so
            self._lost += 1
            return
        self._lost = 0

    debug = info = warning = error = critical = exception = log = msg

    def tell_lost(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Adds the number of lost lines to the line that follows them."""
        if self._lost:
            event["log_lines_lost"] = self._lost
        return event


class _LibraryHandler(logging.Handler):
    """Brings what libraries log through the standard library into the program's log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = min(record.levelno // 10 * 10, logging.CRITICAL)  # structlog knows the standard levels alone
            get_logger().log(level, "library_message", library=record.name, message=record.getMessage())
        except Exception:  # noqa: BLE001 - as every handler of the standard library does it
            self.handleError(record)


def _structlog() -> ModuleType:
    """structlog, without rich: it imports rich wherever that is installed, and 5 MB of tables and syntax colours are
    no use to a gateway that runs for months."""
    if "structlog" not in sys.modules and "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's way to say: not to be found
        try:
            import structlog
        finally:
            del sys.modules["rich"]
    import structlog

    return structlog


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    first: dict[str, Any] = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return json.dumps({**first, **event}, default=str, ensure_ascii=False, separators=(",", ":"))


def _parse_directive(directive: str) -> tuple[str, str | None]:
    """Target ("" for all) and level of one directive; the level is None where the directive says nothing to us."""
    if not directive or any(mark in directive for mark in "[]{}"):
        return "", None
    target, separator, level = directive.partition("=")
    if separator:
        return target.strip(), _parse_level(level.strip())
    level_alone = _parse_level(target)
    return ("", level_alone) if level_alone else (target, "trace")


def _parse_level(text: str) -> str | None:
    if text.isdecimal():
        return _RUST_LEVELS[int(text)] if int(text) < len(_RUST_LEVELS) else None
    return text.lower() if text.lower() in _RUST_LEVELS else None


def _writable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))
