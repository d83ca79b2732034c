"""Captures through the flow engine, for Python: `fzgw.read`, and what it shares with `fzgw replay`.

The engine reads on a thread of its own and hands over batches of records; its queue is short, so that it is never far
ahead of whoever reads, and memory does not grow with the capture.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fzgw._core import Flow, Replay

if TYPE_CHECKING:
    from fzgw.config import Config, FlowLogsConfig

BATCH = 8192
"""Records taken from the engine at a time: more than it puts into a batch, so that none has to be cut."""

POLL = 0.2
"""Seconds after which a wait for the engine comes back, so that Ctrl-C is heard."""

STDIN = "-"
"""What standard input is called among paths."""


class CaptureError(Exception):
    """A capture that cannot be read to its end, or is none. `str()` is one line that names the file, and the offset in
    it where something is wrong."""


def read(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    config: str | os.PathLike[str] | Config | None = None,
    set: Mapping[str, object] | None = None,
    updates: bool = False,
) -> Generator[Flow, None, None]:
    """The flows of a capture, one `Flow` a flow (its close record), in the order in which they end.

    `path` is a pcap or pcapng file, plain, gzip or zstd; "-" is standard input; several files are read in their order
    as one capture. `config` is a gateway's configuration, or the path of one: peers are then found by their allowed
    IPs. `set` has keys for this reading alone, such as ``{"flow_logs.idle.tcp": "300s"}``; where `config` is no path,
    keys of `flow_logs`. With `updates` every record of a flow is yielded: open, update and close.

    Reading begins with the first flow that is asked for, keeps pace with whoever asks, and ends when the generator is
    closed or forgotten.

    Raises at once: OSError for a file that cannot be opened, `fzgw.ConfigErrors`. While reading: `CaptureError`, after
    everything that came before the fault was yielded.
    """
    paths = [os.fspath(one) for one in ([path] if isinstance(path, str | os.PathLike) else path)]
    check_readable(paths)
    overrides = [f"{key}={_toml(value)}" for key, value in (set or {}).items()]
    loaded, flow_logs = configured(config, overrides)
    return _flows(paths, loaded, flow_logs, updates)


def _flows(
    paths: Sequence[str], config: Config | None, flow_logs: FlowLogsConfig | None, updates: bool
) -> Generator[Flow, None, None]:
    replay = Replay.start(paths, config=config, flow_logs=flow_logs, updates=updates)
    try:
        while (batch := replay.recv(BATCH, POLL)) is not None:
            for record in batch:
                if isinstance(record, Flow):
                    yield record
    finally:
        replay.stop()
    if replay.error is not None:
        raise CaptureError(replay.error)


def configured(
    config: str | os.PathLike[str] | Config | None, overrides: Sequence[str]
) -> tuple[Config | None, FlowLogsConfig | None]:
    """What `fzgw._core.Replay.start` takes for a configuration (or the path of one) with `overrides` such as
    ``flow_logs.idle.tcp=300s``. Without a path these can be keys of `flow_logs` alone.

    Raises ConfigErrors.
    """
    # The configuration's models take longer to import than a small capture to read.
    if isinstance(config, str | os.PathLike):
        from fzgw.config import load

        return load(Path(config), overrides), None
    if not overrides:
        return config, None
    from fzgw.config import load_flow_logs

    return config, load_flow_logs(overrides, None if config is None else config.flow_logs)


def check_readable(paths: Sequence[str]) -> None:
    """Raises OSError for the first file that is not there or may not be read. A pipe is not touched."""
    for path in paths:
        if path == STDIN:
            continue
        mode = Path(path).stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            with Path(path).open("rb"):
                """It can be opened; the engine reads it."""


def _toml(value: object) -> str:
    """A value of Python's as `--set` takes it: text needs no quotes there."""
    return str(value).lower() if isinstance(value, bool) else str(value)
