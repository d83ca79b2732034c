"""How the demo shows what it sees: a table on a terminal, plain rows elsewhere, OCSF lines with `--json`.

Records are the only thing on stdout where it is no terminal; all else goes to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from fzgw.demo.ledgers import Equation
from fzgw.demo.records import FlowRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLUMNS: Final = ("peer", "user", "flow", "verdict", "rule", "out", "in", "seconds", "from", "end")
# Of the plain rows, in characters; the last column ends where it ends.
_WIDTHS: Final = (6, 5, 42, 7, 13, 10, 10, 7, 29, 0)
_NUMBERS: Final = frozenset({"out", "in", "seconds"})

# What a terminal of 80 characters has room for, and the width from which on there is room for all.
_NARROW: Final = ("peer", "flow", "verdict", "out", "in", "from", "end")
_WIDE_FROM: Final = 145


class View(Protocol):
    """Shows one run; a context manager, so that a terminal is left as it was."""

    def __enter__(self) -> View: ...

    def __exit__(self, *exception: object) -> None: ...

    def step(self, title: str) -> None:
        """Something begins."""

    def record(self, line: bytes, row: FlowRow | None) -> None:
        """A record arrived; `row` is None for what is no flow record."""

    def ledgers(self, equations: Sequence[Equation]) -> None:
        """The books at the end."""


def choose(*, as_json: bool) -> View:
    """The view for `--json`, for a terminal, or for a pipe."""
    if as_json:
        return JsonView()
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        if not console.is_dumb_terminal:
            return TableView(console)
    return PlainView()


class JsonView:
    """The gateway's own lines on stdout, untouched and as they come."""

    def __enter__(self) -> JsonView:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to leave in order."""

    def step(self, title: str) -> None:
        """On stderr."""
        _to_stderr(title)

    def record(self, line: bytes, row: FlowRow | None) -> None:
        """The line itself."""
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    def ledgers(self, equations: Sequence[Equation]) -> None:
        """On stderr."""
        for equation in equations:
            _to_stderr(str(equation))


class PlainView:
    """Close records as rows of text, a heading above the first."""

    def __init__(self) -> None:
        self._headed = False

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to leave in order."""

    def step(self, title: str) -> None:
        """On stderr."""
        _to_stderr(title)

    def record(self, line: bytes, row: FlowRow | None) -> None:
        """One row for a flow that ended."""
        if row is None or row.activity != "close":
            return
        if not self._headed:
            self._headed = True
            print(_plain(_COLUMNS))
        print(_plain(_cells(row)), flush=True)

    def ledgers(self, equations: Sequence[Equation]) -> None:
        """One line an equation."""
        print()
        for equation in equations:
            print(equation, flush=True)


class TableView:
    """A table that grows by one row for each flow that ended; the step under way is its caption."""

    def __init__(self, console: Console) -> None:
        # rich takes its time to import, and only terminals need it.
        from rich.live import Live

        self._console = console
        self._columns = _COLUMNS if console.width >= _WIDE_FROM else _NARROW
        self._table = _table("Flows, as they close")
        for name in self._columns:
            self._table.add_column(name, justify="right" if name in _NUMBERS else "left")
        self._live = Live(self._table, console=console, vertical_overflow="visible")

    def __enter__(self) -> TableView:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def step(self, title: str) -> None:
        """As the caption."""
        self._table.caption = f"{title} …"
        self._live.refresh()

    def record(self, line: bytes, row: FlowRow | None) -> None:
        """One row for a flow that ended."""
        if row is None or row.activity != "close":
            return
        cells = dict(zip(_COLUMNS, _cells(row), strict=True))
        if self._columns is _NARROW:
            # Without the initiator's address, which is the peer's; addresses of a peer that roamed stand in two lines.
            cells["flow"] = f"{row.protocol_name} {_responder(row)}"
            cells["from"] = cells["from"].replace(" → ", " →\n")
        style = "red" if row.verdict == "deny" else "magenta" if len(row.paths) > 1 else None
        self._table.add_row(*(cells[name] for name in self._columns), style=style)
        self._live.refresh()

    def ledgers(self, equations: Sequence[Equation]) -> None:
        """A second table below the first, which ends here."""
        self._end()
        table = _table("The books")
        for name in ("ledger", "unit", "equation", ""):
            table.add_column(name)
        for equation in equations:
            mark = "[green]balanced[/]" if equation.balanced else "[bold red]NOT BALANCED[/]"
            table.add_row(equation.name, equation.unit, equation.text, mark)
        self._console.print()
        self._console.print(table)

    def _end(self) -> None:
        self._table.caption = None
        self._live.stop()


def _table(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)


def _cells(row: FlowRow) -> tuple[str, ...]:
    denied = row.verdict == "deny"
    initiator = f"{_end(row.src_ip, row.src_port)} → " if row.src_ip else ""
    return (
        row.peer,
        row.user,
        f"{row.protocol_name} {initiator}{_responder(row)}",
        row.verdict,
        row.rule,
        f"{row.attempts} tried" if denied else _bytes(row.bytes_out),
        "" if denied else _bytes(row.bytes_in),
        f"{row.duration:.3f}",
        " → ".join(path.rpartition(":")[0] for path in row.paths),
        row.end_reason,
    )


def _responder(row: FlowRow) -> str:
    return _end(row.domain or row.dst_ip, row.dst_port)


def _end(host: str, port: int) -> str:
    return f"{host}:{port}" if port else host


def _bytes(count: int) -> str:
    """In the unit that leaves at least one digit before the point."""
    if count < 1024:
        return f"{count} B"
    if count < 1024**2:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 1024**2:.2f} MiB"


def _plain(cells: Sequence[str]) -> str:
    aligned = (
        cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
        for name, cell, width in zip(_COLUMNS, cells, _WIDTHS, strict=True)
    )
    return "  ".join(aligned).rstrip()


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
