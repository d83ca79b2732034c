"""The namespaces of the comparison harness, for what its `run.py` does not measure.

The same topology (`topo-up.sh`), addresses, ports, client and lock as `run.py` has: a wireguard-go client, one gateway,
a server with iperf3 and the short-connection server of `churn`. Namespaces are named by `P` in the environment, or
after this process; interfaces are named after this process too, because WireGuard's control sockets are found by the
interface's name alone, whatever the namespace. Used by `ping.py`, `toggle.py` and `flames.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self, TypeVar

T = TypeVar("T")

SERVER = "10.77.2.2"
GATEWAY_OUTER = "10.77.1.1"
PORT = 51820
MTU = 1420
STREAM_PORT, CHURN_PORT = 5301, 5302
DIRECTIONS = {"up": (), "down": ("-R",)}
"""What iperf3 is told for one TCP stream, by the test's name."""

CONNECTIONS_AT_ONCE = 32
STEADY_BYTES = 20_000_000
"""After so many bytes through the tunnel a stream is past its slow start."""


class LaboratoryError(Exception):
    """Something did not come up or did not answer. `str()` says what, and shows the log where there is one."""


@dataclass(frozen=True)
class Spec:
    """A gateway to measure, as the harness's `compare.py` has it: NAME=COMMAND or NAME=COMMAND@SETUP_SCRIPT.

    `{ifname}` in the command becomes the interface's name. Without a setup script `wg set` configures it.
    """

    name: str
    command: str
    setup: str | None

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Raises argparse.ArgumentTypeError for a text that is no such thing."""
        name, equals, rest = text.partition("=")
        command, _, setup = rest.partition("@")
        if not (name and equals and command):
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=COMMAND or NAME=COMMAND@SETUP_SCRIPT")
        return cls(name, command, setup or None)


class Laboratory:
    """A client, the place of a gateway, and a server; a context manager that leaves nothing behind.

    `harness` is the folder with `topo-up.sh`, `binaries` the one with `wireguard` and `churn`, `folder` one for logs
    and passing key files. `environment` is what its programs run with, `setup.sh` among them.
    """

    def __init__(self, harness: Path, binaries: Path, folder: Path) -> None:
        self.prefix = os.environ.get("P") or f"fzb{os.getpid()}"
        self.interface = f"fzg{os.getpid()}"
        self._client_interface = f"fzc{os.getpid()}"
        self._harness = harness
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "P": self.prefix,
            "PATH": f"{binaries.resolve()}:{os.environ['PATH']}",
            "BENCH_DIR": str(folder),
            "IFNAME": self.interface,
        }
        self._client_key, self._gateway_key = self._run("wg", "genkey"), self._run("wg", "genkey")
        self._client_public, self._gateway_public = map(self._public, (self._client_key, self._gateway_key))
        self.environment |= {"GW_PRIV": self._gateway_key, "CLIENT_PUB": self._client_public}

    def __enter__(self) -> Self:
        try:
            self._run(str(self._harness / "topo-up.sh"))
            self.start("s", "iperf3", "-s", "-p", str(STREAM_PORT), log="iperf3")
            self.start("s", "churn", "server", str(CHURN_PORT), log="churn")
            for port in (STREAM_PORT, CHURN_PORT):
                wait_for(partial(self._listens, port), f"a server on port {port}")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def namespace(self, which: str) -> str:
        """The name of the namespace of `c` (client), `g` (gateway) or `s` (server)."""
        return f"{self.prefix}-{which}"

    def start(self, which: str, *argv: str, log: str) -> subprocess.Popen[bytes]:
        """Starts a program in a namespace; it is ended with the laboratory at the latest, and with this process.

        Its two streams go to a file `log` in the laboratory's folder.
        """
        with self.log(log).open("wb") as output:
            process = subprocess.Popen(
                # setpriv and ip replace themselves: the id is the program's own.
                ["setpriv", "--pdeathsig", "TERM", "ip", "netns", "exec", self.namespace(which), *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def run(self, which: str, *argv: str, timeout: float = 60) -> str:
        """Runs a program in a namespace to its end and returns what it printed; LaboratoryError where it fails."""
        return self._run("ip", "netns", "exec", self.namespace(which), *argv, timeout=timeout)

    def log(self, name: str) -> Path:
        """Where `start` puts what a program prints."""
        return self._folder / f"{name}.log"

    def start_gateway(self, spec: Spec) -> subprocess.Popen[bytes]:
        """Starts a gateway and configures it."""
        log = f"gateway-{spec.name}"
        process = self.start("g", "bash", "-c", f"exec {spec.command.format(ifname=self.interface)}", log=log)
        try:
            if spec.setup is not None:
                self.run("g", "bash", "-c", f"exec {spec.setup}")
            else:
                client = ("peer", self._client_public, "allowed-ips", "10.77.9.2/32")
                self._configure("g", self.interface, self._gateway_key, "listen-port", str(PORT), *client)
            self._link("g", self.interface, "10.77.9.1/24")
        except LaboratoryError as error:
            raise LaboratoryError(f"{spec.name}: {error}\n{_tail(self.log(log))}") from error
        return process

    def connect(self) -> None:
        """Starts the client and waits until a ping through the gateway is answered."""
        self.start("c", "wireguard", "-f", self._client_interface, log="client")
        gateway = ("peer", self._gateway_public, "allowed-ips", "0.0.0.0/0")
        endpoint = ("endpoint", f"{GATEWAY_OUTER}:{PORT}", "persistent-keepalive", "25")
        self._configure("c", self._client_interface, self._client_key, *gateway, *endpoint)
        self._link("c", self._client_interface, "10.77.9.2/24")
        self._run("ip", "-n", self.namespace("c"), "route", "add", "10.77.2.0/24", "dev", self._client_interface)
        ping = ("ping", "-n", "-c", "1", "-W", "1", SERVER)
        wait_for(lambda: self._succeeds("c", *ping), "an answer to a ping through the gateway", timeout=20)

    def stream(self, direction: str, seconds: float) -> subprocess.Popen[bytes]:
        """Starts one TCP stream through the tunnel, `up` or `down`, and waits until it is past its slow start."""
        before = self.tunnel_bytes()
        client = ("iperf3", "-c", SERVER, "-p", str(STREAM_PORT), "-t", f"{seconds:.0f}", "--connect-timeout", "5000")
        stream = self.start("c", *client, *DIRECTIONS[direction], log="stream")

        def steady() -> bool:
            if stream.poll() is not None:
                raise LaboratoryError(f"the stream {direction} ended early: {_tail(self.log('stream'))}")
            return self.tunnel_bytes() > before + STEADY_BYTES

        wait_for(steady, f"{STEADY_BYTES / 1e6:.0f} MB of a stream {direction}", timeout=30)
        return stream

    def churn(self, seconds: float) -> subprocess.Popen[bytes]:
        """Starts short connections through the tunnel: 100 bytes each way, 32 at once."""
        before = self.tunnel_bytes()
        client = ("churn", "client", SERVER, str(CHURN_PORT), f"{seconds:.0f}", str(CONNECTIONS_AT_ONCE))
        connections = self.start("c", *client, log="connections")
        wait_for(lambda: self.tunnel_bytes() > before + 1_000_000, "1 MB of short connections", timeout=30)
        return connections

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Ends a program of `start`: SIGTERM, and after two seconds SIGKILL."""
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        self._processes.remove(process)

    def tunnel_bytes(self) -> int:
        """IP bytes that the client's end of the tunnel has seen so far, both ways."""
        shown = self._run("ip", "-n", self.namespace("c"), "-j", "-s", "link", "show", "dev", self._client_interface)
        counters = json.loads(shown)[0]["stats64"]
        return int(counters["rx"]["bytes"]) + int(counters["tx"]["bytes"])

    def _configure(self, which: str, interface: str, private_key: str, *settings: str) -> None:
        """`wg set`, once the program answers its control socket."""
        with tempfile.NamedTemporaryFile("w", dir=self._folder) as key:  # made for its owner alone
            key.write(private_key)
            key.flush()
            command = ("wg", "set", interface, "private-key", key.name, *settings)
            wait_for(lambda: self._succeeds(which, *command), f"the control socket of {interface}")

    def _link(self, which: str, interface: str, address: str) -> None:
        ip = ("ip", "-n", self.namespace(which))
        self._run(*ip, "address", "replace", address, "dev", interface)
        self._run(*ip, "link", "set", interface, "mtu", str(MTU), "up")

    def _listens(self, port: int) -> bool:
        return self.run("s", "ss", "-Htln", "sport", "=", f":{port}") != ""

    def _public(self, private_key: str) -> str:
        return self._run("wg", "pubkey", given=private_key)

    def _succeeds(self, which: str, *argv: str) -> bool:
        try:
            self.run(which, *argv)
        except LaboratoryError:
            return False
        return True

    def _run(self, *argv: str, given: str | None = None, timeout: float = 60) -> str:
        try:
            done = subprocess.run(
                argv,
                input=given,
                text=True,
                capture_output=True,
                timeout=timeout,
                env=self.environment,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LaboratoryError(f"{' '.join(argv)}: no end within {timeout:g} s") from error
        if done.returncode:
            raise LaboratoryError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
        return done.stdout.strip()

    def _remove(self) -> None:
        for process in self._processes[::-1]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.end(process)
        subprocess.run([str(self._harness / "topo-down.sh")], env=self.environment, timeout=60, check=False)


@contextlib.contextmanager
def measuring() -> Iterator[None]:
    """Holds the lock that `run.py` holds while it measures: one measurement on a machine at a time."""
    with Path(tempfile.gettempdir(), "bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wait_for(condition: Callable[[], T], what: str, timeout: float = 10, every: float = 0.02) -> T:
    """The first true answer of `condition`; LaboratoryError that names `what` where none comes in time."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise LaboratoryError(f"not within {timeout:g} s: {what}")
        time.sleep(every)
    return answer


def options(description: str | None) -> argparse.ArgumentParser:
    """The command line that the programs here have in common."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--harness", type=Path, required=True, help="the folder with topo-up.sh")
    parser.add_argument("--bin", type=Path, required=True, help="the folder with wireguard and churn")
    return parser


def main(run: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Runs a program: SIGTERM ends it as Ctrl-C does, with everything removed, and what failed is one message."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        code = run(None)
    except LaboratoryError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # once is enough, and what follows must not be cut short
    sys.exit(128 + number)


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:] if path.exists() else ""
