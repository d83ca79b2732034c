"""Flow handlers: the user's Python, called with what the gateway saw.

The walk: `load_handlers` turns `file.py:name` into callables, with one clear line for whatever can be wrong with
them; a `HandlerSet` shows them every batch that comes from the engine, the opened flows first, then update and close
records in their order. What handlers answer is carried out (`fzgw.actions`) and becomes `Remarks` on records. A handler
can fail without harm: the record goes on with the text of the error, and a handler that only fails is left alone for a
minute.

A plain function sees each close record; a `FlowHandler` sees what it defines. Open records (R18) are shown to nobody:
`on_open` has told of the flow when it opened.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from fzgw import logs
from fzgw.actions import Action, actions_of
from fzgw.remarks import FlowRemarks, Remarks

if TYPE_CHECKING:
    from fzgw._core import Flow

    Answer = Action | Sequence[Action] | None

HOOKS = ("on_open", "on_update", "on_close")
"""The hooks of a `FlowHandler`: a public method that begins with `on_` is one of these or a mistake."""

_THE_HOOKS = f"the hooks are {', '.join(HOOKS[:-1])} and {HOOKS[-1]}"

_THE_ANSWERS = "a handler returns None, an action such as fzgw.annotate(flow, ticket='NET-7'), or a list of actions"

_HOOK_LETTERS = frozenset(hook.replace("_", "") for hook in HOOKS)

MAX_FLOWS = 1_000_000
"""Flows that can be open at a time, as the configuration has it by default."""

ERRORS_IN_A_ROW = 10
"""After so many errors without a success between them a handler is suspended."""

SUSPENSION = 60.0
"""Seconds that a suspended handler is not called."""

ERROR_LOG_INTERVAL = 10.0
"""Seconds between two log lines about errors of the same handler: the records carry each of them anyway."""

ERROR_TEXT_LIMIT = 500
"""Characters of an error's text on a record: the text is the handler's to choose, the record's size is not."""


class HandlerError(Exception):
    """A handler that cannot be loaded. `str()` is one line that names the handler, what is wrong, and where."""


class FlowHandler:
    """The base class of handlers that see more than close records. Define the hooks you want, and only those.

    A hook returns nothing, an action such as `fzgw.annotate(flow, …)`, or a list of them.

    A public method that begins with `on_` and is no hook, or a hook that cannot be called with one flow, is a
    `TypeError` when the class is defined, not a hook that is never called.
    """

    def on_open(self, flow: Flow) -> Answer:
        """A flow opened just now, whatever `flow_logs.open_after` says. An event, not a record (R18): `flow.number`
        and `flow.delta` say nothing yet."""

    def on_update(self, flow: Flow) -> Answer:
        """A flow goes on: an update record, every `flow_logs.update_every` while there is traffic (R19). Its counts are
        those since the flow began; `flow.delta` has those since the record before."""

    def on_close(self, flow: Flow) -> Answer:
        """A flow ended: its close record, with the totals of the whole flow. Called once for each."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in dir(cls):
            if name in HOOKS:
                _check_hook(cls, name)
            elif _meant_as_hook(name) and callable(getattr(cls, name)):
                raise TypeError(f"{cls.__name__}.{name} is not a hook of fzgw.FlowHandler: {_known_hooks(name)}")


@dataclass(frozen=True, slots=True)
class Hook:
    """Something to call with a flow, and its name in logs and records: `Night.on_close`, or `big_upload`."""

    name: str
    call: Callable[[Flow], object]


@dataclass(frozen=True)
class LoadedHandler:
    """A handler, ready to be called: its name, and its hooks (None: not defined)."""

    name: str
    on_open: Hook | None
    on_update: Hook | None
    on_close: Hook | None


class HandledBatch(Protocol):
    """What a `HandlerSet` reads of `fzgw._core.Batch`: the open events, and the records in their order."""

    @property
    def opened(self) -> Sequence[Flow]:
        """The flows that opened since the batch before."""

    def __iter__(self) -> Iterator[Any]:
        """The records: flows, and gaps and notes that no handler sees."""


def load_handler(spec: str, *, base: Path, modules: dict[Path, ModuleType] | None = None) -> LoadedHandler:
    """Loads `file.py:name`, the file relative to `base`.

    `name` is a function that takes a flow, a class (made without arguments) or an instance. `modules` are the files
    already imported in this round: handlers of one file share its module.

    Raises `HandlerError` for everything that can be wrong, the user's own exceptions included.
    """
    file, separator, name = spec.rpartition(":")
    if not separator or not file or not name.isidentifier():
        raise HandlerError(f"handler {spec!r}: write it as file.py:name")

    modules = {} if modules is None else modules
    path = (base / file).resolve()
    if path not in modules:
        modules[path] = _import_file(path, spec)
    module = modules[path]

    if name not in vars(module):
        raise HandlerError(f"handler {spec}: {file} has no {name!r}{_candidates(module, name)}")
    found = vars(module)[name]
    if isinstance(found, type):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise HandlerError(f"handler {spec}: cannot make {name}(): {_blame(error, path)}") from error
    try:
        return as_handler(found, name)
    except HandlerError as error:
        raise HandlerError(f"handler {spec}: {error}") from None


def as_handler(found: object, name: str) -> LoadedHandler:
    """A function that takes a flow, or an instance of a `FlowHandler`, under the name that logs and records give it.

    Raises `HandlerError` when it is neither.
    """
    if isinstance(found, FlowHandler):
        hooks = [_defined(found, name, hook) for hook in HOOKS]
        if not any(hooks):
            raise HandlerError(f"{name} defines no hook: {_THE_HOOKS}")
        return LoadedHandler(name, *hooks)

    if not callable(found):
        hint = " (a class of hooks is a subclass of fzgw.FlowHandler)" if _has_hooks(found) else ""
        raise HandlerError(f"{name} is {_article(found)}, neither a function nor a FlowHandler{hint}")
    problem = _call_problem(found, ("flow",))
    if problem:
        raise HandlerError(f"{name}{problem}")
    return LoadedHandler(name, on_open=None, on_update=None, on_close=Hook(name, found))


def load_handlers(
    specs: Iterable[tuple[str, Path]], *, max_flows: int = MAX_FLOWS, clock: Callable[[], float] = time.monotonic
) -> HandlerSet:
    """Loads handlers in their order, each given as (`file.py:name`, folder that the file is relative to).

    `max_flows` is how many flows can be open at a time.

    Every file is imported freshly, once a call; what it imports itself stays as it is in this process. Raises
    `HandlerError` at the first that cannot be loaded, and then nothing of this call is left behind.
    """
    modules: dict[Path, ModuleType] = {}
    try:
        loaded = [load_handler(spec, base=base, modules=modules) for spec, base in specs]
    except HandlerError:
        _forget(module.__name__ for module in modules.values())
        raise
    handlers = HandlerSet(loaded, max_flows=max_flows, clock=clock)
    weakref.finalize(handlers, _forget, [module.__name__ for module in modules.values()])
    return handlers


class HandlerSet:
    """The handlers of one configuration, run on each batch in the order in which they were given.

    `max_flows` is how many flows can be open at a time: it bounds what handlers can make stick to flows. `clock` gives
    monotonic seconds; only the suspension of failing handlers looks at it.
    """

    def __init__(
        self,
        handlers: Sequence[LoadedHandler] = (),
        *,
        max_flows: int = MAX_FLOWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._remarks = FlowRemarks(max_flows)
        runs = [(handler, _Run(handler.name)) for handler in handlers]
        self._runs = [run for _, run in runs]
        self._on_open = [(handler.on_open, run) for handler, run in runs if handler.on_open is not None]
        self._on_update = [(handler.on_update, run) for handler, run in runs if handler.on_update is not None]
        self._on_close = [(handler.on_close, run) for handler, run in runs if handler.on_close is not None]

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def wants_open(self) -> bool:
        """Whether any handler defines `on_open`: only then does the engine make open events."""
        return bool(self._on_open)

    @property
    def wants_update(self) -> bool:
        """Whether any handler defines `on_update`."""
        return bool(self._on_update)

    def inherit(self, before: HandlerSet) -> None:
        """Takes over what an earlier set's handlers have said of flows that are still open."""
        max_flows = self._remarks.max_flows
        self._remarks = before._remarks
        self._remarks.max_flows = max_flows

    def run(self, batch: HandledBatch) -> dict[int, Remarks]:
        """Shows a batch to the handlers; returns what is to be said of records, by their index in the batch.

        Errors of `on_open` are counted and logged alone: there is no record yet that could carry them.
        """
        now = self._clock()
        for run in self._runs:
            run.resume(now)

        if self._on_open:
            for flow in batch.opened:
                for hook, run in self._on_open:
                    run.call(hook, flow, self._remarks, now)

        on_update, on_close = self._on_update, self._on_close
        if on_update or on_close or self._remarks:
            return dict(self._run_records(batch, now))
        return {}

    def _run_records(self, batch: HandledBatch, now: float) -> Iterator[tuple[int, Remarks]]:
        for index, record in enumerate(batch):
            activity = getattr(record, "activity", None)  # gaps and notes have none
            if activity is None:
                continue
            hooks = self._on_close if activity == "close" else self._on_update if activity == "update" else ()
            errors = [text for hook, run in hooks if (text := run.call(hook, record, self._remarks, now)) is not None]
            if errors or self._remarks:
                said = self._remarks.on(record.uid, last=activity == "close", error="; ".join(errors) or None)
                if said is not None:
                    yield index, said

    def stats(self) -> list[dict[str, str | int | bool]]:
        """Per handler, in order: name, calls, errors, actions that it returned, skipped (suspended), and whether it is
        suspended."""
        return [run.stats() for run in self._runs]

    def remark_stats(self) -> dict[str, int]:
        """`flows` that annotations or omissions stick to, and those `forgotten` before they closed."""
        return self._remarks.stats()


class _Run:
    """What has become of one handler so far. Its hooks share it: a suspension is of the handler."""

    __slots__ = (
        "_actions",
        "_calls",
        "_errors",
        "_in_a_row",
        "_last_logged",
        "_log",
        "_name",
        "_skipped",
        "_suspended_until",
    )

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls = 0
        self._errors = 0
        self._actions = 0
        self._skipped = 0
        self._in_a_row = 0
        self._suspended_until: float | None = None
        self._last_logged: float | None = None
        self._log = logs.get_logger()

    def call(self, hook: Hook, flow: Flow, remarks: FlowRemarks, now: float) -> str | None:
        """Calls a hook and carries out what it answers; returns the text of its error."""
        if self._suspended_until is not None:
            self._skipped += 1
            return None
        self._calls += 1
        try:
            answer = hook.call(flow)
            if answer is not None:
                self._carry_out(answer, flow, remarks)
        except ShutdownCut:
            raise
        # Whatever the user's code raises is its own failure. SystemExit and KeyboardInterrupt too: the gateway takes
        # Ctrl-C as a signal, so that one raised here was raised by the handler and must not end forwarding.
        except BaseException as error:  # noqa: BLE001 - the comment above
            return self._failed(hook.name, error, now)
        self._in_a_row = 0
        return None

    def resume(self, now: float) -> None:
        """Ends a suspension whose time is over."""
        if self._suspended_until is None or now < self._suspended_until:
            return
        self._suspended_until = None
        self._in_a_row = 0
        self._log.warning("handler_resumed", handler=self._name, skipped=self._skipped)

    def stats(self) -> dict[str, str | int | bool]:
        return {
            "name": self._name,
            "calls": self._calls,
            "errors": self._errors,
            "actions": self._actions,
            "skipped": self._skipped,
            "suspended": self._suspended_until is not None,
        }

    def _failed(self, hook: str, error: BaseException, now: float) -> str:
        self._errors += 1
        self._in_a_row += 1
        text = _printable(f"{hook}: {_describe(error)}")[:ERROR_TEXT_LIMIT]
        if self._last_logged is None or now - self._last_logged >= ERROR_LOG_INTERVAL:
            self._last_logged = now
            self._log.error("handler_error", error=text, at=_raised_at(error.__traceback__), errors=self._errors)
        if self._in_a_row >= ERRORS_IN_A_ROW:
            self._suspended_until = now + SUSPENSION
            self._log.error("handler_suspended", handler=self._name, seconds=SUSPENSION, last_error=text)
        return text

    def _carry_out(self, answer: object, flow: Flow, remarks: FlowRemarks) -> None:
        """Raises TypeError for what is no action on this flow, ValueError for an annotation too many."""
        actions = actions_of(answer)
        if actions is None:
            raise TypeError(f"returned {type(answer).__name__}: {_THE_ANSWERS}")
        if any(action.uid != flow.uid for action in actions):
            raise TypeError("returned an action on another flow than the one it was called with")
        for action in actions:
            remarks.stick(action)
            self._actions += 1


class ShutdownCut(BaseException):
    """Raised into a handler that holds up a shutdown; the one exception that a `HandlerSet` lets through."""


def _meant_as_hook(name: str) -> bool:
    if name.startswith("_"):
        return False
    return name.startswith("on_") or name.lower().replace("_", "") in _HOOK_LETTERS


def _known_hooks(name: str) -> str:
    nearest = _nearest(name, HOOKS)
    meant = f"did you mean {nearest[0]}? " if nearest else ""
    return f"{meant}{_THE_HOOKS}"


def _check_hook(cls: type, name: str) -> None:
    hook = getattr(cls, name)
    if not callable(hook):
        raise TypeError(f"{cls.__name__}.{name} is a hook and must be a method, not {_article(hook)}")
    static = inspect.getattr_static(cls, name)
    # What binds to the instance takes the handler too; what does not (or already has) takes the flow alone.
    is_method = hasattr(type(static), "__get__") and not isinstance(static, staticmethod | classmethod)
    problem = _call_problem(hook, ("self", "flow") if is_method else ("flow",))
    if problem:
        raise TypeError(f"{cls.__name__}.{name}{problem}")


def _call_problem(function: Callable[..., object], arguments: tuple[str, ...]) -> str | None:
    """Why a function cannot be called with these arguments (and do its work at once), to be read after its name."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return " is async: a handler is a plain function, called once for a flow"
    if inspect.isgeneratorfunction(function):
        return " is a generator: its body would never run"
    try:
        signature = inspect.signature(function)
    except ValueError:
        return None  # some callables made in C tell no signature
    try:
        signature.bind(*arguments)
    except TypeError:
        return f"{signature} cannot be called as ({', '.join(arguments)})"
    return None


def _defined(handler: FlowHandler, name: str, hook: str) -> Hook | None:
    if inspect.getattr_static(type(handler), hook) is inspect.getattr_static(FlowHandler, hook):
        return None
    return Hook(f"{name}.{hook}", getattr(handler, hook))


def _has_hooks(found: object) -> bool:
    return any(hasattr(found, hook) for hook in HOOKS)


def _article(found: object) -> str:
    kind = type(found).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


_import_numbers = itertools.count(1)


def _import_file(path: Path, spec: str) -> ModuleType:
    """Runs a user's file as a module of its own, whatever has been imported from it before."""
    if not path.is_file():
        raise HandlerError(f"handler {spec}: {path} is {'not a file' if path.exists() else 'missing'}")

    # A name of its own for every import: the module of a reload that fails must not replace the one in use.
    name = f"_fzgw_handlers_{next(_import_numbers)}_{path.stem}"
    loader = SourceFileLoader(name, str(path))
    module_spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if module_spec is None:
        raise HandlerError(f"handler {spec}: {path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)

    # Dataclasses and others look their module up in sys.modules while the file runs. Its own folder comes last in
    # the search path, so that it can bring helpers along and shadow nothing.
    sys.modules[name] = module
    folder = str(path.parent)
    sys.path.append(folder)
    try:
        # Not exec_module: its cached bytecode knows a changed file by whole seconds, and lies in the user's folder.
        code: CodeType = loader.source_to_code(path.read_bytes(), str(path))
        exec(code, vars(module))
    except (Exception, SystemExit) as error:
        _forget([name])
        raise HandlerError(f"handler {spec}: {_blame(error, path)}") from error
    finally:
        sys.path.remove(folder)
    return module


def _forget(modules: Iterable[str]) -> None:
    for name in modules:
        sys.modules.pop(name, None)


def _candidates(module: ModuleType, name: str) -> str:
    """The names that could have been meant: the nearest ones, else what the file defines itself."""
    own = [key for key, value in vars(module).items() if _could_be_handler(key, value, module)]
    nearest = _nearest(name, own)
    if nearest:
        return f"; did you mean {' or '.join(nearest)}?"
    return f"; it has {', '.join(own)}" if own else "; it defines nothing that could be a handler"


def _could_be_handler(key: str, value: object, module: ModuleType) -> bool:
    if key.startswith("_") or isinstance(value, ModuleType):
        return False
    if isinstance(value, FlowHandler):
        return True
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    from difflib import get_close_matches  # only a mistake needs it

    return get_close_matches(name, known, n=3, cutoff=0.7)


def _blame(error: BaseException, path: Path) -> str:
    """One line: where in the user's file it happened, and what."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return _printable(f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}")
    line = _line_in(str(path), error.__traceback__)
    return _printable(f"{path}:{line}: {_describe(error)}" if line else f"{path}: {_describe(error)}")


def _line_in(file: str, traceback: TracebackType | None) -> int | None:
    """The line of a file from which a traceback comes, as near to its cause as the file goes."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == file:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _raised_at(traceback: TracebackType | None) -> str | None:
    """`file:line` of the frame that raised; None when it was raised outside Python, in the call itself."""
    place = None
    traceback = traceback.tb_next if traceback is not None else None  # the first frame is the call in this file
    while traceback is not None:
        place = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error's own __str__ is the user's code too
        text = "(its message cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _printable(text: str) -> str:
    """One line of valid Unicode: a lone surrogate in an error's text could not be put on its record."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())
