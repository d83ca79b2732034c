"""The stdout sink: whole lines, a reader that is slow or gone, and books that balance (L3)."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fzgw.sinks import Sink, SinkCounts, SinkError
from fzgw.sinks.stdout import StdoutSink


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe, its ends closed at the end unless the test did."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def opened(fd: int) -> StdoutSink:
    """A sink on that descriptor, ready."""
    sink = StdoutSink(fd)
    sink.open()
    return sink


def give(sink: Sink, text: bytes) -> None:
    """Gives the sink lines, as the gateway does."""
    sink.write(text, text.count(b"\n"))


def lines(count: int, size: int = 900) -> bytes:
    """So many lines of so many bytes, numbered."""
    return b"".join(f"{number:0{size - 1}}\n".encode() for number in range(count))


def test_lines_are_written_as_they_are(tmp_path: Path) -> None:
    """To a file, byte by byte, and counted as delivered."""
    with (tmp_path / "out").open("wb") as file:
        sink: Sink = opened(file.fileno())
        for part in (lines(3), b"", lines(1000)):
            give(sink, part)
            assert sink.flush(1.0)
        sink.close()
    assert (tmp_path / "out").read_bytes() == lines(3) + lines(1000)
    assert sink.counts == SinkCounts(rendered=1003, delivered=1003)


def test_a_slow_reader_does_not_hold_up_flush(pipe: tuple[int, int]) -> None:
    """flush comes back when its time is over; what is left waits in the ledger, and goes when the reader reads."""
    reader, writer = pipe
    sink = opened(writer)
    sent = lines(1000)
    give(sink, sent)
    start = time.monotonic()
    assert not sink.flush(0.05)
    assert 0.04 < time.monotonic() - start < 1.0
    assert 0 < sink.counts.waiting < 1000
    assert sink.counts.balanced()

    received = b""
    while not sink.flush(0.0):
        received += os.read(reader, 1 << 16)
    os.close(writer)
    while part := os.read(reader, 1 << 16):
        received += part
    assert received == sent
    assert sink.counts == SinkCounts(rendered=1000, delivered=1000)


def test_what_a_pipe_holds_are_whole_lines(pipe: tuple[int, int]) -> None:
    """Cut short at any moment, the stream ends with a whole line, and the ledger knows which."""
    reader, writer = pipe
    sink = opened(writer)
    give(sink, lines(1000, size=1000))
    assert not sink.flush(0.0)
    sink.close()
    held = os.read(reader, 1 << 20)
    assert held.endswith(b"\n")
    assert held.count(b"\n") == sink.counts.delivered
    assert sink.counts.waiting == 1000 - sink.counts.delivered


def test_a_line_longer_than_a_pipe_takes_at_once(pipe: tuple[int, int]) -> None:
    """A line of any length is written whole in the end."""
    reader, writer = pipe
    sink = opened(writer)
    sent = lines(1, size=10_000) + lines(2, size=5000)
    give(sink, sent)
    assert sink.flush(1.0)
    assert os.read(reader, 1 << 20) == sent
    assert sink.counts == SinkCounts(rendered=3, delivered=3)


def test_writes_while_lines_wait_keep_their_order(pipe: tuple[int, int]) -> None:
    """Nothing is lost or turned round when more comes before the rest has gone, in mid-line too."""
    reader, writer = pipe
    sink = opened(writer)
    give(sink, lines(40, size=7000))
    assert not sink.flush(0.0)
    give(sink, b"last\n")
    received = b""
    while not sink.flush(0.0):
        received += os.read(reader, 1 << 16)
    received += os.read(reader, 1 << 20)
    assert received == lines(40, size=7000) + b"last\n"


def test_a_closed_pipe_is_said_once_and_counted(pipe: tuple[int, int]) -> None:
    """R27: a closed stdout pipe stops nothing: said once, every later record refused, the ledger balanced (L3)."""
    reader, writer = pipe
    sink = opened(writer)
    give(sink, lines(5))
    assert sink.flush(1.0)
    os.close(reader)
    with capture_logs() as log:
        for _ in range(3):
            give(sink, lines(10))
            assert sink.flush(1.0)
    assert [(entry["event"], entry["sink"], entry["reason"]) for entry in log] == [
        ("sink_closed", "stdout", "Broken pipe")
    ]
    assert sink.counts == SinkCounts(rendered=35, delivered=5, refused=30)
    assert sink.counts.balanced()


def test_a_full_disk_may_pass(tmp_path: Path) -> None:
    """A file that takes no more refuses records, whole lines at a time, and takes records again when it can."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "out").open("wb") as file, capture_logs() as log:
        sink = opened(file.fileno())
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2500, hard))  # ends within the third line
            give(sink, lines(5, size=1000))
            assert sink.flush(1.0)
            assert sink.counts == SinkCounts(rendered=5, delivered=2, waiting=1, refused=2)
            give(sink, lines(4, size=1000))
            assert sink.flush(1.0)
            assert sink.counts == SinkCounts(rendered=9, delivered=2, waiting=1, refused=6)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        give(sink, b"back\n")
        assert sink.flush(1.0)
    assert [entry["event"] for entry in log] == ["sink_failing", "sink_works_again"]
    assert (tmp_path / "out").read_bytes() == lines(3, size=1000) + b"back\n"
    assert sink.counts == SinkCounts(rendered=10, delivered=4, refused=6)


def test_a_descriptor_made_non_blocking_by_others(pipe: tuple[int, int]) -> None:
    """Whoever shares the pipe may have made it non-blocking: lines wait all the same."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    sink = opened(writer)
    give(sink, lines(500))
    assert not sink.flush(0.05)
    received = b""
    while not sink.flush(0.0):
        received += os.read(reader, 1 << 16)
    os.close(writer)
    while part := os.read(reader, 1 << 16):
        received += part
    assert received == lines(500)


def test_a_closed_descriptor_is_refused_at_the_start(pipe: tuple[int, int]) -> None:
    """`fzgw run --flow-logs >&-`: an error at start, not records in the next file that gets the number."""
    _, writer = pipe
    os.close(writer)
    with pytest.raises(SinkError, match=r"^flow records cannot go to stdout: Bad file descriptor$"):
        StdoutSink(writer).open()
