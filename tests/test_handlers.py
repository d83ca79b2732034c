"""Flow handlers: what may be one, how it is loaded, and what becomes of the records when it fails."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fzgw import FlowHandler, annotate, omit
from fzgw.handlers import (
    ERRORS_IN_A_ROW,
    SUSPENSION,
    HandlerError,
    HandlerSet,
    ShutdownCut,
    as_handler,
    load_handler,
    load_handlers,
)
from fzgw.remarks import Remarks


@dataclass
class Record:
    """As much of a flow as handlers of these tests look at."""

    uid: str = "flow"
    activity: str = "close"


class Gap:
    """A record that is no flow, and has no activity."""


@dataclass
class Batch:
    """A batch as the engine gives it: open events apart from the records."""

    records: Sequence[Any] = ()
    opened: Sequence[Any] = field(default_factory=tuple)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records)


def errors_of(said: Mapping[int, Remarks]) -> dict[int, str | None]:
    """What records are told of errors."""
    return {index: remarks.handler_error for index, remarks in said.items()}


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def handler_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a handler file, `handlers.py` unless named, and returns its folder."""

    def write(text: str, name: str = "handlers.py") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


class TestDefinition:
    """What `FlowHandler` refuses when a class is defined."""

    def test_a_misspelt_hook_names_the_nearest_one(self) -> None:
        """A misspelt hook is an error at class definition, with the hook that was meant."""
        with pytest.raises(TypeError, match=r"Night\.on_opne is not a hook .*did you mean on_open\?"):
            type("Night", (FlowHandler,), {"on_opne": lambda self, flow: None})

    @pytest.mark.parametrize("name", ["on_batch", "on_packet"])
    def test_a_hook_that_does_not_exist_names_those_that_do(self, name: str) -> None:
        """What no hook resembles is refused with the hooks there are, and without a guess."""
        with pytest.raises(
            TypeError, match=rf"X\.{name} is not a hook .*: the hooks are on_open, on_update and on_close$"
        ):
            type("X", (FlowHandler,), {name: lambda self, flow: None})

    @pytest.mark.parametrize("name", ["onclose", "onOpen", "on_Close", "onUpdate", "ON_UPDATE"])
    def test_other_spellings_of_a_hook_are_refused(self, name: str) -> None:
        """A hook in another spelling would never be called, and is an error too."""
        with pytest.raises(TypeError, match="is not a hook"):
            type("X", (FlowHandler,), {name: lambda self, flow: None})

    def test_a_misspelt_hook_of_a_mixin_is_found(self) -> None:
        """The classes a handler inherits from count as well."""
        mixin = type("Mixin", (), {"on_clsoe": lambda self, flow: None})
        with pytest.raises(TypeError, match="did you mean on_close"):
            type("X", (mixin, FlowHandler), {})

    def test_private_helpers_and_data_are_no_hooks(self) -> None:
        """Private methods and plain attributes may begin with on_ as they like."""
        handler = type("X", (FlowHandler,), {"_on_close": lambda self: None, "on_limit": 5, "online": lambda self: 1})
        assert issubclass(handler, FlowHandler)

    @pytest.mark.parametrize(
        "hook",
        [
            lambda self: None,
            lambda self, flow, more: None,
            lambda self, *, flow: None,
            staticmethod(lambda: None),
            classmethod(lambda cls: None),
            5,
        ],
    )
    def test_a_hook_that_cannot_be_called_with_a_flow_is_refused(self, hook: object) -> None:
        """A wrong signature is an error at class definition, and names the method."""
        with pytest.raises(TypeError, match=r"X\.on_close"):
            type("X", (FlowHandler,), {"on_close": hook})

    @pytest.mark.parametrize(
        "hook",
        [
            lambda self, flow: None,
            lambda self, flow, more=None: None,
            lambda self, *flows: None,
            staticmethod(lambda flow: None),
            classmethod(lambda cls, flow: None),
        ],
    )
    def test_whatever_can_be_called_with_a_flow_is_a_hook(self, hook: object) -> None:
        """Defaults, stars, static and class methods are fine."""
        assert type("X", (FlowHandler,), {"on_close": hook})

    def test_async_and_generator_hooks_are_refused(self) -> None:
        """Their bodies would never run."""

        async def asynchronous(self: object, flow: object) -> None: ...

        def generator(self: object, flow: object) -> Iterator[None]:
            yield

        with pytest.raises(TypeError, match=r"X\.on_close is async"):
            type("X", (FlowHandler,), {"on_close": asynchronous})
        with pytest.raises(TypeError, match=r"X\.on_open is a generator"):
            type("X", (FlowHandler,), {"on_open": generator})


class TestLoading:
    """`file.py:name`, and one clear line for what can be wrong with it."""

    def test_functions_classes_and_instances_are_loaded(self, handler_file: Callable[..., Path]) -> None:
        """A function sees closes; a class is made without arguments; an instance is used as it is."""
        base = handler_file(
            "import fzgw\n"
            "seen = []\n"
            "def closes(flow): seen.append(('function', flow.uid))\n"
            "class Both(fzgw.FlowHandler):\n"
            "    def __init__(self, label='class'): self.label = label\n"
            "    def on_open(self, flow): seen.append((self.label, 'open', flow.uid))\n"
            "    def on_close(self, flow): seen.append((self.label, flow.uid))\n"
            "made = Both('instance')\n"
            "class Callable:\n"
            "    def __call__(self, flow): seen.append(('callable', flow.uid))\n"
        )
        handlers = load_handlers([(f"handlers.py:{name}", base) for name in ("closes", "Both", "made", "Callable")])
        handlers.run(Batch([Record("b")], opened=[Record("a", "open")]))
        assert [(entry["name"], entry["calls"], entry["errors"]) for entry in handlers.stats()] == [
            ("closes", 1, 0),
            ("Both", 2, 0),
            ("made", 2, 0),
            ("Callable", 1, 0),
        ]

    def test_handlers_of_one_file_share_its_module(self, handler_file: Callable[..., Path]) -> None:
        """Two handlers of one file import it once: what one leaves in a global the other finds."""
        base = handler_file("seen = []\ndef one(flow): seen.append(1)\ndef two(flow): assert seen == [1]\n")
        handlers = load_handlers([("handlers.py:one", base), ("./handlers.py:two", base)])
        assert handlers.run(Batch([Record()])) == {}

    def test_every_load_imports_freshly(self, handler_file: Callable[..., Path]) -> None:
        """A reload sees a changed file, also one changed within the same second to the same length."""
        base = handler_file("def h(flow): raise ValueError('old')\n")
        before = load_handlers([("handlers.py:h", base)])
        handler_file("def h(flow): raise ValueError('new')\n")
        after = load_handlers([("handlers.py:h", base)])
        assert errors_of(before.run(Batch([Record()]))) == {0: "h: ValueError: old"}
        assert errors_of(after.run(Batch([Record()]))) == {0: "h: ValueError: new"}
        assert not list(base.glob("__pycache__"))

    def test_modules_go_with_their_handlers(self, handler_file: Callable[..., Path]) -> None:
        """Reloading for a year does not fill sys.modules."""

        def modules() -> set[str]:
            return {name for name in sys.modules if name.startswith("_fzgw_handlers_")}

        base = handler_file("def h(flow): pass\n")
        before = modules()
        handlers = load_handlers([("handlers.py:h", base)])
        assert len(modules() - before) == 1
        del handlers
        with pytest.raises(HandlerError):
            load_handlers([("handlers.py:h", base), ("handlers.py:nothing", base)])
        assert modules() == before

    def test_a_handler_file_finds_its_neighbours_and_shadows_nothing(self, handler_file: Callable[..., Path]) -> None:
        """A helper beside the file can be imported; a file called like a standard module hides none."""
        handler_file("ANSWER = 42\n", "fzgw_test_neighbour.py")
        handler_file("raise AssertionError\n", "colorsys.py")
        base = handler_file(
            "import fzgw_test_neighbour, colorsys\ndef h(flow): raise ValueError(fzgw_test_neighbour.ANSWER)\n"
        )
        before = list(sys.path)
        handlers = load_handlers([("handlers.py:h", base)])
        assert errors_of(handlers.run(Batch([Record()]))) == {0: "h: ValueError: 42"}
        assert sys.path == before

    def test_dataclasses_with_postponed_annotations_work(self, handler_file: Callable[..., Path]) -> None:
        """The file is a module like any other while it runs: libraries find it in sys.modules."""
        base = handler_file(
            "from __future__ import annotations\nimport dataclasses\n"
            "@dataclasses.dataclass\nclass Limit:\n    size: int = 1\n"
            "def h(flow): raise ValueError(Limit().size)\n"
        )
        assert errors_of(load_handlers([("handlers.py:h", base)]).run(Batch([Record()]))) == {0: "h: ValueError: 1"}

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("handlers.py", "write it as file.py:name"),
            (":name", "write it as file.py:name"),
            ("handlers.py:", "write it as file.py:name"),
            ("handlers.py:a b", "write it as file.py:name"),
            ("nowhere.py:h", "nowhere.py is missing"),
            (".:h", "is not a file"),
            ("handlers.py:big_uplod", r"handlers\.py has no 'big_uplod'; did you mean big_upload\?"),
            ("handlers.py:zzz", r"handlers\.py has no 'zzz'; it has big_upload, Night, Plain"),
            ("handlers.py:LIMIT", "LIMIT is an int, neither a function nor a FlowHandler"),
            (
                "handlers.py:Plain",
                r"Plain is a Plain, neither .* \(a class of hooks is a subclass of fzgw.FlowHandler\)",
            ),
            ("handlers.py:Empty", "Empty defines no hook: the hooks are on_open, on_update and on_close"),
            ("handlers.py:two", r"two\(flow, more\) cannot be called as \(flow\)"),
            ("handlers.py:later", "later is async"),
            ("handlers.py:Needy", r"cannot make Needy\(\): .*handlers\.py: TypeError: .*missing 1 required"),
            ("handlers.py:Failing", r"cannot make Failing\(\): .*handlers\.py:17: KeyError: 'no'"),
            ("handlers.py:Leaving", r"cannot make Leaving\(\): .*handlers\.py:20: SystemExit: 3"),
        ],
    )
    def test_what_cannot_be_loaded_is_one_clear_line(
        self, handler_file: Callable[..., Path], spec: str, message: str
    ) -> None:
        """Each mistake is a HandlerError of one line that names the handler and what is wrong."""
        base = handler_file(
            "import fzgw\n"
            "LIMIT = 5\n"
            "def big_upload(flow): pass\n"
            "class Night(fzgw.FlowHandler):\n"
            "    def on_close(self, flow): pass\n"
            "class Plain:\n"
            "    def on_close(self, flow): pass\n"
            "class Empty(fzgw.FlowHandler): pass\n"
            "def two(flow, more): pass\n"
            "async def later(flow): pass\n"
            "class Needy(fzgw.FlowHandler):\n"
            "    def __init__(self, limit): pass\n"
            "    def on_close(self, flow): pass\n"
            "class Failing(fzgw.FlowHandler):\n"
            "    def on_close(self, flow): pass\n"
            "    def __init__(self):\n"
            "        {}['no']\n"
            "class Leaving(Failing):\n"
            "    def __init__(self):\n"
            "        raise SystemExit(3)\n"
        )
        with pytest.raises(HandlerError, match=message) as caught:
            load_handler(spec, base=base)
        assert "\n" not in str(caught.value)
        assert spec in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("x = 1\nimport fzgw_no_such_module\n", ":2: ModuleNotFoundError: No module named 'fzgw_no_such_module'"),
            ("\n\ndef broken(:\n", ":3: SyntaxError: "),
            ("def f():\n    1 / 0\nf()\n", ":2: ZeroDivisionError: division by zero"),
            ("raise SystemExit('bye')\n", ":1: SystemExit: bye"),
            ("raise ValueError('two\\nlines')\n", ":1: ValueError: two lines"),
            (
                "import fzgw\nclass N(fzgw.FlowHandler):\n    def on_opne(self, flow): pass\n",
                ":2: TypeError: N.on_opne is not a hook of fzgw.FlowHandler: did you mean on_open? the hooks are",
            ),
            ("# -*- coding: nonsense -*-\n", "SyntaxError: "),
        ],
    )
    def test_an_error_in_the_file_is_named_with_its_place(
        self, handler_file: Callable[..., Path], text: str, message: str
    ) -> None:
        """The user's own file and line, and the user's own message; one line."""
        base = handler_file(text)
        with pytest.raises(HandlerError) as caught:
            load_handler("handlers.py:h", base=base)
        assert f"{base / 'handlers.py'}{message}" in str(caught.value) or message == "SyntaxError: "
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


class TestRunning:
    """A batch is shown to every handler, and no failure costs a record."""

    def test_each_sees_what_it_defines(self) -> None:
        """R18, R19: open events go to on_open, update records to on_update, close records to on_close and functions;
        open records, gaps and notes to none."""
        seen: list[tuple[str, str]] = []

        class Opens(FlowHandler):
            def on_open(self, flow: Any) -> None:
                seen.append(("open", flow.uid))

        class Updates(FlowHandler):
            def on_update(self, flow: Any) -> None:
                seen.append(("update", flow.uid))

        class Closes(FlowHandler):
            def on_close(self, flow: Any) -> None:
                seen.append(("close", flow.uid))

        handlers = HandlerSet(
            [
                as_handler(Opens(), "Opens"),
                as_handler(Updates(), "Updates"),
                as_handler(Closes(), "Closes"),
                as_handler(_saw(seen), "plain"),
            ]
        )
        errors = handlers.run(
            Batch(
                [Record("a", "open"), Record("b", "update"), Gap(), Record("c", "close")],
                opened=[Record("d", "open")],
            )
        )
        assert seen == [("open", "d"), ("update", "b"), ("close", "c"), ("plain", "c")]
        assert errors == {}

    def test_wants_open_says_whether_anybody_listens(self) -> None:
        """R18: the engine makes open events only for handlers that define on_open."""

        class Opens(FlowHandler):
            def on_open(self, flow: Any) -> None: ...

        assert not HandlerSet().wants_open
        assert not HandlerSet([as_handler(print, "plain")]).wants_open
        assert HandlerSet([as_handler(print, "plain"), as_handler(Opens(), "Opens")]).wants_open

    def test_an_error_goes_with_its_record_and_stops_nobody_else(self) -> None:
        """A handler that raises loses no record: the text goes with that record, and the next handler is called."""
        seen: list[tuple[str, str]] = []

        class Night(FlowHandler):
            def on_close(self, flow: Any) -> None:
                if flow.uid == "b":
                    raise ValueError("too late")

        def broken(flow: Any) -> None:
            if flow.uid == "b":
                raise KeyError

        handlers = HandlerSet(
            [as_handler(Night(), "Night"), as_handler(broken, "broken"), as_handler(_saw(seen), "plain")]
        )
        with capture_logs():
            errors = handlers.run(Batch([Record("a"), Gap(), Record("b"), Record("c")]))
        assert errors_of(errors) == {2: "Night.on_close: ValueError: too late; broken: KeyError"}
        assert [uid for _, uid in seen] == ["a", "b", "c"]

    def test_wants_update_says_whether_anybody_listens(self) -> None:
        """A replay whose format has no line for updates makes them only for handlers that define on_update."""

        class Updates(FlowHandler):
            def on_update(self, flow: Any) -> None: ...

        assert not HandlerSet().wants_update
        assert not HandlerSet([as_handler(print, "plain")]).wants_update
        assert HandlerSet([as_handler(print, "plain"), as_handler(Updates(), "Updates")]).wants_update

    def test_an_error_of_on_update_is_on_the_update_record(self) -> None:
        """Each record carries the error of its own hook."""

        class Night(FlowHandler):
            def on_update(self, flow: Any) -> None:
                raise ValueError(flow.uid)

            def on_close(self, flow: Any) -> None:
                raise KeyError(flow.uid)

        with capture_logs():
            errors = HandlerSet([as_handler(Night(), "Night")]).run(
                Batch([Record("a", "open"), Record("b", "update"), Record("c", "close")])
            )
        assert errors_of(errors) == {1: "Night.on_update: ValueError: b", 2: "Night.on_close: KeyError: 'c'"}

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
    def test_a_handler_cannot_end_the_gateway(self, error: BaseException) -> None:
        """sys.exit() in a handler is an error of that handler, as is anything else it raises."""

        def leaves(flow: Any) -> None:
            raise error

        with capture_logs():
            errors = errors_of(HandlerSet([as_handler(leaves, "leaves")]).run(Batch([Record()])))
        assert str(errors[0]).startswith(f"leaves: {type(error).__name__}")

    def test_the_end_of_a_shutdown_gets_through(self) -> None:
        """R27: a handler that holds up a shutdown is interrupted by the gateway, and that is no error of its own."""

        def held_up(flow: Any) -> None:
            raise ShutdownCut

        with pytest.raises(ShutdownCut):
            HandlerSet([as_handler(held_up, "held_up")]).run(Batch([Record()]))

    def test_an_error_of_on_open_is_counted_and_logged(self) -> None:
        """There is no record yet that could carry it (R18)."""

        class Night(FlowHandler):
            def on_open(self, flow: Any) -> None:
                raise ValueError("dark")

        handlers = HandlerSet([as_handler(Night(), "Night")])
        with capture_logs() as log:
            assert handlers.run(Batch([Record()], opened=[Record()])) == {}
        assert [entry["error"] for entry in log] == ["Night.on_open: ValueError: dark"]
        assert log[0]["at"].startswith(f"{__file__}:")
        assert handlers.stats()[0]["errors"] == 1

    def test_errors_are_logged_once_in_a_while(self) -> None:
        """A handler that fails on every other record does not flood the log: its records carry the texts."""
        clock = Clock()

        def every_other(flow: Any) -> None:
            if flow.uid == "bad":
                raise ValueError

        handlers = HandlerSet([as_handler(every_other, "every_other")], clock=clock)
        batch = Batch([Record("bad"), Record("good")] * 50)
        with capture_logs() as log:
            assert len(handlers.run(batch)) == 50
            clock.now += 60
            assert len(handlers.run(batch)) == 50
        assert [entry["errors"] for entry in log] == [1, 51]

    def test_the_text_of_an_error_fits_on_a_record(self) -> None:
        """Whatever an exception says becomes one line of valid Unicode of bounded length."""

        class RudeError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        errors = iter([ValueError("a\n\tb \udcff"), ValueError("x" * 10_000), RudeError()])

        def fails(flow: Any) -> None:
            raise next(errors)

        with capture_logs():
            texts = errors_of(HandlerSet([as_handler(fails, "fails")]).run(Batch([Record(), Record(), Record()])))
        assert texts[0] == "fails: ValueError: a b \\udcff"
        assert len(texts[1]) == 500
        assert texts[2] == "fails: RudeError: (its message cannot be shown)"

    def test_an_answer_that_is_no_action_is_an_error(self) -> None:
        """The record says so, and so does the log, once; what can be returned is named."""
        handlers = HandlerSet([as_handler(lambda flow: "drop it", "answers")])
        with capture_logs() as log:
            said = errors_of(handlers.run(Batch([Record(), Record(), Record()])))
        text = (
            "answers: TypeError: returned str: a handler returns None, an action such as "
            "fzgw.annotate(flow, ticket='NET-7'), or a list of actions"
        )
        assert said == {0: text, 1: text, 2: text}
        assert [entry["error"] for entry in log] == [text]


class TestActions:
    """What a handler may return: notes on the flow, and leaving it out of the log."""

    @staticmethod
    def run(handler: Callable[[Any], object] | FlowHandler, *batches: Batch) -> list[dict[int, Remarks]]:
        """What a handler makes of batches in a row."""
        handlers = HandlerSet([as_handler(handler, "h")])
        return [handlers.run(batch) for batch in batches]

    def test_an_annotation_is_on_its_record(self) -> None:
        """One action, and a list of them; later ones of a name replace earlier ones."""

        def notes(flow: Any) -> object:
            if flow.uid == "one":
                return annotate(flow, ticket="NET-7", score=0.5, tries=3, known=True)
            return [annotate(flow, a=1, b=2), annotate(flow, b=3)] if flow.uid == "two" else ()

        [said] = self.run(notes, Batch([Record("one"), Gap(), Record("two"), Record("three")]))
        assert said == {
            0: Remarks(annotations=(("ticket", "NET-7"), ("score", 0.5), ("tries", 3), ("known", True))),
            2: Remarks(annotations=(("a", 1), ("b", 3))),
        }

    def test_it_sticks_to_the_flow_until_it_closes(self) -> None:
        """Also to records that no hook sees; a flow that has closed is forgotten."""

        class Notes(FlowHandler):
            def on_open(self, flow: Any) -> Any:
                return annotate(flow, seen=flow.uid)

        opened = Batch([Record("a", "open")], opened=[Record("a", "open")])
        first, second, third = self.run(
            Notes(), opened, Batch([Record("a", "update"), Record("b"), Record("a")]), Batch([Record("a")])
        )
        seen = Remarks(annotations=(("seen", "a"),))
        assert (first, second, third) == ({0: seen}, {0: seen, 2: seen}, {})

    def test_omit_keeps_every_later_record_out(self) -> None:
        """From on_open all of them; an error of another handler does not bring them back."""

        class Quiet(FlowHandler):
            def on_open(self, flow: Any) -> Any:
                return omit(flow)

        def fails(flow: Any) -> None:
            raise ValueError("no")

        handlers = HandlerSet([as_handler(Quiet(), "Quiet"), as_handler(fails, "fails")])
        with capture_logs():
            said = handlers.run(Batch([Record("a", "open"), Record("a")], opened=[Record("a", "open")]))
        assert said == {0: Remarks(omit=True), 1: Remarks("fails: ValueError: no", omit=True)}

    def test_an_action_on_another_flow_is_an_error(self) -> None:
        """Nothing of the answer is carried out."""
        with capture_logs():
            [said] = self.run(lambda flow: [annotate(flow, a=1), omit(Record("other"))], Batch([Record()]))  # type: ignore[arg-type]
        text = "h: TypeError: returned an action on another flow than the one it was called with"
        assert said == {0: Remarks(text)}

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({}, "annotate() needs a field"),
            ({"tags": ["a"]}, "tags is of type list; a str, int, float or bool can be noted"),
            ({"none": None}, "none is of type NoneType"),
            ({"ratio": float("nan")}, "ratio is nan, which JSON cannot hold"),
            ({"big": 1 << 63}, "big does not fit into 64 bits"),
            ({"text": "x" * 4097}, "4101 bytes on one flow; 4096 is the most"),
            ({f"f{number}": number for number in range(33)}, "33 fields on one flow; 32 is the most"),
            ({"text": "\udcff"}, "surrogates not allowed"),
        ],
    )
    def test_what_cannot_be_noted_is_said_where_it_is_tried(self, fields: dict[str, Any], problem: str) -> None:
        """By an exception in the handler itself, which puts its line in the traceback."""
        with pytest.raises((TypeError, ValueError), match=re.escape(problem)):
            annotate(Record(), **fields)  # type: ignore[arg-type]

    def test_annotations_of_one_flow_are_bounded_together(self) -> None:
        """What would be too much is an error on the record; what was noted before stays."""

        class Notes(FlowHandler):
            def __init__(self) -> None:
                self.calls = 0

            def on_update(self, flow: Any) -> Any:
                self.calls += 1
                return annotate(flow, **{f"f{self.calls}": "x" * 2000})

        with capture_logs():
            [said] = self.run(Notes(), Batch([Record("a", "update")] * 3))
        assert [len(remarks.annotations) for remarks in said.values()] == [1, 2, 2]
        assert "4096 is the most" in str(said[2].handler_error)

    def test_flows_whose_close_never_comes_are_forgotten_in_the_end(self) -> None:
        """The oldest first, counted, and said once."""

        class Notes(FlowHandler):
            def on_open(self, flow: Any) -> Any:
                return annotate(flow, n=1)

        handlers = HandlerSet([as_handler(Notes(), "Notes")], max_flows=5)
        opened = [Record(str(number), "open") for number in range(12)]
        with capture_logs() as log:
            handlers.run(Batch(opened=opened))
        assert handlers.remark_stats() == {"flows": 10, "forgotten": 2}
        assert [entry["event"] for entry in log] == ["flow_remarks_forgotten"]
        assert handlers.run(Batch([Record("0"), Record("1"), Record("2"), Record("11")])).keys() == {2, 3}

    def test_a_reload_keeps_what_sticks(self) -> None:
        """The handlers of another configuration go on with flows that are open."""

        class Notes(FlowHandler):
            def on_open(self, flow: Any) -> Any:
                return annotate(flow, n=1)

        before = HandlerSet([as_handler(Notes(), "Notes")])
        before.run(Batch(opened=[Record("a", "open")]))
        after = HandlerSet(max_flows=1)
        after.inherit(before)
        assert after.run(Batch([Record("a")])) == {0: Remarks(annotations=(("n", 1),))}


class TestSuspension:
    """After ten errors in a row a handler is left alone for a minute, and the log says so once."""

    def test_ten_in_a_row_suspend_for_a_minute(self) -> None:
        """Suspended at the tenth error, called again after the minute; both said once; records go on without it."""
        clock = Clock()
        calls: list[str] = []

        def fails(flow: Any) -> None:
            calls.append(flow.uid)
            raise ValueError("always")

        handlers = HandlerSet([as_handler(fails, "fails")], clock=clock)
        with capture_logs() as log:
            errors = handlers.run(Batch([Record()] * 25))
            assert list(errors) == list(range(ERRORS_IN_A_ROW))
            clock.now += SUSPENSION - 0.001
            assert handlers.run(Batch([Record()] * 5)) == {}
            assert len(calls) == ERRORS_IN_A_ROW
            assert handlers.stats()[0]["suspended"] is True
            clock.now += 0.001
            assert len(handlers.run(Batch([Record()] * 3))) == 3
        said = [entry for entry in log if entry["event"] != "handler_error"]
        assert [(entry["event"], entry["handler"]) for entry in said] == [
            ("handler_suspended", "fails"),
            ("handler_resumed", "fails"),
        ]
        assert handlers.stats()[0] == {
            "name": "fails",
            "calls": 13,
            "errors": 13,
            "actions": 0,
            "skipped": 20,
            "suspended": False,
        }

    def test_a_success_between_errors_starts_anew(self) -> None:
        """Nine errors, one success, nine errors: not suspended."""
        results = iter([*[False] * 9, True, *[False] * 9])

        def sometimes(flow: Any) -> None:
            if not next(results):
                raise ValueError

        handlers = HandlerSet([as_handler(sometimes, "sometimes")])
        with capture_logs():
            assert len(handlers.run(Batch([Record()] * 19))) == 18
        assert handlers.stats()[0]["suspended"] is False

    def test_a_suspension_is_of_one_handler_with_all_its_hooks(self) -> None:
        """Errors of all hooks count together, and suspend all; other handlers are called as before."""
        seen: list[tuple[str, str]] = []

        class Fails(FlowHandler):
            def on_open(self, flow: Any) -> None:
                raise ValueError

            def on_close(self, flow: Any) -> None:
                raise ValueError

        handlers = HandlerSet([as_handler(Fails(), "Fails"), as_handler(_saw(seen), "plain")])
        with capture_logs():
            errors = handlers.run(Batch([Record()] * 8, opened=[Record()] * 5))
        assert len(errors) == 5
        assert len(seen) == 8


def _saw(seen: list[tuple[str, str]]) -> Callable[[Any], None]:
    def plain(flow: Any) -> None:
        seen.append(("plain", flow.uid))

    return plain
