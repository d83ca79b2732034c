"""Traffic as people make it, from a namespace of the laboratory, and the services that it goes to."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import services
from .netlab import SERVER_V4, SERVER_V6, Laboratory, Namespace, wait_until

IPERF_PORT = 5201
DNS_NAME, DNS_V4, DNS_V6 = "wiki.example.test", "192.0.2.7", "2001:db8::7"
"""What the server's DNS answers."""


class Server:
    """What runs outside: HTTP, echo, iperf3 and DNS."""

    def __init__(self, laboratory: Laboratory) -> None:
        namespace = laboratory.server
        laboratory.spawn(namespace, sys.executable, str(Path(services.__file__)), log="services.log")
        laboratory.spawn(namespace, "iperf3", "-s", "-p", str(IPERF_PORT), log="iperf3.log")
        dns = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]
        answers = [f"--address=/{DNS_NAME}/{DNS_V4}", f"--address=/{DNS_NAME}/{DNS_V6}"]
        laboratory.spawn(namespace, "dnsmasq", "--user=root", *dns, *answers, log="dnsmasq.log")
        tcp = {services.HTTP_PORT, services.ECHO_PORT, IPERF_PORT, 53}
        udp = {services.ECHO_PORT, services.SINK_PORT, 53}
        wait_until(
            lambda: listening(namespace, "tcp") >= tcp and listening(namespace, "udp") >= udp, "the services listen"
        )


def listening(namespace: Namespace, protocol: str) -> set[int]:
    """The ports on which somebody listens inside; protocol "tcp" or "udp"."""
    said = namespace.run("ss", "-Hnl", "--udp" if protocol == "udp" else "--tcp")
    return {int(line.split()[3].rsplit(":", 1)[1]) for line in said.splitlines()}


@dataclass
class Pings:
    """What `ping` counted."""

    sent: int
    received: int
    said: str


def ping(
    namespace: Namespace,
    address: str,
    *,
    count: int = 5,
    interval: float = 0.05,
    size: int = 56,
    fragment: bool = True,
) -> Pings:
    """Ping and count the answers; without `fragment` a packet that is too big comes to nothing."""
    arguments = ["-n", "-c", str(count), "-i", str(interval), "-s", str(size), "-W", "2"]
    if not fragment:
        arguments += ["-M", "do"]
    said = namespace.run("ping", *arguments, address, check=False, timeout=30 + count * interval)
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert counts, said
    return Pings(int(counts[1]), int(counts[2]), said)


def download(namespace: Namespace, address: str, size: int) -> str:
    """HTTP GET of `size` bytes; the SHA-256 of what came."""
    with _http(namespace, address) as connection:
        connection.request("GET", f"/{size}")
        answer = connection.getresponse()
        digest, block = hashlib.sha256(), bytearray(1 << 18)
        while length := answer.readinto(block):
            digest.update(memoryview(block)[:length])
        return digest.hexdigest()


def upload(namespace: Namespace, address: str, size: int) -> str:
    """HTTP PUT of `size` bytes; the SHA-256 that the server computed."""
    with _http(namespace, address) as connection:
        connection.request("PUT", "/", body=services.pattern(size), headers={"Content-Length": str(size)})
        return connection.getresponse().read().decode()


@contextlib.contextmanager
def _http(namespace: Namespace, address: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(address)
    connection.sock = namespace.connect(address, services.HTTP_PORT, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def iperf3(namespace: Namespace, address: str, *arguments: str) -> dict[str, Any]:
    """One iperf3 run; the `end` part of its report."""
    said = namespace.run("iperf3", "-c", address, "-p", str(IPERF_PORT), "-J", *arguments, timeout=120, check=False)
    report: dict[str, Any] = json.loads(said)
    assert "error" not in report, report["error"]
    end: dict[str, Any] = report["end"]
    return end


def dig(namespace: Namespace, server: str, name: str, kind: str, *options: str) -> list[str]:
    """The short answers of one DNS query."""
    return namespace.run("dig", f"@{server}", name, kind, "+short", "+tries=1", "+time=5", *options).split()


def echo_tcp(namespace: Namespace, address: str, size: int = 100, source: str | None = None) -> tuple[str, int]:
    """One short connection: connect, `size` bytes there and back, close. Returns the address and port it came from."""
    with namespace.connect(address, services.ECHO_PORT, source=source) as stream:
        stream.sendall(bytes(size))
        left = size
        while left:
            part = stream.recv(left)
            assert part, "the echo closed early"
            left -= len(part)
        own: tuple[str, int] = stream.getsockname()[:2]
        return own


def churn(namespace: Namespace, address: str, connections: int) -> int:
    """Short connections one after the other; how many went well."""
    for _ in range(connections):
        echo_tcp(namespace, address)
    return connections


def echo_udp(namespace: Namespace, source: str, address: str, *, count: int = 1, size: int = 100) -> int:
    """Datagrams from one socket, each answered before the next is sent; returns the source port."""
    with namespace.udp(source) as udp:
        udp.settimeout(5)
        for number in range(count):
            said = number.to_bytes(4, "big").ljust(size, b"\0")
            udp.sendto(said, (address, services.ECHO_PORT))
            assert udp.recv(65536) == said
        port: int = udp.getsockname()[1]
        return port


@dataclass
class Trickle:
    """Numbered datagrams to the echo port at a steady rate, and when each came back.

    Runs in a thread between `start` and `stop`.
    """

    namespace: Namespace
    source: str
    destination: str
    every: float
    sent: int = 0
    returned: list[tuple[float, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Begin."""
        self._socket = self.namespace.udp(self.source)
        self.port: int = self._socket.getsockname()[1]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending, and take what is still under way for at most a second."""
        self._ended.set()
        self._thread.join()
        self._socket.settimeout(0.2)
        deadline = time.monotonic() + 1
        while len(self.returned) < self.sent and time.monotonic() < deadline:
            self._take()
        self._socket.close()

    def longest_gap(self) -> float:
        """The longest time between two answers, in seconds."""
        times = [at for at, _ in self.returned]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=float("inf"))

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            try:
                self._socket.sendto(self.sent.to_bytes(8, "big"), (self.destination, services.ECHO_PORT))
            except OSError as error:
                self.errors.append(str(error))
            self.sent += 1
            due += self.every
            while (left := due - time.monotonic()) > 0:
                self._socket.settimeout(left)
                self._take()

    def _take(self) -> None:
        try:
            said = self._socket.recv(2048)
        except TimeoutError:
            return
        self.returned.append((time.monotonic(), int.from_bytes(said[:8], "big")))


def server_address(family: int) -> str:
    """The server's address of family 4 or 6."""
    return SERVER_V4 if family == 4 else SERVER_V6


def refused(namespace: Namespace, address: str, port: int) -> OSError:
    """The error of a TCP connection that must fail."""
    try:
        namespace.connect(address, port).close()
    except OSError as error:
        return error
    raise AssertionError(f"a connection to {address}:{port} was accepted")
