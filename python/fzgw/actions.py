"""What a flow handler may answer: `annotate` and `omit`.

An action is a value. Nothing happens when it is made; the `HandlerSet` that called the handler carries it out, live and
in a replay alike. Both are about the flow that the handler was called with, and stick to it: this record and every
later one of the flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fzgw._core import Flow

Value = bool | int | float | str
"""What an annotation can be: a JSON scalar."""

MOST_ANNOTATIONS = 32
"""Annotations that a flow can have."""

MOST_BYTES = 4096
"""Bytes of a flow's annotations, names and texts in UTF-8: a record's size is not the handler's to choose."""

_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Annotate:
    """Notes these on the flow: made by `annotate`."""

    uid: str
    """The flow's `uid`."""
    fields: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Omit:
    """Keeps the flow out of the log: made by `omit`."""

    uid: str
    """The flow's `uid`."""


Action = Annotate | Omit
"""Whatever a handler may return, alone or in a list."""


def annotate(flow: Flow, **fields: Value) -> Annotate:
    """Notes fields on the flow's records from this one on: `return fzgw.annotate(flow, ticket="NET-7")`.

    They stand under `unmapped.annotations` in OCSF, `fzgw.annotations` in ECS and `fzgw_annotations` in Zeek's form. A
    later value of the same name replaces the earlier one. From `on_open` they are on every record of the flow.

    Raises TypeError for a value that is no str, int, float or bool, ValueError for one that JSON cannot hold, and for
    more than 32 fields or 4096 bytes.
    """
    if not fields:
        raise TypeError("annotate() needs a field: fzgw.annotate(flow, ticket='NET-7')")
    for name, value in fields.items():
        _check_value(name, value)
    _check_size(fields)
    return Annotate(flow.uid, fields)


def omit(flow: Flow) -> Omit:
    """Keeps the flow's records out of every sink, from this one on; from `on_open` all of them. They stay in the books,
    as `omitted`, and no later handler misses them: the others of the batch still see the flow."""
    return Omit(flow.uid)


def merged(before: Mapping[str, Value], fields: Mapping[str, Value]) -> dict[str, Value]:
    """A flow's annotations with more of them. Raises ValueError where they are too many together."""
    both = {**before, **fields}
    _check_size(both)
    return both


def actions_of(answer: object) -> list[Action] | None:
    """The actions that a handler returned: none, one, or a list or tuple of them. None when it is something else."""
    if answer is None:
        return []
    if isinstance(answer, Action):
        return [answer]
    if isinstance(answer, list | tuple) and all(isinstance(one, Action) for one in answer):
        return list(answer)
    return None


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, Value):
        kind = type(value).__name__
        raise TypeError(f"annotate(): {name} is of type {kind}; a str, int, float or bool can be noted")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"annotate(): {name} is {value}, which JSON cannot hold")
    if isinstance(value, int) and value not in _INT64:
        raise ValueError(f"annotate(): {name} does not fit into 64 bits")


def _check_size(fields: Mapping[str, Value]) -> None:
    if len(fields) > MOST_ANNOTATIONS:
        raise ValueError(f"annotate(): {len(fields)} fields on one flow; {MOST_ANNOTATIONS} is the most")
    size = sum(_bytes(name) + (_bytes(value) if isinstance(value, str) else 0) for name, value in fields.items())
    if size > MOST_BYTES:
        raise ValueError(f"annotate(): {size} bytes on one flow; {MOST_BYTES} is the most")


def _bytes(text: str) -> int:
    """Its length in UTF-8. Raises ValueError where it has none: a lone surrogate."""
    return len(text.encode())
