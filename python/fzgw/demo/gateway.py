"""The real gateway, as a process of its own in its namespace: `python -m fzgw run`."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from fzgw.demo.errors import DemoError
from fzgw.demo.linux import die_with_parent
from fzgw.demo.namespaces import NetworkNamespace

_START_PATIENCE: Final = 15.0
_STOP_PATIENCE: Final = 12.0
_LOG_LINES: Final = 20

# An abstract address (systemd writes its zero byte as "@") belongs to the network namespace: no other run meets it.
_NOTIFY_ADDRESS: Final = "@fzgw-demo"
_POLL: Final = 0.1


class GatewayProcess:
    """The gateway's process; a context manager that ends it. `records` gives its stdout line by line, None at the end.

    `DemoError` with the end of the gateway's log when it does not start.
    """

    def __init__(self, namespace: NetworkNamespace, configuration: Path) -> None:
        self.records: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._log = configuration.with_name("gateway.log")
        self._stats = configuration.with_name("stats.json")
        command = [sys.executable, "-m", "fzgw", "run", str(configuration)]
        command += ["--flow-logs", "--stats-file", str(self._stats)]
        # A child is born in the namespace of the thread that starts it. A session of its own: Ctrl-C reaches the demo
        # alone, which ends the gateway in its turn; the kernel ends it when the demo itself is killed.
        with self._log.open("wb") as log, namespace.entered():
            self._notified = _notify_socket()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": _NOTIFY_ADDRESS},
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=_STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        self._notified.close()

    def wait_until_ready(self) -> None:
        """Return when it listens for WireGuard and has set up its host, which it tells as it would tell systemd."""
        for _ in range(round(_START_PATIENCE / _POLL)):
            try:
                if b"READY=1" in self._notified.recv(1024).split(b"\n"):
                    return
            except TimeoutError:
                if self._process.poll() is not None:
                    message = f"the gateway ended at its start with exit code {self._process.returncode}"
                    raise DemoError(message) from None
        raise DemoError(f"the gateway was not ready within {_START_PATIENCE:g} s")

    def shut_down(self) -> None:
        """Ask it to end, which closes every flow (R27), and wait for that; `DemoError` when it does not end well."""
        self._process.terminate()
        try:
            code = self._process.wait(timeout=_STOP_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"the gateway did not end within {_STOP_PATIENCE:g} s of SIGTERM") from error
        if code != 0:
            raise DemoError(f"the gateway ended with exit code {code} after SIGTERM")

    def stats(self) -> dict[str, Any]:
        """The last counters that it wrote; `DemoError` when there are none."""
        try:
            stats = json.loads(self._stats.read_text())
        except (OSError, ValueError) as error:
            raise DemoError(f"the gateway left no counters: {error}") from error
        if not isinstance(stats, dict):
            raise DemoError(f"the gateway's counters are not a table: {stats!r}")
        return stats

    def log_tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:])

    def _ready(self) -> bool:
        raise NotImplementedError

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.records.put(line)
        self.records.put(None)


def _notify_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.bind(_NOTIFY_ADDRESS.replace("@", "\0"))
        made.settimeout(_POLL)
    except BaseException:
        made.close()
        raise
    return made
