"""Records to standard output: the sink of pipes into other programs.

The reader may be slow, or gone. While it is slow, `flush` comes back when its time is over, so that signals are heard
and a shutdown ends; the engine's bounded channel fills meanwhile and counts what it loses. When it is gone, records
are refused and counted, and packets go on.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time

from fzgw import logs
from fzgw.sinks import SinkCounts, SinkError

GONE = frozenset({errno.EPIPE, errno.EBADF, errno.ECONNRESET})
"""Errors after which nobody will ever read: everything else (a full disk) may pass."""

BUSY_PAUSE = 0.01
"""Seconds before the next try where a descriptor that is ready takes nothing (somebody made it non-blocking)."""

_NEWLINE = ord("\n")


class StdoutSink:
    """Writes lines to a file descriptor (1 unless a test has another), in whole lines.

    A pipe gets at most PIPE_BUF bytes at a time, and only once poll(2) says that they fit: such a write is atomic and
    does not block. The descriptor itself stays blocking, because it may be shared with whoever started the gateway.
    """

    name = "stdout"

    def __init__(self, fd: int = 1) -> None:
        self.counts = SinkCounts()
        self._fd = fd
        self._pending = b""
        self._offset = 0
        self._mid_line = False
        self._chunk = select.PIPE_BUF
        self._poll = select.poll()
        self._gone = False
        self._failing = False
        self._log = logs.get_logger()

    def open(self) -> None:
        """Raises `SinkError` when the descriptor is closed: the next file opened in its place would get the records."""
        try:
            mode = os.fstat(self._fd).st_mode
        except OSError as error:
            raise SinkError(f"flow records cannot go to stdout: {os.strerror(error.errno or 0)}") from error
        if stat.S_ISREG(mode):
            self._chunk = 1 << 20
        self._poll.register(self._fd, select.POLLOUT)

    def write(self, lines: bytes, records: int) -> None:
        """Takes whole lines, one record each, so many of them."""
        self.counts.rendered += records
        if self._gone:
            self.counts.refused += records
            return
        self.counts.waiting += records
        rest = self._pending[self._offset :]
        self._pending = rest + lines if rest else lines
        self._offset = 0

    def flush(self, timeout: float) -> bool:
        """Writes what is waiting, for at most `timeout` seconds; False when the reader was too slow for all of it."""
        deadline = time.monotonic() + timeout
        pending = memoryview(self._pending)
        while self._offset < len(pending):
            left = deadline - time.monotonic()
            if not self._poll.poll(max(0.0, left) * 1000):
                return False
            try:
                written = os.write(self._fd, pending[self._offset : self._chunk_end()])
            except BlockingIOError:
                if left <= 0:
                    return False
                time.sleep(min(BUSY_PAUSE, left))
            except OSError as error:
                self._refuse(error)
                return True
            else:
                self._advance(written)
        return True

    def close(self) -> None:
        """Forgets what is waiting, which stays in the ledger as such. The descriptor is not ours to close."""
        self._pending = b""
        self._offset = 0

    def _chunk_end(self) -> int:
        """The end of as many whole lines as fit into one write, or of a piece of a line that alone is too long."""
        end = self._pending.rfind(b"\n", self._offset, self._offset + self._chunk) + 1
        return end or self._offset + self._chunk

    def _advance(self, written: int) -> None:
        start, self._offset = self._offset, self._offset + written
        # Usually all of it went. Counting lines is a walk over every byte.
        whole = self._offset == len(self._pending)
        delivered = self.counts.waiting if whole else self._pending.count(b"\n", start, self._offset)
        self.counts.delivered += delivered
        self.counts.waiting -= delivered
        self._mid_line = self._pending[self._offset - 1] != _NEWLINE
        if self._failing:
            self._failing = False
            self._log.warning("sink_works_again", sink=self.name, refused=self.counts.refused)

    def _refuse(self, error: OSError) -> None:
        """Gives up what is waiting. The rest of a line already begun stays, so that lines remain whole."""
        kept = b""
        if error.errno in GONE:
            self._gone = True
        elif self._mid_line:
            kept = self._pending[self._offset : self._pending.index(b"\n", self._offset) + 1]
        if self._gone or not self._failing:
            reason = os.strerror(error.errno or 0)
            self._log.error("sink_closed" if self._gone else "sink_failing", sink=self.name, reason=reason)
        self._failing = True
        waiting = kept.count(b"\n")
        self.counts.refused += self.counts.waiting - waiting
        self.counts.waiting = waiting
        self._pending = kept
        self._offset = 0
