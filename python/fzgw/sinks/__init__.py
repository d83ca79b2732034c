"""Where flow records go. One file a sink; what all have in common is the `Sink` protocol.

A sink keeps its books (L3): every record that was rendered is delivered, waiting or refused, and can be asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass
class SinkCounts:
    """A sink's ledger, in records: `rendered = delivered + waiting + refused` (L3)."""

    rendered: int = 0
    """Given to the sink."""
    delivered: int = 0
    """Written, whole."""
    waiting: int = 0
    """Taken, not yet written."""
    refused: int = 0
    """Could not be written and will not be."""

    def balanced(self) -> bool:
        """Whether the ledger holds."""
        return self.rendered == self.delivered + self.waiting + self.refused


class SinkError(Exception):
    """A sink that cannot be opened. `str()` is one clear line."""


class Sink(Protocol):
    """A receiver of rendered records. A sink that fails says so once in the log and counts; it never raises after
    `open`, and never holds the gateway up."""

    name: str
    """Its name in the configuration, the log and the ledgers."""
    counts: SinkCounts

    def open(self) -> None:
        """Gets ready. Raises `SinkError`."""

    def write(self, lines: bytes, records: int) -> None:
        """Takes so many records: whole lines, one each, every one ended by a newline. Never waits."""

    def flush(self, timeout: float) -> bool:
        """Passes on what is waiting, for at most `timeout` seconds. False when the receiver was too slow for all of
        it: more time would help."""

    def close(self) -> None:
        """Lets go. Never waits: flush before it."""
