"""What handlers said of records: on the record itself, and what sticks to its flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fzgw import logs
from fzgw.actions import Action, Annotate, Value, merged


@dataclass(frozen=True, slots=True)
class Remarks:
    """What `fzgw._core.Batch.render` puts on a record's line, or that it has none."""

    handler_error: str | None = None
    annotations: Sequence[tuple[str, Value]] = ()
    omit: bool = False


@dataclass(frozen=True, slots=True)
class _Stuck:
    annotations: Mapping[str, Value] = field(default_factory=dict)
    omit: bool = False


_NOTHING = _Stuck()
_OMITTED = _Stuck(omit=True)
"""Shared by all flows that have no more to them: there may be a million."""


class FlowRemarks:
    """What sticks to flows, by their `uid`, until their close record.

    `max_flows` is how many flows can be open. Something sticks to twice as many at most: close records may be on their
    way, and one that the engine had to give up never comes. Beyond that the oldest is forgotten.
    """

    def __init__(self, max_flows: int) -> None:
        self.max_flows = max_flows
        self._flows: dict[str, _Stuck] = {}
        self._forgotten = 0
        self._log = logs.get_logger()

    def __bool__(self) -> bool:
        return bool(self._flows)

    def stick(self, action: Action) -> None:
        """Carries an action out. Raises ValueError where the flow has too many annotations for one more."""
        stuck = self._flows.get(action.uid, _NOTHING)
        if isinstance(action, Annotate):
            stuck = _Stuck(merged(stuck.annotations, action.fields), stuck.omit)
        else:
            stuck = _Stuck(stuck.annotations, omit=True) if stuck.annotations else _OMITTED
        if action.uid not in self._flows and len(self._flows) >= 2 * self.max_flows:
            self._forget_oldest()
        self._flows[action.uid] = stuck

    def on(self, uid: str, *, last: bool, error: str | None) -> Remarks | None:
        """What a record of this flow is told; None: nothing. With its `last` record the flow is forgotten."""
        stuck = self._flows.pop(uid, None) if last else self._flows.get(uid)
        if stuck is None:
            return None if error is None else Remarks(error)
        return Remarks(error, tuple(stuck.annotations.items()), stuck.omit)

    def stats(self) -> dict[str, int]:
        """`flows` that something sticks to now, and `forgotten` ones: of those no close record was seen in time."""
        return {"flows": len(self._flows), "forgotten": self._forgotten}

    def _forget_oldest(self) -> None:
        del self._flows[next(iter(self._flows))]
        self._forgotten += 1
        if self._forgotten == 1:
            self._log.warning("flow_remarks_forgotten", most=2 * self.max_flows)
