"""Numbered traffic: each datagram says which one it is, and each byte of it, or of a stream, is known from its place.

Run inside a namespace as a process of its own: `python numbered.py ROLE PLAN`, the plan as JSON. It says "ready" once
it listens, and at its end, as JSON, what it sent and what it found.

- `send`: datagrams of several flows in turn, runs of equal ones by UDP_SEGMENT;
- `receive`: takes them, each flow at a port of its own, until nothing more comes;
- `connect`, `accept`: the two ends of streams that carry bytes both ways at once.
"""

from __future__ import annotations

import json
import random
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

FIRST_PORT = 20_000
LARGEST = 1372
"""Bytes of payload that fit into 1420 over IPv6."""
EQUAL = 1200
SEGMENTS = 40
"""Datagrams of one send, at most."""
IDLE = 1.5
"""Seconds of silence after which a receiver takes the flows to be over."""
PATIENCE = 20.0
"""Seconds that anything may take at most beside what was asked for."""
REMEMBERED = 5
"""Faults of one flow that are told; more are only counted."""

UDP_SEGMENT = 103
SO_RCVBUFFORCE = 33

HEADER = struct.Struct("!HQ")
_random = random.Random(51_820)
PERIOD = 1_000_003
"""Bytes after which contents repeat: a prime, so that no segment, run or buffer of another size hides a shift."""
PATTERN = _random.randbytes(PERIOD)
_TWICE = PATTERN * 2


def _runs() -> list[int]:
    """Equal ones, and most runs ended by a shorter one; some have one member."""
    sizes: list[int] = []
    while len(sizes) < 5000:
        size = _random.randint(HEADER.size + 1, LARGEST)
        sizes += [size] * _random.randint(1, 60)
        if _random.random() < 0.7:
            sizes.append(_random.randint(HEADER.size, size - 1))
    return sizes


SIZES = {
    "equal": [EQUAL],
    "full": [LARGEST],
    "mixed": [_random.randint(HEADER.size, LARGEST) for _ in range(5003)],
    "runs": _runs(),
}
"""The sizes of a flow's datagrams, by their number, over and over."""


@dataclass(frozen=True)
class Flow:
    """Datagrams from one socket to another; `sizes` is a key of `SIZES`."""

    number: int
    sizes: str
    source: str
    destination: str

    @property
    def port(self) -> int:
        """At both ends."""
        return FIRST_PORT + self.number

    def size(self, number: int) -> int:
        """Bytes of payload of a datagram."""
        table = SIZES[self.sizes]
        return table[number % len(table)]

    def payload(self, number: int) -> bytes:
        """What a datagram says."""
        return HEADER.pack(self.number, number) + content(self.number, number * 8191, self.size(number) - HEADER.size)


@dataclass(frozen=True)
class Stream:
    """One TCP connection; `small`: written in pieces of all sizes, each sent at once."""

    number: int
    small: bool
    client: str
    server: str

    @property
    def port(self) -> int:
        """Where the server listens."""
        return FIRST_PORT + self.number


@dataclass
class Found:
    """What an end of a flow sent, received and found wrong: datagrams, or bytes of a stream."""

    sent: int = 0
    received: int = 0
    faults: int = 0
    first_faults: list[str] = field(default_factory=list)

    def fault(self, what: str) -> None:
        """Count one."""
        self.faults += 1
        if len(self.first_faults) < REMEMBERED:
            self.first_faults.append(what)


Findings = dict[int, Found]
"""By the number of the flow or stream."""


def content(shift: int, place: int, size: int) -> bytes:
    """`size` bytes, at most `PERIOD`, from `place` on; what differs in `shift` differs in its bytes."""
    start = (place + shift * 65_537) % PERIOD
    return _TWICE[start : start + size]


class Check:
    """Holds what arrives of a flow against what was sent: its order, its sizes, its bytes."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.found = Found()
        self._last = -1

    def take(self, payload: bytes) -> None:
        """One datagram."""
        self.found.received += 1
        if len(payload) < HEADER.size:
            self.found.fault(f"{len(payload)} bytes after number {self._last}")
            return
        flow, number = HEADER.unpack_from(payload)
        if payload != self.flow.payload(number):
            self.found.fault(
                f"flow {flow}, number {number}, {len(payload)} bytes where {self.flow.size(number)} were sent"
                f", from byte {_first_difference(payload, self.flow.payload(number))} on wrong"
            )
        if number <= self._last:
            self.found.fault(f"number {number} after number {self._last}")
        self._last = number


class CheckStream:
    """Holds what arrives of one direction of a stream against what was sent."""

    def __init__(self, shift: int, found: Found) -> None:
        self._shift = shift
        self.found = found

    def take(self, part: bytes) -> None:
        """The next bytes."""
        wanted = content(self._shift, self.found.received, len(part))
        if part != wanted:
            self.found.fault(f"byte {self.found.received + _first_difference(part, wanted)} is wrong")
        self.found.received += len(part)


def _first_difference(one: bytes, other: bytes) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def send(flows: list[Flow], seconds: float, rate: float) -> Findings:
    """Send for so long, `rate` datagrams a second of each flow, in turn and in bursts."""
    found = {flow.number: Found() for flow in flows}
    sockets = []
    for flow in flows:
        udp = socket.socket(_family(flow.source), socket.SOCK_DGRAM)
        udp.bind((flow.source, flow.port))
        udp.connect((flow.destination, flow.port))
        sockets.append(udp)
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        sleep = True
        for flow, udp in zip(flows, sockets, strict=True):
            sent = found[flow.number]
            if sent.sent <= passed * rate:
                sleep = False
                sent.sent += _send_run(flow, udp, sent.sent)
        if sleep:
            time.sleep(0.001)
    return found


def _send_run(flow: Flow, udp: socket.socket, first: int) -> int:
    """Send what goes in one call: equal datagrams, and one that is shorter at their end; how many."""
    size = flow.size(first)
    number = first + 1
    while number - first < min(SEGMENTS, 60_000 // size) and flow.size(number) == size:
        number += 1
    if number - first < SEGMENTS and flow.size(number) < size:
        number += 1
    parts = [flow.payload(each) for each in range(first, number)]
    if len(parts) == 1:
        udp.send(parts[0])
    else:
        udp.sendmsg(parts, [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))])
    return number - first


def receive(flows: list[Flow]) -> Findings:
    """Take what comes until nothing has come for `IDLE` seconds."""
    waiting = selectors.DefaultSelector()
    checks = [Check(flow) for flow in flows]
    for check in checks:
        udp = socket.socket(_family(check.flow.destination), socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        udp.bind((check.flow.destination, check.flow.port))
        udp.setblocking(False)
        waiting.register(udp, selectors.EVENT_READ, check)
    print("ready", flush=True)
    patience = PATIENCE
    while ready := waiting.select(patience):
        for key, _ in ready:
            assert isinstance(key.fileobj, socket.socket)
            for payload in _take(key.fileobj):
                key.data.take(payload)
        patience = IDLE
    return {check.flow.number: check.found for check in checks}


def _take(udp: socket.socket) -> Iterator[bytes]:
    """What is there, at most a hundred, so that every socket has its turn."""
    for _ in range(100):
        try:
            yield udp.recv(65_536)
        except BlockingIOError:
            return


def connect(streams: list[Stream], seconds: float) -> Findings:
    """The clients' ends."""

    def one(stream: Stream) -> socket.socket:
        tcp = socket.socket(_family(stream.server), socket.SOCK_STREAM)
        tcp.settimeout(PATIENCE)
        tcp.bind((stream.client, 0))
        tcp.connect((stream.server, stream.port))
        return tcp

    return _converse(streams, [one(stream) for stream in streams], seconds, client=True)


def accept(streams: list[Stream], seconds: float) -> Findings:
    """The server's ends."""
    listeners = [
        socket.create_server((stream.server, stream.port), family=_family(stream.server)) for stream in streams
    ]
    print("ready", flush=True)
    connections = []
    for listener in listeners:
        listener.settimeout(PATIENCE)
        connections.append(listener.accept()[0])
    return _converse(streams, connections, seconds, client=False)


def _converse(streams: list[Stream], connections: list[socket.socket], seconds: float, *, client: bool) -> Findings:
    """Send and check on all streams at once."""
    found = {stream.number: Found() for stream in streams}
    threads = []
    for stream, connection in zip(streams, connections, strict=True):
        connection.settimeout(PATIENCE)
        one = found[stream.number]
        threads += [
            threading.Thread(target=_write, args=(stream, connection, one, seconds, client)),
            threading.Thread(target=_read, args=(stream, connection, one, client)),
        ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _write(stream: Stream, connection: socket.socket, found: Found, seconds: float, client: bool) -> None:
    shift = 2 * stream.number + client
    sizes = random.Random(shift)
    if stream.small:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            part = content(shift, found.sent, sizes.randint(1, 3000) if stream.small else 1 << 17)
            connection.sendall(part)
            found.sent += len(part)
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        found.fault(f"sending at byte {found.sent}: {error}")


def _read(stream: Stream, connection: socket.socket, found: Found, client: bool) -> None:
    check = CheckStream(2 * stream.number + (not client), found)
    try:
        while part := connection.recv(1 << 18):
            check.take(part)
    except OSError as error:
        found.fault(f"receiving at byte {found.received}: {error}")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _main(role: str, plan: dict[str, Any]) -> Findings:
    flows = [Flow(**flow) for flow in plan.get("flows", ())]
    streams = [Stream(**stream) for stream in plan.get("streams", ())]
    roles: dict[str, Callable[[], Findings]] = {
        "send": lambda: send(flows, plan["seconds"], plan["rate"]),
        "receive": lambda: receive(flows),
        "connect": lambda: connect(streams, plan["seconds"]),
        "accept": lambda: accept(streams, plan["seconds"]),
    }
    return roles[role]()


if __name__ == "__main__":
    findings = _main(sys.argv[1], json.loads(sys.argv[2]))
    print(json.dumps({number: asdict(found) for number, found in findings.items()}), flush=True)
