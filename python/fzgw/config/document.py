"""A configuration as written: its values, and where each of them stands."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fzgw._core import toml_lines
from fzgw.config.errors import ConfigErrors, ConfigProblem, KeyPath, Level, dotted

_OVERRIDE_KEY = re.compile(r"[A-Za-z0-9_-]+(\[\d+\])*(\.[A-Za-z0-9_-]+(\[\d+\])*)*")
_CORE_SYNTAX_PLACE = re.compile(r"^line (\d+): ")
_SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Document:
    """The values of a TOML text with overrides applied. Lists are tuples, so that nothing changes them afterwards.

    Raises ConfigErrors for a syntax error (that one alone: behind it nothing can be trusted). What is wrong with the
    overrides is in `problems`, beside whatever validation finds.
    """

    def __init__(self, text: str, path: Path, overrides: Sequence[str] = ()) -> None:
        self.path = path
        self.problems: list[ConfigProblem] = []
        self._origins: dict[KeyPath, str] = {}
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigErrors([_syntax_error(str(error), text, path)]) from None
        try:
            self._lines: Mapping[KeyPath, int] = toml_lines(text)
        except ValueError as error:
            # The two parsers differ at the edges: this one has 64-bit integers and a limit to nesting.
            raise ConfigErrors([_core_syntax_error(str(error), path)]) from None
        for override in overrides:
            self._apply(data, override)
        self.data: dict[str, Any] = {key: _frozen(value) for key, value in data.items()}

    @property
    def overridden(self) -> list[KeyPath]:
        """The keys that overrides have set."""
        return list(self._origins)

    def problem(self, key: KeyPath, message: str, level: Level = "error") -> ConfigProblem:
        """A problem at `key`, with its line or the override it came from."""
        for length in range(len(key), 0, -1):
            origin = self._origins.get(key[:length])
            if origin is not None:
                return ConfigProblem(origin, None, dotted(key), message, level)
        return ConfigProblem(str(self.path), self.line(key), dotted(key), message, level)

    def line(self, key: KeyPath) -> int | None:
        """The line of `key` in the file, or of the nearest table or value around it."""
        for length in range(len(key), 0, -1):
            line = self._lines.get(key[:length])
            if line is not None:
                return line
        return None

    def place(self, key: KeyPath) -> str:
        """`key` with its line, for messages that point from one place to another."""
        line = self.line(key)
        return dotted(key) if line is None else f"{dotted(key)} (line {line})"

    def tables(self, name: str) -> list[tuple[int, dict[str, Any]]]:
        """The tables of array `name` with their positions, without whatever else stands there by mistake."""
        found = self.data.get(name)
        items = found if isinstance(found, tuple) else ()
        return [(position, item) for position, item in enumerate(items) if isinstance(item, dict)]

    def table(self, name: str) -> dict[str, Any]:
        """Table `name`, empty when it is not there or no table."""
        found = self.data.get(name)
        return found if isinstance(found, dict) else {}

    def _apply(self, data: dict[str, Any], override: str) -> None:
        origin = f"--set {override}"
        key_text, equals, value_text = override.partition("=")
        key_text = key_text.strip()
        if not equals or not _OVERRIDE_KEY.fullmatch(key_text):
            self.problems.append(
                ConfigProblem(origin, None, "", "should be a key and a value, such as flow_logs.idle.tcp=300s")
            )
            return
        key: KeyPath = tuple(
            int(part) if part.isdecimal() and bracket else part
            for bracket, part in re.findall(r"(\[)?([A-Za-z0-9_-]+)\]?", key_text)
        )
        try:
            _put(data, key, _toml_value(value_text.strip()))
        except LookupError as error:
            self.problems.append(ConfigProblem(origin, None, dotted(key), str(error.args[0])))
            return
        # A later override of a table replaces what earlier ones said inside it.
        self._origins = {path: text for path, text in self._origins.items() if path[: len(key)] != key}
        self._origins[key] = origin


def _put(data: dict[str, Any], key: KeyPath, value: object) -> None:
    """Sets `key`, with the tables that are missing on its way; LookupError says why it cannot be set."""
    node: Any = data
    for position, part in enumerate(key):
        here, rest = dotted(key[:position]), key[position + 1 :]
        if isinstance(part, int):
            if not isinstance(node, list):
                raise LookupError(f"{here} is not a list")
            if part >= len(node):
                raise LookupError(f"{here} has {len(node)} entries, counted from 0")
        elif not isinstance(node, dict):
            raise LookupError(f"{here} is not a table")
        elif rest and part not in node:
            node[part] = _nested(key, position + 1, value)
            return
        if not rest:
            node[part] = value
        node = node[part]


def _nested(key: KeyPath, position: int, value: object) -> object:
    """`value` in the tables that `key` names from `position` on."""
    for index in range(len(key) - 1, position - 1, -1):
        part = key[index]
        if isinstance(part, int):
            raise LookupError(f"there is no {dotted(key[:index])}")
        value = {part: value}
    return value


def _toml_value(text: str) -> object:
    """`text` as a TOML value, else as the text it is: ``300s`` needs no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def _frozen(value: Any) -> Any:
    match value:
        case dict():
            return {key: _frozen(item) for key, item in value.items()}
        case list():
            return tuple(_frozen(item) for item in value)
        case _:
            return value


def _syntax_error(message: str, text: str, path: Path) -> ConfigProblem:
    found = _SYNTAX_PLACE.search(message)
    if found is None:
        return ConfigProblem(str(path), None, "", f"TOML syntax: {message}")
    line = int(found[1]) if found[1] else text.rstrip().count("\n") + 1
    return ConfigProblem(str(path), line, "", f"TOML syntax: {message[: found.start()]}")


def _core_syntax_error(message: str, path: Path) -> ConfigProblem:
    found = _CORE_SYNTAX_PLACE.match(message)
    line = int(found[1]) if found else None
    return ConfigProblem(str(path), line, "", f"TOML syntax: {_CORE_SYNTAX_PLACE.sub('', message)}")
