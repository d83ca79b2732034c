"""Changing a configuration's text: one [[peers]] table in or out, every other line kept as its writer left it.

It works on lines and not through a TOML writer: writers count the comment above a table as part of the table before,
so that adding a peer pushes it below the heading of the next section, and removing one takes that heading along. Each
result is read back and compared with what was meant before anybody gets it.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from fzgw._core import toml_lines

TomlValue = str | int | tuple[str, ...]


class EditError(Exception):
    """The text is written in a way this module does not change; `str()` says what to do."""


def with_peer(text: str, peer: Mapping[str, TomlValue]) -> str:
    """`text` with `peer` as a further [[peers]] table, behind the last one or at the end. Raises EditError."""
    before = tomllib.loads(text)
    lines = _split(text)
    newline = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    count = _peer_count(before)
    at = _own_lines(text, lines, count - 1)[1] if count else len(lines)
    above, below = lines[:at], lines[at:]
    if above and not above[-1].endswith("\n"):
        above[-1] += newline
    table = ["[[peers]]", *(f"{key} = {_toml(value)}" for key, value in peer.items())]
    block = [line + newline for line in table]
    if above and above[-1].strip():
        block.insert(0, newline)
    if below and below[0].strip():
        block.append(newline)
    result = "".join([*above, *block, *below])
    after = {**before, "peers": [*before.get("peers", []), _plain(peer)]}
    return _verified(result, after)


def without_peer(text: str, position: int) -> str:
    """`text` without the [[peers]] table at `position`, and without the comments inside it. A comment block right
    above a table is that table's own; one apart from it by an empty line stays. Raises EditError."""
    before = tomllib.loads(text)
    lines = _split(text)
    start, end = _own_lines(text, lines, position)
    while start > 0 and _is_comment(lines[start - 1]):
        start -= 1
    above, below = lines[:start], lines[end:]
    # The empty lines that stood on both sides of it would now stand together.
    while below and not below[0].strip() and (not above or not above[-1].strip()):
        below.pop(0)
    remaining = [peer for index, peer in enumerate(before["peers"]) if index != position]
    after = {**before, "peers": remaining}
    if not remaining:
        del after["peers"]
    return _verified("".join([*above, *below]), after)


def _peer_count(data: Mapping[str, Any]) -> int:
    return len(data.get("peers", []))


def _own_lines(text: str, lines: list[str], position: int) -> tuple[int, int]:
    """The lines of the peer at `position`, as a range of indices: from its header to its last key, and the comments
    that follow it without an empty line between."""
    places = toml_lines(text)
    header = places.get(("peers", position), 0) - 1
    if header < 0 or not lines[header].lstrip().startswith("[["):
        raise EditError("the peers are written as one list; this command needs each as a [[peers]] table of its own")
    following = [line - 1 for path, line in places.items() if line - 1 > header and path[:2] != ("peers", position)]
    limit = min(following, default=len(lines))
    while following and _is_comment(lines[limit - 1]):
        limit -= 1
    end = 1 + max(index for index in range(header, limit) if _is_content(lines[index]))
    while end < limit and _is_comment(lines[end]):
        end += 1
    return header, end


def _split(text: str) -> list[str]:
    """Lines with their ends, as TOML counts them; str.splitlines knows more line ends than TOML."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _is_content(line: str) -> bool:
    return bool(line.strip()) and not _is_comment(line)


def _verified(text: str, meant: Mapping[str, Any]) -> str:
    try:
        matches = tomllib.loads(text) == meant
    except tomllib.TOMLDecodeError:
        matches = False
    if not matches:
        raise EditError("the peers are written in a way this command cannot change; edit the file by hand")
    return text


def _toml(value: TomlValue) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's strings are TOML's basic strings, but for DEL, which no name may hold.
    return json.dumps(value, ensure_ascii=False)


def _plain(peer: Mapping[str, TomlValue]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in peer.items()}
