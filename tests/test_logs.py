"""The program's log on stderr, and what RUST_LOG asks for."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from fzgw import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe, its ends closed at the end unless the test did."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def lines_of(reader: int) -> list[dict[str, Any]]:
    """What is in a pipe, as JSON lines."""
    os.set_blocking(reader, False)
    return [json.loads(line) for line in os.read(reader, 1 << 20).splitlines()]


class TestFormat:
    """A human's lines on a terminal, JSON elsewhere."""

    def test_json_lines_where_no_terminal_is(self, pipe: tuple[int, int]) -> None:
        """One object a line: time in UTC, level, event, then the event's fields."""
        reader, writer = pipe
        logs.configure(fd=writer)
        logs.get_logger().info("gateway_started", port=51820, name="é\nx", path=Path("a"))
        (line,) = lines_of(reader)
        assert list(line) == ["timestamp", "level", "event", "port", "name", "path"]
        assert line["timestamp"].endswith("Z")
        del line["timestamp"]
        assert line == {"level": "info", "event": "gateway_started", "port": 51820, "name": "é\nx", "path": "a"}

    @pytest.mark.parametrize(
        ("environ", "coloured"),
        [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    )
    def test_a_terminal_gets_lines_for_a_human(self, environ: dict[str, str], coloured: bool) -> None:
        """No JSON on a terminal; colour unless NO_COLOR or a dumb terminal says otherwise."""
        terminal, writer = pty.openpty()
        try:
            logs.configure(fd=writer, environ=environ)
            logs.get_logger().warning("reload_refused", reason="no")
            text = os.read(terminal, 4096).decode()
        finally:
            os.close(terminal)
            os.close(writer)
        assert "reload_refused" in text
        assert not text.startswith("{")
        assert ("\x1b[" in text) is coloured

    def test_an_exception_is_part_of_its_line(self, pipe: tuple[int, int]) -> None:
        """A traceback is one field of one line, without the values of variables: some are keys."""
        reader, writer = pipe
        logs.configure(fd=writer)
        secret = "do not show"
        try:
            raise ValueError("wrong")
        except ValueError:
            logs.get_logger().exception("failed")
        (line,) = lines_of(reader)
        assert "ValueError: wrong" in line["exception"]
        assert f"secret = '{secret}'" not in line["exception"]

    def test_the_level_holds(self, pipe: tuple[int, int]) -> None:
        """--log-level warning leaves info out."""
        reader, writer = pipe
        logs.configure("warning", fd=writer)
        for level in logs.LEVELS:
            getattr(logs.get_logger(), level)(level)
        assert [line["event"] for line in lines_of(reader)] == ["warning", "error"]

    def test_libraries_come_the_same_way(self, pipe: tuple[int, int]) -> None:
        """What libraries log or warn of is in the program's log; their chatter is not."""
        reader, writer = pipe
        logs.configure("debug", fd=writer)
        logging.getLogger("pyroute2").info("chatter")
        logging.getLogger("pyroute2").error("lost %d", 3)
        logging.getLogger("odd").log(37, "between levels")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        lines = lines_of(reader)
        assert [(line["level"], line["library"]) for line in lines] == [
            ("error", "pyroute2"),
            ("warning", "odd"),
            ("warning", "py.warnings"),
        ]
        assert lines[0]["message"] == "lost 3"


class TestSlowReader:
    """The log never holds the gateway up."""

    def test_a_reader_that_has_gone_raises_nothing(self, pipe: tuple[int, int]) -> None:
        """`fzgw run 2>&1 | head` ends the log, not the gateway."""
        reader, writer = pipe
        logs.configure(fd=writer)
        os.close(reader)
        logs.get_logger().info("into the void")

    def test_lines_that_cannot_be_written_are_counted(self, pipe: tuple[int, int]) -> None:
        """A reader that does not read costs lines, at most a moment of time, and the next line says how many."""
        reader, writer = pipe
        os.set_blocking(writer, False)
        while True:
            try:
                os.write(writer, b"x" * 4096)
            except BlockingIOError:
                break
        os.set_blocking(writer, True)
        logs.configure(fd=writer)
        start = time.monotonic()
        for number in range(100):
            logs.get_logger().info("lost", number=number)
        assert time.monotonic() - start < 100 * logs.STDERR_PATIENCE / 2
        os.read(reader, 1 << 20)
        logs.get_logger().info("found")
        logs.get_logger().info("again")
        found, again = lines_of(reader)
        assert found["log_lines_lost"] == 100
        assert "log_lines_lost" not in again


@pytest.mark.parametrize(
    ("rust_log", "enabled"),
    [
        (None, False),
        ("", False),
        ("trace", True),
        ("TRACE", True),
        ("5", True),
        ("debug", False),
        ("4", False),
        ("flow_logs=trace", True),
        ("flow_logs", True),
        ("flow_logs=debug", False),
        ("flow_logs=off", False),
        ("flow_logs=9", False),
        ("trace,flow_logs=info", False),
        ("flow_logs=info,trace", False),
        ("info,flow_logs=trace", True),
        ("flow_logs=trace,off", True),
        ("flow_logs=trace,flow_logs=info", False),
        ("flow_logs=info,flow_logs=trace", True),
        ("flow=trace", True),
        ("flow=trace,flow_logs=info", False),
        ("flow_logs::tcp=trace", False),
        ("flow_logs_extra=trace", False),
        ("other=trace", False),
        ("other", False),
        (" info , flow_logs = trace ", True),
        ("flow_logs[span]=trace", False),
        ("flow_logs[span{a=b,c=d}]=trace", False),
        ("trace,,=,flow_logs=nonsense", True),
    ],
)
def test_rust_log_enables_flow_logs_at_trace(rust_log: str | None, enabled: bool) -> None:
    """design.md, Commands: the most specific directive decides, so `trace` does and `trace,flow_logs=info` does not."""
    assert logs.flow_logs_enabled({} if rust_log is None else {"RUST_LOG": rust_log}) is enabled


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import fzgw", ("pydantic", "structlog", "click", "fzgw._core", "inspect", "rich")),
        ("import fzgw.cli.run, fzgw.app; fzgw.app.logs.configure()", ("pydantic", "rich", "pyroute2")),
    ],
)
def test_nothing_is_imported_that_is_not_used(code: str, absent: tuple[str, ...]) -> None:
    """`import fzgw` costs next to nothing, and a running gateway carries no tables."""
    script = f"import sys; {code}; print([name for name in {absent!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_rich_can_still_be_imported() -> None:
    """Keeping rich out of structlog keeps it out of nothing else."""
    script = "from fzgw import logs; logs.configure(); import rich.table; print(rich.table.Table.__name__)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "Table"
