"""What is wrong with a configuration, and where."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "info"]

KeyPath = tuple[str | int, ...]
"""A key as TOML nests it: ``("peers", 0, "public_key")``."""


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing that is wrong (`level` "error"), risky ("warning") or worth knowing ("info").

    `str()` is one line: ``gateway.toml:12: peers[0].public_key: what was meant``.
    """

    file: str
    """The file as it was named to `load`, or the override it came from: ``--set flow_logs.idle.tcp=300s``."""
    line: int | None
    """Counted from 1; None for an override, a missing table, or a file that cannot be read."""
    key: str
    """Dotted, with list positions: ``peers[0].public_key``; empty when the file as a whole is meant."""
    message: str
    level: Level = "error"

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return _one_line(": ".join(part for part in (place, self.key, self.message) if part))


class ConfigErrors(Exception):  # noqa: N818  (it holds all of them)
    """The configuration cannot be used. `errors` holds everything that is wrong; `str()` has one line for each."""

    def __init__(self, errors: Iterable[ConfigProblem]) -> None:
        self.errors: tuple[ConfigProblem, ...] = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))


def dotted(path: KeyPath) -> str:
    """``("peers", 0, "name")`` as people write it: ``peers[0].name``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _one_line(text: str) -> str:
    """What a file says may hold line ends and worse: a terminal gets to see them as escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
