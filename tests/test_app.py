"""The loop between the engine and the sinks, and what signals do to it, with an engine that follows a script."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner
from structlog.testing import capture_logs

import ocsf
from config_files import peer_table
from fzgw import _core, app, logs
from fzgw.app import App
from fzgw.cli import main
from fzgw.config import Config, load
from fzgw.config.values import key_text
from fzgw.handlers import HandlerError
from fzgw.remarks import Remarks
from fzgw.sinks import SinkError
from fzgw.sinks.stdout import StdoutSink
from fzgw.testing import Client
from host_lab import udp_packet

Step = Any
"""What the scripted engine does at one recv(): gives a batch, or calls something first."""


@dataclass
class Record:
    """As much of a flow as these tests look at."""

    uid: str
    activity: str = "close"


class Batch:
    """A batch as the engine gives it, rendered to lines that show what was asked for."""

    def __init__(self, *uids: str, opened: Sequence[str] = ()) -> None:
        self._records = [Record(uid) for uid in uids]
        self.opened = [Record(uid, "open") for uid in opened]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def render(self, format: str, sequence: int, remarks: Mapping[int, Remarks] | None = None) -> tuple[bytes, int]:
        """One line a record that is not omitted."""
        assert format == "ocsf"
        lines: list[bytes] = []
        for index, record in enumerate(self._records):
            said = (remarks or {}).get(index, Remarks())
            if said.omit:
                continue
            line = {"sequence": sequence + len(lines), "uid": record.uid, "error": said.handler_error}
            lines.append(json.dumps(line | dict(said.annotations)).encode() + b"\n")
        return b"".join(lines), len(lines)


class Engine:
    """An engine that follows a script, one step a recv(); after it, it waits to be stopped."""

    interface = "fzgw-test"
    port = 51820
    tun_offload = "off"

    def __init__(self, *steps: Step, after_stop: Sequence[Step] = (), refuses_reload: bool = False) -> None:
        self._steps = list(steps)
        self._after_stop = list(after_stop)
        self._refuses_reload = refuses_reload
        self.started_with: dict[str, Any] = {}
        self.reloads: list[tuple[Config, dict[str, Any]]] = []
        self.stopped = 0
        self.dead = False
        self.says: list[str] = []

    def start(self, config: Config, **options: Any) -> Engine:
        """As `Gateway.start`."""
        self.started_with = {"config": config, **options}
        return self

    def notices(self) -> list[str]:
        """What it has to say, once."""
        said, self.says = self.says, []
        return said

    def recv(self, max: int = 1000, timeout: float = 1.0) -> Batch | None:
        """The next step; once stopped, what is left, then None."""
        assert timeout <= 0.2, "signals are looked at between two calls"
        if self._steps and not self.stopped:
            step = self._steps.pop(0)
        elif self.stopped:
            step = self._after_stop.pop(0) if self._after_stop else None
        else:
            time.sleep(0.001)
            step = Batch()
        if callable(step):
            step()
            return Batch()
        return step

    def reload(self, config: Config, **options: Any) -> None:
        """As `Gateway.reload`."""
        if self._refuses_reload:
            raise ValueError("the engine refuses")
        self.reloads.append((config, options))

    def stats(self) -> dict[str, Any]:
        """As `Gateway.stats`, in short."""
        if self.dead:
            raise RuntimeError("the gateway's worker has died")
        return {"balanced": True, "records": {"made": 7, "handed": 7, "lost": 0}}

    def stop(self) -> None:
        """As `Gateway.stop`."""
        self.stopped += 1


class Host:
    """The host's setup, as a list of what was done."""

    def __init__(self, *, fails: str = "") -> None:
        self.done: list[str] = []
        self.configs: list[Config] = []
        self._fails = fails

    def make(self, config: Config, interface: str) -> Host:
        """As `HostSetup(config, interface)`."""
        assert interface == Engine.interface
        self.configs.append(config)
        return self

    def apply(self) -> None:
        """As `HostSetup.apply`."""
        self._do("apply")

    def update(self, config: Config) -> None:
        """As `HostSetup.update`."""
        self.configs.append(config)
        self._do("update")

    def remove(self) -> None:
        """As `HostSetup.remove`."""
        self._do("remove")

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what == self._fails:
            raise RuntimeError(f"{what} failed")


class Laboratory:
    """A configuration in a folder, and apps that run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "gateway.toml"
        key = folder / "gateway.key"
        key.touch(mode=0o600)
        key.write_text(base64.b64encode(bytes(range(32))).decode() + "\n")
        self.handlers("def plain(flow): pass\n")
        self.write()

    def write(self, more: str = "", *, listen: int = 51820, timeout: str = "5s") -> None:
        """Writes gateway.toml."""
        self.file.write_text(
            f'[gateway]\nname = "test"\nprivate_key_file = "gateway.key"\nlisten = {listen}\n'
            f'addresses = ["100.64.0.1/16"]\nstate_dir = "state"\n'
            f'[limits]\nshutdown_timeout = "{timeout}"\n{more}'
        )

    def handlers(self, text: str) -> None:
        """Writes handlers.py."""
        (self.folder / "handlers.py").write_text(text)

    def app(self, engine: Engine, host: Host | None = None, **options: Any) -> App:
        """An app of the configuration as it is now."""
        options = {"environ": {}, "gateway_factory": engine.start, "host_factory": (host or Host()).make, **options}
        return App(
            load(self.file),
            load_config=lambda: load(self.file),
            **options,
        )


@pytest.fixture
def lab(tmp_path: Path) -> Laboratory:
    """A fresh configuration."""
    return Laboratory(tmp_path)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """What is logged."""
    with capture_logs() as entries:
        yield entries


class Stdout:
    """A pipe in the place of stdout."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.sink = StdoutSink(self.writer)

    def lines(self) -> list[bytes]:
        """The lines that are in it."""
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, 1 << 20).splitlines()
        except BlockingIOError:
            return []

    def read(self) -> list[dict[str, Any]]:
        """The records that are in it."""
        return [json.loads(line) for line in self.lines()]

    def fill(self) -> None:
        """As a reader does that does not read."""
        os.set_blocking(self.writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writer, b"x" * 4096)
        os.set_blocking(self.writer, True)

    def waits(self) -> int:
        """How many records wait for the reader."""
        return self.sink.counts.waiting

    def empty(self) -> None:
        """As a reader does that reads at last."""
        os.read(self.reader, 1 << 20)

    def close(self) -> None:
        """Closes what is open."""
        for end in (self.reader, self.writer):
            with contextlib.suppress(OSError):
                os.close(end)


@pytest.fixture
def stdout() -> Iterator[Stdout]:
    """A pipe in the place of stdout."""
    pipe = Stdout()
    yield pipe
    pipe.close()


def send(number: signal.Signals) -> Callable[[], None]:
    """A step of the script: the process gets a signal."""

    def act() -> None:
        heard = signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
        assert heard, f"the app does not listen to {number.name}: it would end the tests"
        os.kill(os.getpid(), number)

    return act


term = send(signal.SIGTERM)
hup = send(signal.SIGHUP)
usr1 = send(signal.SIGUSR1)


class Meanwhile:
    """What happens while the app is busy: a step of the script starts a thread that acts, one act after the other."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[AssertionError] = []

    def __call__(self, *acts: Callable[[], object]) -> Callable[[], None]:
        """The step that starts it."""

        def act() -> None:
            try:
                for each in acts:
                    each()
            except AssertionError as error:
                self._errors.append(error)
                with contextlib.suppress(AssertionError):
                    term()

        def start() -> None:
            self._threads.append(threading.Thread(target=act))
            self._threads[-1].start()

        return start

    def end(self) -> None:
        """Every act was done, and none had to wait in vain."""
        for thread in self._threads:
            thread.join()
        assert self._errors == []


@pytest.fixture
def meanwhile() -> Iterator[Meanwhile]:
    """What happens while the app is busy."""
    acts = Meanwhile()
    yield acts
    acts.end()


def until(condition: Callable[[], object], seconds: float = 10.0) -> Callable[[], None]:
    """An act that waits for something."""

    def wait() -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.002)

    return wait


def events(log: list[Any], name: str) -> list[Any]:
    """The log entries of that name."""
    return [entry for entry in log if entry["event"] == name]


class TestStart:
    """What is started, with what, and what a failure leaves behind."""

    @pytest.mark.parametrize(
        ("options", "more", "flow_logs", "open_events", "sinks"),
        [
            ({}, "", False, False, 0),
            ({"flow_logs": True}, "", True, False, 1),
            ({"environ": {"RUST_LOG": "trace"}}, "", True, False, 1),
            ({"environ": {"RUST_LOG": "info"}}, "", False, False, 0),
            ({}, '[[sinks]]\ntype = "stdout"\n', True, False, 1),
            ({"flow_logs": True, "environ": {"RUST_LOG": "trace"}}, '[[sinks]]\ntype = "stdout"\n', True, False, 1),
            ({}, '[[handlers]]\nload = "handlers.py:plain"\n', True, False, 0),
            ({}, '[[handlers]]\nload = "handlers.py:Opens"\n', True, True, 0),
        ],
    )
    def test_records_are_made_for_who_wants_them(
        self,
        lab: Laboratory,
        stdout: Stdout,
        options: dict[str, Any],
        more: str,
        flow_logs: bool,
        open_events: bool,
        sinks: int,
    ) -> None:
        """With no sink and no handler flow logs are off; --flow-logs, RUST_LOG and the sink make one stream."""
        lab.handlers(
            "import fzgw\ndef plain(flow): pass\nclass Opens(fzgw.FlowHandler):\n    def on_open(self, flow): pass\n"
        )
        lab.write(more)
        engine = Engine(Batch("a"), term)
        gateway = lab.app(engine, stdout=stdout.sink, **options)
        assert gateway.run() == 0
        assert engine.started_with["flow_logs"] is flow_logs
        assert engine.started_with["open_events"] is open_events
        assert len(stdout.read()) == sinks
        assert len(gateway.stats()["sinks"]) == sinks

    def test_the_log_says_what_runs_and_how_it_ended(self, lab: Laboratory, log: list[Any], stdout: Stdout) -> None:
        """One line at the start, one at the end with the ledgers and whether they balance."""
        gateway = lab.app(Engine(Batch("a", "b"), term), flow_logs=True, stdout=stdout.sink)
        gateway.run()
        (started,) = events(log, "gateway_started")
        assert (started["interface"], started["tun_offload"]) == ("fzgw-test", "off")
        assert started["port"] == 51820
        assert base64.b64decode(started["public_key"]) == load(lab.file).gateway.public_key
        assert (started["peers"], started["nat"], started["flow_logs"]) == (0, "masquerade", "on")
        (stopped,) = events(log, "gateway_stopped")
        assert stopped["signal"] == "SIGTERM"
        assert stopped["balanced"] is True
        assert stopped["records"] == {"made": 7, "handed": 7, "lost": 0}
        assert stopped["sinks"] == {"stdout": {"rendered": 2, "delivered": 2, "waiting": 0, "refused": 0}}

    def test_warnings_of_the_configuration_are_logged(self, lab: Laboratory, log: list[Any]) -> None:
        """What is not wrong but should be known, such as a key that others can read."""
        (lab.folder / "gateway.key").chmod(0o644)
        lab.app(Engine(term)).run()
        assert any("gateway.key" in entry["message"] for entry in events(log, "configuration"))

    def test_the_uid_is_kept(self, lab: Laboratory) -> None:
        """A gateway is the same one in its records after its key has changed."""
        lab.app(Engine(term)).run()
        assert (lab.folder / "state" / "gateway.uid").read_text().strip() == load(lab.file).gateway.uid

    def test_a_host_that_cannot_be_set_up_leaves_nothing(self, lab: Laboratory) -> None:
        """The engine is ended and the host's setup taken back before the error is told."""
        engine, host = Engine(), Host(fails="apply")
        with pytest.raises(RuntimeError, match="apply failed"):
            lab.app(engine, host).run()
        assert engine.stopped == 1
        assert host.done == ["apply", "remove"]

    def test_a_configuration_that_no_host_can_do_leaves_nothing(self, lab: Laboratory) -> None:
        """The engine is ended also where there is no host's setup to take back."""
        engine = Engine()

        def impossible(config: Config, interface: str) -> Host:
            raise RuntimeError("impossible")

        with pytest.raises(RuntimeError, match="impossible"):
            lab.app(engine, host_factory=impossible).run()
        assert engine.stopped == 1

    def test_a_handler_that_cannot_be_loaded_comes_first(self, lab: Laboratory) -> None:
        """Nothing was started yet when it is told."""
        engine, host = Engine(), Host()
        with pytest.raises(HandlerError, match="has no 'missing'"):
            lab.app(engine, host, handlers=[f"{lab.folder}/handlers.py:missing"]).run()
        assert engine.started_with == {}
        assert host.done == []

    def test_a_closed_stdout_comes_first(self, lab: Laboratory, stdout: Stdout) -> None:
        """Nothing was started yet: no socket can get the number of stdout."""
        os.close(stdout.writer)
        engine = Engine()
        with pytest.raises(SinkError):
            lab.app(engine, flow_logs=True, stdout=stdout.sink).run()
        assert engine.started_with == {}

    def test_signals_are_as_before_when_it_has_run(self, lab: Laboratory) -> None:
        """An App can be run by a program that has signal handlers of its own."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)
        before = [signal.getsignal(number) for number in numbers]
        lab.app(Engine(term)).run()
        assert [signal.getsignal(number) for number in numbers] == before

    def test_systemd_is_told(self, lab: Laboratory) -> None:
        """With Type=notify: ready, reloading and ready again, stopping."""
        address = lab.folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(address))
            lab.app(Engine(hup, term), environ={"NOTIFY_SOCKET": str(address)}).run()
            listener.setblocking(False)
            states = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    states.append(listener.recv(4096).decode().splitlines()[0])
        assert states == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]

    def test_a_notify_socket_that_is_not_there_stops_nothing(self, lab: Laboratory, log: list[Any]) -> None:
        """It is said, and the gateway runs."""
        assert lab.app(Engine(term), environ={"NOTIFY_SOCKET": "@fzgw-nobody-listens"}).run() == 0
        assert events(log, "notify_failed")


class TestRecords:
    """From the engine through the handlers to the sink."""

    def test_sequence_has_no_hole(self, lab: Laboratory, stdout: Stdout) -> None:
        """L4: numbers from 1, on over batches and empty ones."""
        engine = Engine(Batch("a", "b"), Batch(), Batch("c"), term, after_stop=[Batch("d", "e"), Batch("f")])
        assert lab.app(engine, flow_logs=True, stdout=stdout.sink).run() == 0
        assert [(line["sequence"], line["uid"]) for line in stdout.read()] == list(enumerate("abcdef", start=1))

    def test_what_a_handler_omits_takes_no_number(self, lab: Laboratory, stdout: Stdout, log: list[Any]) -> None:
        """L3, L4: it is in the books as omitted, and the lines that there are have no hole in their numbers."""
        lab.handlers("import fzgw\ndef h(flow):\n    if flow.uid in 'bd': return fzgw.omit(flow)\n")
        lab.write('[[handlers]]\nload = "handlers.py:h"\n')
        engine = Engine(Batch("a", "b"), Batch("c"), term, after_stop=[Batch("d", "e")])
        assert lab.app(engine, flow_logs=True, stdout=stdout.sink).run() == 0
        assert [(line["sequence"], line["uid"]) for line in stdout.read()] == list(enumerate("ace", start=1))
        [stopped] = events(log, "gateway_stopped")
        assert (stopped["rendered"], stopped["omitted"], stopped["balanced"]) == (3, 2, True)

    def test_an_annotation_is_on_the_line(self, lab: Laboratory, stdout: Stdout) -> None:
        """Also on records that come after a reload, whose handlers are others."""
        code = "import fzgw\nclass N(fzgw.FlowHandler):\n    def on_open(self, flow): return fzgw.annotate(flow, n=7)\n"
        lab.handlers(code)
        lab.write('[[handlers]]\nload = "handlers.py:N"\n')

        def without() -> None:
            lab.write()

        engine = Engine(Batch("a", opened=["a", "b"]), without, hup, Batch("b", "c"), term)
        assert lab.app(engine, flow_logs=True, stdout=stdout.sink).run() == 0
        assert [line.get("n") for line in stdout.read()] == [7, 7, None]

    def test_a_failing_handler_costs_no_record(self, lab: Laboratory, stdout: Stdout) -> None:
        """The record goes on, with the text of the error."""
        lab.handlers("def h(flow):\n    if flow.uid == 'b': raise ValueError('no')\n")
        lab.write('[[handlers]]\nload = "handlers.py:h"\n')
        lab.app(Engine(Batch("a", "b", "c"), term), flow_logs=True, stdout=stdout.sink).run()
        assert [line["error"] for line in stdout.read()] == [None, "h: ValueError: no", None]

    def test_handlers_of_the_command_line_come_after_those_of_the_configuration(
        self, lab: Laboratory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both run; the ones of the command line are relative to the working directory."""
        elsewhere = lab.folder / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "mine.py").write_text("def mine(flow): pass\n")
        monkeypatch.chdir(elsewhere)
        lab.write('[[handlers]]\nload = "handlers.py:plain"\n')
        gateway = lab.app(Engine(Batch("a"), term), handlers=["mine.py:mine"])
        gateway.run()
        assert [(entry["name"], entry["calls"]) for entry in gateway.stats()["handlers"]] == [("plain", 1), ("mine", 1)]

    def test_a_closed_stdout_stops_no_forwarding(self, lab: Laboratory, stdout: Stdout, log: list[Any]) -> None:
        """R27: said once, counted as refused, and the gateway goes on and ends well."""
        engine = Engine(
            Batch("a"), lambda: os.close(stdout.reader), Batch("b", "c"), Batch("d"), term, after_stop=[Batch("e")]
        )
        gateway = lab.app(engine, flow_logs=True, stdout=stdout.sink)
        assert gateway.run() == 0
        assert len(events(log, "sink_closed")) == 1
        (stopped,) = events(log, "gateway_stopped")
        assert stopped["sinks"]["stdout"] == {"rendered": 5, "delivered": 1, "waiting": 0, "refused": 4}
        assert stopped["balanced"] is True


class TestEnd:
    """R27: a signal ends every flow and delivers every record; a second one cuts that short."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_signal_delivers_everything(
        self, lab: Laboratory, stdout: Stdout, number: signal.Signals
    ) -> None:
        """The engine is stopped, and what it still gives goes all the way; exit 0."""
        engine, host = Engine(send(number), after_stop=[Batch("a"), Batch(), Batch("b")]), Host()
        assert lab.app(engine, host, flow_logs=True, stdout=stdout.sink).run() == 0
        assert [line["uid"] for line in stdout.read()] == ["a", "b"]
        assert host.done == ["apply", "remove"]

    def test_a_second_signal_says_what_was_left(
        self, lab: Laboratory, stdout: Stdout, meanwhile: Meanwhile, log: list[Any]
    ) -> None:
        """A stdout that blocks does not stop signals: the second one ends at once, with exit 1 and the number left."""
        stdout.fill()
        signals = meanwhile(until(stdout.waits), term, until(lambda: engine.stopped), send(signal.SIGINT))
        engine, host = Engine(signals, Batch("a", "b"), after_stop=[Batch("c"), Batch("d", "e")]), Host()
        gateway = lab.app(engine, host, flow_logs=True, stdout=stdout.sink)
        start = time.monotonic()
        assert gateway.run() == 1
        assert time.monotonic() - start < 4, "before shutdown_timeout"
        (cut,) = events(log, "shutdown_cut_short")
        assert cut["by"] == "a second signal, SIGINT"
        assert cut["records_left"] == 5
        assert host.done == ["apply", "remove"]
        assert events(log, "gateway_stopped")[0]["sinks"]["stdout"]["waiting"] == 2

    def test_a_blocked_stdout_ends_with_shutdown_timeout(
        self, lab: Laboratory, stdout: Stdout, meanwhile: Meanwhile, log: list[Any]
    ) -> None:
        """A reader that never reads costs its records, and the end comes in time."""
        lab.write(timeout="300ms")
        stdout.fill()
        engine = Engine(meanwhile(until(stdout.waits), term), Batch("a"))
        start = time.monotonic()
        assert lab.app(engine, flow_logs=True, stdout=stdout.sink).run() == 1
        assert 0.3 <= time.monotonic() - start < 5
        (cut,) = events(log, "shutdown_cut_short")
        assert cut["by"] == "the end of shutdown_timeout (0.3 s)"
        assert cut["records_left"] == 1

    def test_a_slow_reader_gets_everything_in_time(self, lab: Laboratory, stdout: Stdout, meanwhile: Meanwhile) -> None:
        """A reader that reads late, within the time of the shutdown, gets every record; exit 0."""
        stdout.fill()
        engine = Engine(
            meanwhile(until(stdout.waits), term, until(lambda: engine.stopped), stdout.empty),
            Batch("a"),
            after_stop=[Batch("b")],
        )
        assert lab.app(engine, flow_logs=True, stdout=stdout.sink).run() == 0
        assert [line["uid"] for line in stdout.read()] == ["a", "b"]

    @pytest.mark.parametrize("swallows", [False, True])
    def test_a_handler_that_hangs_is_cut_off(
        self, lab: Laboratory, meanwhile: Meanwhile, log: list[Any], swallows: bool
    ) -> None:
        """A second signal gets through to a handler that waits, and its batch counts as left."""
        called = lab.folder / "called"
        lab.handlers(
            f"import pathlib, time\ndef h(flow):\n    pathlib.Path({str(called)!r}).touch()\n"
            + ("    try: time.sleep(60)\n    except: pass\n" if swallows else "    time.sleep(60)\n")
        )
        lab.write('[[handlers]]\nload = "handlers.py:h"\n')
        signals = meanwhile(until(called.exists), term, until(lambda: engine.stopped), term)
        engine = Engine(signals, Batch("a"), after_stop=[Batch("b")])
        start = time.monotonic()
        assert lab.app(engine).run() == 1
        assert time.monotonic() - start < 30
        assert events(log, "shutdown_cut_short")[0]["records_left"] == (1 if swallows else 2)

    def test_a_signal_during_the_start_is_heard(self, lab: Laboratory, log: list[Any]) -> None:
        """It ends the gateway as soon as there is one to end, also before its host is set up."""
        engine = Engine()

        def slow_start(config: Config, **options: Any) -> Engine:
            term()
            return engine

        assert lab.app(engine, gateway_factory=slow_start).run() == 0
        assert engine.stopped > 0
        assert [entry["event"] for entry in log] == ["gateway_started", "gateway_stopping", "gateway_stopped"]

    def test_what_the_engine_has_to_say_is_in_the_log(self, lab: Laboratory, log: list[Any]) -> None:
        """Each line once."""
        engine = Engine(Batch("a"), Batch("b"), term)
        engine.says = ["one thing", "and another"]
        assert lab.app(engine).run() == 0
        assert [entry["message"] for entry in events(log, "engine")] == ["one thing", "and another"]

    def test_an_engine_that_ends_by_itself_is_a_failure(self, lab: Laboratory, log: list[Any]) -> None:
        """Nobody asked for the end: exit 1, said, and the host's setup is taken back."""
        host = Host()
        assert lab.app(Engine(Batch("a"), None), host).run() == 1
        assert events(log, "gateway_ended_by_itself")
        assert host.done == ["apply", "remove"]

    def test_an_engine_that_died_is_told_with_what_is_known(
        self, lab: Laboratory, stdout: Stdout, log: list[Any]
    ) -> None:
        """Its counters are gone with it; the sinks' are not, and the books are not called balanced."""
        engine, host, file = Engine(Batch("a"), None), Host(), lab.folder / "stats.json"
        engine.dead = True
        assert lab.app(engine, host, flow_logs=True, stats_file=file, stdout=stdout.sink).run() == 1
        (stopped,) = events(log, "gateway_stopped")
        assert stopped["balanced"] is False
        assert stopped["sinks"]["stdout"]["delivered"] == 1
        assert json.loads(file.read_text())["error"] == "the gateway's worker has died"
        assert host.done == ["apply", "remove"]

    def test_a_bug_leaves_nothing_behind(self, lab: Laboratory) -> None:
        """Whatever is raised in the loop, the engine is stopped and the host's setup taken back."""

        def bug() -> None:
            raise RuntimeError("a bug")

        engine, host = Engine(bug), Host()
        with pytest.raises(RuntimeError, match="a bug"):
            lab.app(engine, host).run()
        assert engine.stopped > 0
        assert host.done == ["apply", "remove"]

    def test_a_host_that_cannot_be_put_back_is_said(self, lab: Laboratory, log: list[Any]) -> None:
        """The end goes on; exit 1."""
        assert lab.app(Engine(term), Host(fails="remove")).run() == 1
        assert events(log, "host_not_restored")[0]["reason"] == "remove failed"
        assert events(log, "gateway_stopped")


class TestReload:
    """SIGHUP takes over everything or nothing."""

    def test_peers_rules_and_handlers_are_taken_over(self, lab: Laboratory, stdout: Stdout, log: list[Any]) -> None:
        """The engine, the host and the next record meet the new configuration."""

        def change() -> None:
            lab.handlers(
                "import fzgw\nclass New(fzgw.FlowHandler):\n"
                "    def on_open(self, flow): pass\n    def on_close(self, flow): raise ValueError('new')\n"
            )
            lab.write('[[rules]]\nname = "all"\n[[handlers]]\nload = "handlers.py:New"\n')

        engine, host = Engine(Batch("a"), change, hup, Batch("b"), term), Host()
        assert lab.app(engine, host, flow_logs=True, stdout=stdout.sink).run() == 0
        ((config, options),) = engine.reloads
        assert [rule.name for rule in config.rules] == ["all"]
        assert options == {"flow_logs": True, "open_events": True}
        assert host.done == ["apply", "update", "remove"]
        assert host.configs[-1] is config
        assert [line["error"] for line in stdout.read()] == [None, "New.on_close: ValueError: new"]
        (reloaded,) = events(log, "gateway_reloaded")
        assert (reloaded["rules"], reloaded["handlers"]) == (1, 1)

    @pytest.mark.parametrize(
        ("more", "handlers", "listen", "reasons"),
        [
            ("[[rules]]\nbad = 1\n[[peers]]\n", None, 51820, ["rules[0].name", "peers[0]"]),
            ("", None, 51821, ["gateway.listen has changed: that needs a restart"]),
            (
                '[[sinks]]\ntype = "stdout"\n[nat]\nmode = "none"\n',
                None,
                51821,
                ["gateway.listen has changed", "sinks has changed"],
            ),
            ('[[handlers]]\nload = "handlers.py:plain"\n', "def plian(flow): pass\n", 51820, ["did you mean plian?"]),
            ('[[handlers]]\nload = "handlers.py:plain"\n', "1 / 0\n", 51820, ["handlers.py:1: ZeroDivisionError"]),
        ],
    )
    def test_an_error_changes_nothing(
        self,
        lab: Laboratory,
        stdout: Stdout,
        log: list[Any],
        more: str,
        handlers: str | None,
        listen: int,
        reasons: list[str],
    ) -> None:
        """Every line of what is wrong is logged; engine, host and handlers stay."""
        lab.handlers("def plain(flow): raise ValueError('old')\n")
        lab.write('[[handlers]]\nload = "handlers.py:plain"\n')

        def change() -> None:
            if handlers is not None:
                lab.handlers(handlers)
            lab.write(more, listen=listen)

        engine, host = Engine(change, hup, Batch("a"), term), Host()
        assert lab.app(engine, host, flow_logs=True, stdout=stdout.sink).run() == 0
        assert engine.reloads == []
        assert host.done == ["apply", "remove"]
        assert [line["error"] for line in stdout.read()] == ["plain: ValueError: old"]
        refused = [entry["reason"] for entry in events(log, "reload_refused")]
        assert all("\n" not in line for line in refused)
        for reason in reasons:
            assert any(reason in line for line in refused), refused

    def test_a_host_that_refuses_leaves_the_engine_alone(self, lab: Laboratory, log: list[Any]) -> None:
        """The host has put itself back then, and the engine was not asked yet."""
        engine = Engine(hup, term)
        assert lab.app(engine, Host(fails="update")).run() == 0
        assert engine.reloads == []
        assert [entry["reason"] for entry in events(log, "reload_refused")] == ["update failed"]

    def test_an_engine_that_refuses_gets_the_host_put_back(self, lab: Laboratory, log: list[Any]) -> None:
        """All or nothing, on the host too."""
        engine, host = Engine(hup, term, refuses_reload=True), Host()
        gateway = lab.app(engine, host)
        assert gateway.run() == 0
        assert host.done == ["apply", "update", "update", "remove"]
        assert host.configs[-1] is host.configs[0]
        assert [entry["reason"] for entry in events(log, "reload_refused")] == ["the engine refuses"]

    def test_a_reload_is_heard_while_stdout_blocks(self, lab: Laboratory, stdout: Stdout, meanwhile: Meanwhile) -> None:
        """A slow reader does not keep a removed peer connected."""
        stdout.fill()
        acts = meanwhile(until(stdout.waits), hup, until(lambda: engine.reloads), stdout.empty, term)
        engine = Engine(acts, Batch("a"))
        assert lab.app(engine, flow_logs=True, stdout=stdout.sink).run() == 0
        assert len(engine.reloads) == 1
        assert [line["uid"] for line in stdout.read()] == ["a"]


class TestStatistics:
    """--stats-file."""

    def test_written_at_sigusr1_and_at_the_end(self, lab: Laboratory, stdout: Stdout) -> None:
        """The engine's statistics, and beside them what became of the records after it."""
        file = lab.folder / "stats.json"
        seen: list[dict[str, Any]] = []

        def look() -> None:
            seen.append(json.loads(file.read_text()))
            file.unlink()

        engine = Engine(Batch("a"), usr1, Batch(), look, Batch("b"), term)
        lab.app(engine, flow_logs=True, stats_file=file, stdout=stdout.sink).run()
        look()
        assert [stats["rendered"] for stats in seen] == [1, 2]
        assert seen[1] == {
            **engine.stats(),
            "rendered": 2,
            "omitted": 0,
            "sinks": {"stdout": {"rendered": 2, "delivered": 2, "waiting": 0, "refused": 0}},
            "handlers": [],
            "remarks": {"flows": 0, "forgotten": 0},
        }
        assert sorted(path.name for path in lab.folder.iterdir() if "stats" in path.name) == []

    def test_without_a_file_sigusr1_does_nothing(self, lab: Laboratory) -> None:
        """The signal's default would end the process."""
        assert lab.app(Engine(usr1, term)).run() == 0

    def test_a_file_that_cannot_be_written_is_said(self, lab: Laboratory, log: list[Any]) -> None:
        """And ends nothing."""
        assert lab.app(Engine(usr1, Batch("a"), term), stats_file=lab.folder / "no" / "stats.json").run() == 0
        assert {entry["reason"] for entry in events(log, "stats_not_written")} == {"No such file or directory"}


class TestRealEngine:
    """The real engine on its in-memory device, with a WireGuard client."""

    def test_a_flow_from_the_client_to_the_record(
        self, lab: Laboratory, stdout: Stdout, meanwhile: Meanwhile, log: list[Any]
    ) -> None:
        """Handlers see the flow open (R18) and close, across a reload; its record is valid and numbered (L4), and every
        ledger balances."""
        opened = lab.folder / "opened"
        lab.handlers(
            "import fzgw, pathlib\nseen = []\nclass Night(fzgw.FlowHandler):\n"
            "    def on_open(self, flow: fzgw.Flow):\n"
            "        seen.append(flow.uid)\n"
            f"        pathlib.Path({str(opened)!r}).write_text(f'{{flow.peer.name}} {{flow.dst_port}}')\n"
            "    def on_close(self, flow: fzgw.Flow):\n"
            "        raise ValueError(len(seen), flow.bytes_out, flow.bytes_in, flow.end_reason)\n"
        )
        private_key = _core.generate_private_key()
        peer = peer_table("laptop", "100.64.0.2/32", public_key=key_text(_core.public_key(private_key)))
        lab.write(f'[[handlers]]\nload = "handlers.py:Night"\n{peer}', listen=0)
        question = udp_packet("100.64.0.2", "203.0.113.10", (5000, 53), b"hello")
        answer = udp_packet("203.0.113.10", "100.64.0.2", (53, 5000), b"world!")
        engines: list[_core.Gateway] = []

        def start(config: Config, **options: Any) -> _core.Gateway:
            engines.append(_core.Gateway.start(config, **options))
            meanwhile(traffic)()
            return engines[0]

        def traffic() -> None:
            engine = engines[0]
            with Client(
                gateway_key=load(lab.file).gateway.public_key,
                endpoint=f"127.0.0.1:{engine.port}",
                addresses=["100.64.0.2/32"],
                private_key=private_key,
            ) as client:
                client.send(question)
                assert engine.memory_recv(10.0) == question
                until(opened.exists)()
                hup()
                until(lambda: events(log, "gateway_reloaded"))()
                engine.memory_send(answer)
                assert client.receive(10.0) == answer
            term()

        options = {"gateway_factory": start, "host_factory": None, "memory": True}
        assert lab.app(Engine(), flow_logs=True, stdout=stdout.sink, **options).run() == 0
        (line,) = stdout.lines()
        record = ocsf.validate(line)
        assert record["metadata"]["sequence"] == 1
        assert record["src_endpoint"]["name"] == "laptop"
        assert opened.read_text() == "laptop 53"
        # The reload came between open and close, and imported the handlers anew: they have seen no opening.
        assert record["unmapped"]["handler_error"] == "Night.on_close: ValueError: (0, 33, 34, 'shutdown')"
        (stopped,) = events(log, "gateway_stopped")
        assert stopped["balanced"] is True
        assert stopped["records"] == {"made": 1, "handed": 1, "lost": 0, "handler_missed": 0}
        assert stopped["rendered"] == 1

    def test_its_own_start_error_leaves_nothing_behind(self, lab: Laboratory) -> None:
        """A UDP port that is in use is an error at the start, in one clear line."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("0.0.0.0", 0))
            port = other.getsockname()[1]
            lab.write(listen=port)
            with pytest.raises(_core.StartError, match=str(port)) as caught:
                lab.app(Engine(), gateway_factory=None, memory=True).run()
        assert caught.value.kind == "port_in_use"
        assert "\n" not in str(caught.value)


class TestCommand:
    """`fzgw run`."""

    @pytest.fixture(autouse=True)
    def _as_before(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """The log of this process stays as it is."""
        monkeypatch.setattr(logs, "configure", lambda level: None)
        yield
        structlog.reset_defaults()

    def test_options_reach_the_app(self, lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each option, and the overrides at every reload too; the app's exit code is the command's."""
        seen: dict[str, Any] = {}

        class Recorder:
            def __init__(self, config: Config, **options: Any) -> None:
                seen.update(options, config=config)

            def run(self) -> int:
                print("a handler prints")
                return 1

        monkeypatch.setattr(app, "App", Recorder)
        options = ["--flow-logs", "--handler", "a.py:a", "--handler", "b.py:b", "--set", "gateway.listen=7"]
        result = CliRunner().invoke(main, ["run", str(lab.file), *options, "--stats-file", "s.json"])
        assert result.exit_code == 1
        assert (result.stdout, result.stderr) == ("", "a handler prints\n")
        assert seen["config"].gateway.listen == 7
        assert seen["load_config"]().gateway.listen == 7
        del seen["config"], seen["load_config"]
        assert seen == {"flow_logs": True, "handlers": ("a.py:a", "b.py:b"), "stats_file": Path("s.json")}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--handler", "nowhere.py:h"], "handler nowhere.py:h: "),
            (["--set", "gateway.listen=x"], "gateway.listen"),
        ],
    )
    def test_a_wrong_configuration_is_exit_3(self, lab: Laboratory, options: list[str], message: str) -> None:
        """A handler that cannot be loaded is an error of the configuration, told in one line, on stderr."""
        result = CliRunner().invoke(main, ["run", str(lab.file), *options])
        assert result.exit_code == 3
        assert result.stdout == ""
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
