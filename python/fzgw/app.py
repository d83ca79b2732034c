"""The running gateway: what happens between the engine and the sinks, and what signals do.

The walk of `App.run`:

1. `_start` loads the handlers, opens the sinks, starts the engine, sets up the host. Whatever fails leaves nothing
   behind and is raised as an exception whose text is one clear line;
2. `_serve` takes batches from the engine, shows them to the handlers, has them rendered once and gives the lines to
   every sink. A sink that is slow holds up this loop, never a packet: the engine's channel fills and counts its losses;
3. signals set flags, which the loop looks at between two batches and while it waits for a sink. The first SIGTERM or
   SIGINT ends every flow and gives the loop `limits.shutdown_timeout` seconds to deliver the rest (R27); the second
   one, or the end of that time, cuts it short, out of a handler too;
4. `_finish` takes the host's setup back and closes the books.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from fzgw import logs
from fzgw.handlers import HandlerSet, ShutdownCut, load_handlers
from fzgw.sinks import Sink
from fzgw.sinks.stdout import StdoutSink

if TYPE_CHECKING:
    from fzgw.config import Config
    from fzgw.remarks import Remarks

BATCH = 1000
"""Records taken from the engine at a time."""

POLL = 0.2
"""Seconds after which the loop looks at its flags, whatever it waits for."""

COUNT_PATIENCE = 0.5
"""Seconds for counting what a shutdown that was cut short leaves behind."""

LEDGERS = ("packets", "bytes", "flows", "denied", "records", "rendered", "omitted", "sinks")
"""What the closing log line tells of `App.stats`."""

NEEDS_RESTART = (
    "gateway.private_key",
    "gateway.listen",
    "gateway.interface",
    "gateway.mtu",
    "gateway.tun_offload",
    "gateway.state_dir",
    "sinks",
)
"""Keys whose change a reload refuses: what was opened with them at the start stays open."""


class Batch(Protocol):
    """What `App` asks of a batch of records (`fzgw._core.Batch`)."""

    @property
    def opened(self) -> Sequence[Any]:
        """The flows that opened: events for `on_open`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def render(self, format: str, sequence: int, remarks: Mapping[int, Remarks] | None = None) -> tuple[bytes, int]:
        """One JSON line a record that is not omitted, numbered from `sequence`; and how many."""


class Gateway(Protocol):
    """What `App` asks of the engine (`fzgw._core.Gateway`)."""

    @property
    def interface(self) -> str:
        """The name of its network device."""

    @property
    def port(self) -> int:
        """The UDP port it listens on."""

    @property
    def tun_offload(self) -> str:
        """What its device can do beyond one packet a call."""

    def notices(self) -> list[str]:
        """What the operator should hear of since the last call, a line each."""

    def recv(self, max: int = ..., timeout: float = ...) -> Batch | None:
        """The next records, an empty batch when the time is over, None when it has ended and all is taken."""

    def reload(self, config: Config, *, flow_logs: bool, open_events: bool = ...) -> None:
        """Takes over another configuration, all or nothing."""

    def stats(self) -> dict[str, Any]:
        """Its counters and ledgers."""

    def stop(self) -> None:
        """Begins to end; returns at once."""


class Host(Protocol):
    """What `App` asks of the host's setup (`fzgw.host.HostSetup`): addresses, routes, forwarding, NAT."""

    def apply(self) -> None:
        """Sets the host up."""

    def update(self, config: Config) -> None:
        """Follows another configuration; raises with the host as it was before the call."""

    def remove(self) -> None:
        """Takes everything back."""


class GatewayFactory(Protocol):
    """Starts an engine: `fzgw._core.Gateway.start`, or a test's."""

    def __call__(self, config: Config, *, flow_logs: bool, open_events: bool, memory: bool) -> Gateway:
        """A running one; raises `fzgw._core.StartError`."""


HostFactory = Callable[["Config", str], Host]
"""Makes the host's setup for a configuration and the name of its interface."""


class ReloadError(Exception):
    """A configuration that is valid, but cannot be had without a restart. `str()` has one line for each key."""


class App:
    """A gateway as `fzgw run` runs it, in the main thread of its process: it takes over the process's signals.

    `config` is what it starts with, `load_config` reads it again at SIGHUP (and raises when it is wrong). `flow_logs`
    asks for records on stdout beside what the configuration and `RUST_LOG` in `environ` say; `handlers` are further
    ones, `file.py:name` relative to the working directory. `stats_file` gets `stats()` as JSON at SIGUSR1 and at the
    end. `memory` runs on the in-memory device, without privilege and without touching the host.
    """

    def __init__(
        self,
        config: Config,
        *,
        load_config: Callable[[], Config],
        flow_logs: bool = False,
        handlers: Sequence[str] = (),
        stats_file: Path | None = None,
        memory: bool = False,
        environ: Mapping[str, str] = os.environ,
        gateway_factory: GatewayFactory | None = None,
        host_factory: HostFactory | None = None,
        stdout: Sink | None = None,
    ) -> None:
        self._config = config
        self._load_config = load_config
        self._more_handlers = [(spec, Path.cwd()) for spec in handlers]
        self._stats_file = stats_file
        self._memory = memory
        self._environ = environ
        self._start_gateway = gateway_factory or _start_core
        self._make_host = host_factory or (_no_host if memory else _host_setup)

        wants_stdout = flow_logs or logs.flow_logs_enabled(environ) or any(s.type == "stdout" for s in config.sinks)
        self._sinks: list[Sink] = [stdout or StdoutSink()] if wants_stdout else []
        self._handlers = HandlerSet()
        self._gateway: Gateway | None = None
        self._host: Host | None = None
        self._log = logs.get_logger()

        self._sequence = 1
        self._omitted = 0
        self._in_hand = 0  # records taken from the engine and not yet given to the sinks
        self._drained = False

        self._stopped_by: str | None = None
        self._stop_told = False
        self._cut: str | None = None
        self._cuttable = False
        self._reload_asked = False
        self._stats_asked = False

    def run(self) -> int:
        """Runs until a signal ends it, or the engine ends by itself. Returns the exit code: 0, or 1 when records were
        left behind or nobody had asked for the end.

        Raises at the start: `HandlerError`, `SinkError`, `fzgw._core.StartError`, `fzgw.host.HostError`.
        """
        self._handlers = self._load_handlers(self._config)
        for sink in self._sinks:
            sink.open()
        with self._signals():
            gateway = self._start()
            try:
                self._serve(gateway)
            finally:
                code = self._finish(gateway)
        return code

    def stats(self) -> dict[str, Any]:
        """The engine's `stats()`, and beside them: `rendered` and `omitted` (records), `sinks` (their ledgers by name),
        `handlers` (what became of their calls), `remarks` (flows that something sticks to)."""
        return {
            **self._engine_stats(),
            "rendered": self._sequence - 1,
            "omitted": self._omitted,
            "sinks": {sink.name: asdict(sink.counts) for sink in self._sinks},
            "handlers": self._handlers.stats(),
            "remarks": self._handlers.remark_stats(),
        }

    def _engine_stats(self) -> dict[str, Any]:
        if self._gateway is None:
            return {}
        try:
            return self._gateway.stats()
        except RuntimeError as error:  # its worker has died: what else is known must still be told
            return {"balanced": False, "error": str(error)}

    # Start and end.

    def _start(self) -> Gateway:
        from fzgw.config import keep_uid

        config = self._config
        gateway = self._start_gateway(
            config, flow_logs=self._flow_logs, open_events=self._handlers.wants_open, memory=self._memory
        )
        self._gateway = gateway
        if self._stopped_by is not None:  # a signal that came before there was anything to stop
            gateway.stop()
        try:
            self._host = self._make_host(config, gateway.interface)
            self._host.apply()
            uid_kept = keep_uid(config)
        except BaseException:
            self._abandon(gateway)
            raise

        for warning in config.warnings:
            tell = self._log.warning if warning.level == "warning" else self._log.info
            tell("configuration", message=str(warning))
        if not uid_kept:
            self._log.warning("uid_not_kept", state_dir=str(config.gateway.state_dir), uid=config.gateway.uid)
        self._log.info(
            "gateway_started",
            interface=gateway.interface,
            tun_offload=gateway.tun_offload,
            port=gateway.port,
            public_key=base64.b64encode(config.gateway.public_key).decode(),
            peers=len(config.peers),
            nat=config.nat.mode,
            flow_logs="on" if self._flow_logs else "off",
            handlers=len(self._handlers),
        )
        self._notify("READY=1")
        return gateway

    def _abandon(self, gateway: Gateway) -> None:
        """Ends an engine whose host could not be set up, and takes back what was."""
        gateway.stop()
        _count_rest(gateway)
        self._remove_host()

    def _finish(self, gateway: Gateway) -> int:
        """Leaves nothing behind, says what was left undone, and closes the books."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        cut = self._cut
        gateway.stop()
        left = 0 if self._drained else _count_rest(gateway)
        left += self._in_hand + max((sink.counts.waiting for sink in self._sinks), default=0)
        removed = self._remove_host()
        stats = self.stats()
        for sink in self._sinks:
            sink.close()
        self._write_stats()

        if left or cut is not None:
            self._log.error("shutdown_cut_short", by=cut, records_left=left)
        if self._stopped_by is None:
            self._log.error("gateway_ended_by_itself", reason=stats.get("error"))
        self._log.info(
            "gateway_stopped",
            signal=self._stopped_by,
            balanced=bool(stats.get("balanced")) and all(sink.counts.balanced() for sink in self._sinks),
            **{name: stats[name] for name in LEDGERS if name in stats},
        )
        return 0 if removed and not left and cut is None and self._stopped_by is not None else 1

    def _remove_host(self) -> bool:
        if self._host is None:
            return True
        try:
            self._host.remove()
        except Exception as error:  # noqa: BLE001 - the end goes on, and says so
            self._log.error("host_not_restored", reason=str(error))
            return False
        return True

    # The loop.

    def _serve(self, gateway: Gateway) -> None:
        with contextlib.suppress(ShutdownCut):
            while self._cut is None:
                batch = gateway.recv(BATCH, POLL)
                self._drained = batch is None
                self._in_hand = 0 if batch is None else len(batch)
                self._cuttable = True
                try:
                    self._attend()
                    for message in gateway.notices():
                        self._log.warning("engine", message=message)
                    if batch is None:
                        return
                    self._deliver(batch)
                finally:
                    self._cuttable = False

    def _deliver(self, batch: Batch) -> None:
        remarks = self._handlers.run(batch)
        if self._sinks and self._in_hand:
            lines, count = batch.render("ocsf", self._sequence, remarks)
            self._sequence += count
            self._omitted += self._in_hand - count
            for sink in self._sinks:
                sink.write(lines, count)
        self._in_hand = 0
        for sink in self._sinks:
            while not sink.flush(POLL) and self._cut is None:
                self._attend()

    def _attend(self) -> None:
        """Does what signals have asked for."""
        if self._stopped_by is not None and not self._stop_told:
            self._stop_told = True
            self._notify("STOPPING=1")
            self._log.info("gateway_stopping", signal=self._stopped_by, timeout=self._config.limits.shutdown_timeout)
        if self._stats_asked:
            self._stats_asked = False
            self._write_stats()
        if self._reload_asked and self._stopped_by is None:
            self._reload_asked = False
            self._reload()

    # Reload.

    def _reload(self) -> None:
        """Takes over what the configuration says now, all of it or nothing."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._take_over(self._load_config())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the new configuration, the old one runs on
            for line in str(error).splitlines() or [type(error).__name__]:
                self._log.error("reload_refused", reason=line)
        else:
            config = self._config
            self._log.info(
                "gateway_reloaded",
                peers=len(config.peers),
                rules=len(config.rules),
                flow_logs="on" if self._flow_logs else "off",
                handlers=len(self._handlers),
            )
        self._notify("READY=1")

    def _take_over(self, config: Config) -> None:
        assert self._gateway is not None
        assert self._host is not None
        changed = [key for key in NEEDS_RESTART if attrgetter(key)(config) != attrgetter(key)(self._config)]
        if changed:
            raise ReloadError("\n".join(f"{_written(key)} has changed: that needs a restart" for key in changed))
        handlers = self._load_handlers(config)

        # The host first: a route that comes too early or goes too late costs nothing, a peer that was removed and put
        # back has lost its flows.
        self._host.update(config)
        try:
            self._gateway.reload(config, flow_logs=self._records_wanted_by(handlers), open_events=handlers.wants_open)
        except Exception:
            self._host.update(self._config)
            raise
        handlers.inherit(self._handlers)
        self._config = config
        self._handlers = handlers

    def _load_handlers(self, config: Config) -> HandlerSet:
        configured = [(handler.load, config.path.parent) for handler in config.handlers]
        return load_handlers([*configured, *self._more_handlers], max_flows=config.flow_logs.max_flows)

    @property
    def _flow_logs(self) -> bool:
        return self._records_wanted_by(self._handlers)

    def _records_wanted_by(self, handlers: HandlerSet) -> bool:
        """Whether the engine makes records: with no sink and no handler flow logs are off and cost nothing."""
        return bool(self._sinks) or len(handlers) > 0

    # Signals.

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        handlers = {
            signal.SIGTERM: self._on_stop_signal,
            signal.SIGINT: self._on_stop_signal,
            signal.SIGALRM: self._on_alarm,
            signal.SIGHUP: self._on_reload_signal,
            signal.SIGUSR1: self._on_stats_signal,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_stop_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._stopped_by is not None:
            self._cut_short(f"a second signal, {signal.Signals(number).name}")
            return
        self._stopped_by = signal.Signals(number).name
        signal.setitimer(signal.ITIMER_REAL, self._config.limits.shutdown_timeout)
        if self._gateway is not None:  # at once, whatever a handler or a sink is busy with
            self._gateway.stop()

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        self._cut_short(f"the end of shutdown_timeout ({self._config.limits.shutdown_timeout:g} s)")

    def _cut_short(self, by: str) -> None:
        if self._cut is None:
            self._cut = by
        if self._cuttable:
            self._cuttable = False
            raise ShutdownCut

    def _on_reload_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_asked = True

    def _on_stats_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stats_asked = True

    # Telling others.

    def _write_stats(self) -> None:
        """Writes the counters where they were asked for; nobody reads half a file."""
        if self._stats_file is None:
            return
        unfinished = self._stats_file.with_name(f".{self._stats_file.name}.{os.getpid()}")
        try:
            unfinished.write_text(json.dumps(self.stats(), indent=2, default=str) + "\n", encoding="utf-8")
            unfinished.replace(self._stats_file)
        except OSError as error:
            self._log.error("stats_not_written", file=str(self._stats_file), reason=error.strerror)

    def _notify(self, state: str) -> None:
        """Tells systemd, where it has started us with Type=notify (sd_notify(3))."""
        address = self._environ.get("NOTIFY_SOCKET", "")
        if not address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
                notifier.settimeout(POLL)
                notifier.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            self._log.warning("notify_failed", socket=address, reason=str(error))


class _NoHost:
    """The host's setup for an engine that has no device on the host."""

    def apply(self) -> None: ...

    def update(self, config: Config) -> None: ...

    def remove(self) -> None: ...


def _no_host(_config: Config, _interface: str) -> Host:
    return _NoHost()


def _host_setup(config: Config, interface: str) -> Host:
    from fzgw.host import HostSetup

    return HostSetup(config, interface)


def _start_core(config: Config, *, flow_logs: bool, open_events: bool, memory: bool) -> Gateway:
    from fzgw import _core

    return _core.Gateway.start(config, flow_logs=flow_logs, open_events=open_events, memory=memory)


def _count_rest(gateway: Gateway) -> int:
    """Takes what an ending engine still has, and says how many records that was."""
    records = 0
    deadline = time.monotonic() + COUNT_PATIENCE
    while time.monotonic() < deadline:
        batch = gateway.recv(BATCH, POLL)
        if batch is None:
            break
        records += len(batch)
    return records


def _written(key: str) -> str:
    """A key as the configuration file has it."""
    return f"{key}_file" if key == "gateway.private_key" else key
