"""Many minutes of thin traffic through the gateway, across rekeys that either end starts.

Run as root by scripts/soak.sh. Nine wireguard-go clients at once, each with a pattern of its own (`PATTERNS`). It fails
on any of these:

- a datagram that comes more than a second late, or never: a gap;
- "stopped hearing back" in wireguard-go's log: the other end owed it an answer or a keepalive and sent none;
- more handshake initiations on the wire than the protocol asks for, or fewer, or the first one from the wrong end;
- with fzgw: ledgers that do not balance, or a record that is no OCSF.

How many initiations does the protocol ask for? One to begin. After that only the end that initiated the present
session renews it, when it sends something and the session is older than 120 s. That holds for traffic in one direction
too: the receiving end owes a keepalive 10 s after data that it did not answer, so the sending end hears something
within the 15 s after which it would try anew; and if the receiving end is the one that initiated, the keepalive is the
sending that renews. So a client and the gateway together may initiate once more than 120 s passed, begun ones included,
and they must have initiated in each 145 s: 120 s and the longest wait of a pattern for something to send.

wireguard-go has a fault of its own: it starts the timer of a retry after it has sent an initiation, and where the
answer was quicker than that, nobody stops the timer. Its log then has an answer and after it "did not complete after 5
seconds". Such a retry is not counted, and said to have been there.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import math
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .gateway import Fzgw, Peer, StandIn
from .netlab import Capture, ClientSite, Laboratory, Namespace, join, missing_tools
from .traffic import server_address
from .wg import HOW_TO_INSTALL, Client, find_wireguard_go

GAP = 1.0
"""Seconds after which a datagram is late."""
REKEY_AFTER = 120
RENEWED_WITHIN = 145
SILENCE = 22.0
"""Seconds between two bursts: longer than keepalives (10 s) and the wait for an answer (15 s) run."""
BURST = 20
"""Datagrams of one burst, each answered."""
FIRST_PORT = 30_000
LISTEN_PORT = 51_821
"""Where the clients listen that the gateway calls first."""
STRAGGLERS = 3.0
"""Seconds in which datagrams may still arrive after the last was sent."""
STOPPED_HEARING_BACK = "stopped hearing back"
OUTSIDE = ("10.92.0.0/24", "fd92::/64")


@dataclass(frozen=True)
class Pattern:
    """What one client does. `begins`: the end that must send the first handshake initiation."""

    name: str
    up: float | None = None
    """Seconds between datagrams of a trickle from the client to the server; None: no such trickle."""
    down: float | None = None
    """The same from the server to the client."""
    bursts: str | None = None
    """Who begins each burst: "client" or "server"."""
    begins: str = "client"
    persistent_keepalive: int | None = None
    underlay: int = 4
    inner: int = 4


PATTERNS = (
    Pattern("trickle both ways", up=1, down=1),
    Pattern("trickle both ways, IPv6", up=1, down=1, underlay=6, inner=6),
    Pattern("one way up", up=1),
    Pattern("one way down", down=1, inner=6),
    Pattern("bursts from the client", bursts="client", underlay=6),
    Pattern("bursts from the server", bursts="server", begins="gateway"),
    Pattern("gateway first, both ways", up=1, down=1, begins="gateway", inner=6),
    Pattern("gateway first, one way down", down=1, begins="gateway", underlay=6),
    Pattern("seldom up, persistent keepalive", up=30, persistent_keepalive=25),
)


@dataclass
class Stream:
    """Numbered datagrams from one socket to another, and when each was sent and came."""

    sender: socket.socket
    receiver: socket.socket
    sent: list[float] = field(default_factory=list)
    delays: dict[int, float] = field(default_factory=dict)

    def send(self) -> None:
        """Send the next one. An error is a loss: it is on the list of those sent, and never comes."""
        self.sent.append(time.monotonic())
        with contextlib.suppress(OSError):
            self.sender.sendto(struct.pack("!Q", len(self.sent) - 1), self.receiver.getsockname()[:2])

    def receive(self) -> None:
        """Take one."""
        (number,) = struct.unpack("!Q", self.receiver.recv(2048))
        self.delays.setdefault(number, time.monotonic() - self.sent[number])

    @property
    def lost(self) -> int:
        """How many never came."""
        return len(self.sent) - len(self.delays)

    @property
    def worst(self) -> float:
        """The longest delay in seconds."""
        return max(self.delays.values(), default=0)


class Subject:
    """One client with its pattern, its streams and what was seen of it."""

    def __init__(self, laboratory: Laboratory, site: ClientSite, pattern: Pattern, *, one_family: bool) -> None:
        self.pattern = pattern
        self.site = site
        self.underlay = 4 if one_family else pattern.underlay
        self.client = Client(laboratory, site)
        self.up: Stream | None = None
        self.down: Stream | None = None
        self._ports = itertools.count(FIRST_PORT)

    def peer(self) -> Peer:
        """As the gateway is told of it."""
        endpoint = None
        if self.pattern.begins == "gateway":
            endpoint = join(self.site.underlay(2, self.underlay), LISTEN_PORT)
        return Peer.of(self.client, endpoint=endpoint)

    def join(self, gateway_key: str, port: int) -> None:
        """Know the gateway; where it is only if the client has to begin."""
        endpoint = None
        if self.pattern.begins == "gateway":
            self.client.set("listen-port", str(LISTEN_PORT))
        else:
            endpoint = join(self.site.underlay(1, self.underlay), port)
        self.client.set_peer(
            gateway_key, list(OUTSIDE), endpoint=endpoint, persistent_keepalive=self.pattern.persistent_keepalive
        )
        self.client.up([f"{self.site.v4}/16", f"{self.site.v6}/64"], list(OUTSIDE))

    def open(self, server: Namespace) -> None:
        """The streams that the pattern needs."""
        if self.pattern.up or self.pattern.bursts:
            self.up = Stream(self._socket(self.site.namespace), self._socket(server))
        if self.pattern.down or self.pattern.bursts:
            self.down = Stream(self._socket(server), self._socket(self.site.namespace))

    def streams(self) -> list[Stream]:
        """Those that there are."""
        return [stream for stream in (self.up, self.down) if stream is not None]

    def _socket(self, namespace: Namespace) -> socket.socket:
        own = self.site.v4 if self.pattern.inner == 4 else self.site.v6
        address = own if namespace is self.site.namespace else server_address(self.pattern.inner)
        port = next(self._ports) + 10 * self.site.number
        return namespace.udp(address, port)


class Loop:
    """One thread, one clock: what is due is sent, what comes is taken."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self.lag = 0.0
        """The most that the loop itself was late: what it adds to a delay."""

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have `what` called at `when`, unless the end comes first."""
        if when < self._end:
            heapq.heappush(self._due, (when, next(self._order), what))

    def every(self, seconds: float, first: float, what: Callable[[], None]) -> None:
        """Have `what` called again and again."""

        def call() -> None:
            what()
            self.at(first + seconds * next(times), call)

        times = itertools.count(1)
        self.at(first, call)

    def on_arrival(self, receiver: socket.socket, what: Callable[[], None]) -> None:
        """Have `what` called for each datagram."""
        self._selector.register(receiver, selectors.EVENT_READ, what)

    def run(self) -> None:
        """Until the end, and a little longer for what is still under way."""
        while (now := time.monotonic()) < self._end + STRAGGLERS:
            while self._due and self._due[0][0] <= now:
                when, _, what = heapq.heappop(self._due)
                self.lag = max(self.lag, now - when)
                what()
            until = min(self._due[0][0] if self._due else math.inf, self._end + STRAGGLERS)
            for key, _ in self._selector.select(max(0, until - time.monotonic())):
                key.data()


def plan(loop: Loop, subject: Subject, number: int) -> None:
    """Put a client's pattern on the loop. Clients are out of step with each other."""
    pattern, up, down = subject.pattern, subject.up, subject.down
    start = time.monotonic() + 0.2 + 0.13 * number
    if pattern.bursts:
        assert up is not None
        assert down is not None
        asked, answer = (up, down) if pattern.bursts == "client" else (down, up)

        def burst() -> None:
            for _ in range(BURST):
                asked.send()

        def arrived() -> None:
            asked.receive()
            answer.send()

        loop.every(SILENCE, start, burst)
        loop.on_arrival(asked.receiver, arrived)
        loop.on_arrival(answer.receiver, answer.receive)
        return

    if pattern.down and down is not None:
        loop.every(pattern.down, start if pattern.begins == "gateway" else start + 0.5, down.send)
    if pattern.up and up is not None:
        # Where the gateway is to begin, the client waits for the first datagram.
        loop.every(pattern.up, start + (2 if pattern.begins == "gateway" else 0), up.send)
        loop.on_arrival(up.receiver, up.receive)
    if down is not None:
        loop.on_arrival(down.receiver, down.receive)


@dataclass
class Wire:
    """Handshakes and keepalives of one client, as tcpdump saw them at the gateway."""

    by_client: list[float] = field(default_factory=list)
    by_gateway: list[float] = field(default_factory=list)
    keepalives_by_client: int = 0
    keepalives_by_gateway: int = 0

    @classmethod
    def read(cls, capture: Capture, gateway_port: int) -> Wire:
        """Count them."""
        wire = cls()
        for datagram in capture.datagrams():
            from_gateway = datagram.source_port == gateway_port
            if datagram.payload[:1] == b"\1":
                (wire.by_gateway if from_gateway else wire.by_client).append(datagram.time)
            elif datagram.payload[:1] == b"\4" and len(datagram.payload) == 32:
                wire.keepalives_by_gateway += from_gateway
                wire.keepalives_by_client += not from_gateway
        return wire

    @property
    def initiations(self) -> int:
        """From both ends."""
        return len(self.by_client) + len(self.by_gateway)

    def times(self) -> str:
        """When they were, in seconds from the first."""
        times = sorted([*self.by_client, *self.by_gateway])
        return ", ".join(f"{at - times[0]:.1f}" for at in times)

    @property
    def began(self) -> str:
        """The end that sent the first initiation."""
        firsts = [(times[0], end) for times, end in ((self.by_client, "client"), (self.by_gateway, "gateway")) if times]
        return min(firsts)[1]


def handshakes_and_keepalives(port: int) -> str:
    """A filter for message types 1 to 3, and for type 4 without a packet inside (32 bytes)."""
    over_v4 = "ip and (udp[8] <= 3 or udp[4:2] = 40)"
    over_v6 = "ip6 and (ip6[48] <= 3 or ip6[44:2] = 40)"  # `udp[...]` knows IPv4 alone
    return f"udp port {port} and (({over_v4}) or ({over_v6}))"


def needless_retries(log: str, key: str) -> int:
    """How often a wireguard-go tried a handshake with the peer of this key again although it had been answered."""
    needless, answered = 0, False
    for line in log.splitlines():
        if f"peer({key[:4]}…{key[39:43]})" in line:
            if "Sending handshake initiation" in line:
                answered = False
            elif "Received handshake response" in line:
                answered = True
            elif "Handshake did not complete" in line:
                needless += answered
    return needless


def judge(subject: Subject, wire: Wire, seconds: float, logs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The row of the table, and what is wrong. `logs`: of each wireguard-go, with the key of its peer."""
    pattern = subject.pattern
    allowed = math.ceil(seconds / REKEY_AFTER) + 1
    least = math.floor(seconds / RENEWED_WITHIN) + 1
    wrong = []
    ways = []
    for way, stream in (("up", subject.up), ("down", subject.down)):
        if stream is None:
            ways += ["", "", ""]
            continue
        ways += [str(len(stream.sent)), str(stream.lost), f"{stream.worst * 1000:.0f}"]
        if stream.lost:
            wrong.append(f"{stream.lost} lost {way}")
        if stream.worst > GAP:
            wrong.append(f"{stream.worst:.1f} s {way}")
    stopped = subject.client.log().count(STOPPED_HEARING_BACK)
    if stopped:
        wrong.append(f"stopped hearing back {stopped} times")
    needless = sum(needless_retries(log, key) for log, key in logs)
    if not least <= wire.initiations - needless <= allowed:
        wrong.append(f"initiations at {wire.times()} s")
    if wire.initiations and wire.began != pattern.begins:
        wrong.append(f"the {wire.began} began")
    row = [
        subject.site.name,
        pattern.name,
        f"v{subject.underlay}/v{pattern.inner}",
        *ways,
        str(len(wire.by_client)),
        str(len(wire.by_gateway)),
        f"{least}-{allowed}",
        str(wire.keepalives_by_client),
        str(wire.keepalives_by_gateway),
        str(stopped),
        "; ".join(wrong) or ("fine" if not needless else f"fine ({needless} by wireguard-go for nothing)"),
    ]
    return row, wrong


HEADINGS = (
    ("", "client"),
    ("", "pattern"),
    ("outer/", "inner"),
    ("up", "sent"),
    ("", "lost"),
    ("late", "ms"),
    ("down", "sent"),
    ("", "lost"),
    ("late", "ms"),
    ("hands'", "client"),
    ("by", "gateway"),
    ("", "wanted"),
    ("keepal.", "client"),
    ("by", "gateway"),
    ("stopped", "hearing"),
    ("", "verdict"),
)
LEFT = (0, 1, 2, len(HEADINGS) - 1)
"""The columns of text; numbers stand to the right."""


def table(rows: list[list[str]]) -> str:
    """Two lines of headings, a rule, a line for each client."""
    upper, lower = ([heading[line] for heading in HEADINGS] for line in (0, 1))
    widths = [max(map(len, column)) for column in zip(upper, lower, *rows, strict=True)]
    lines = []
    for row in (upper, lower, *rows):
        cells = enumerate(zip(row, widths, strict=True))
        aligned = (cell.ljust(width) if column in LEFT else cell.rjust(width) for column, (cell, width) in cells)
        lines.append("  ".join(aligned).rstrip())
    lines.insert(2, "-" * max(map(len, lines)))
    return "\n".join(lines)


def soak(seconds: float, gateway_kind: str) -> bool:
    """One run with its table; whether everything was fine."""
    with Laboratory(clients=len(PATTERNS)) as laboratory:
        stand_in = gateway_kind == "wireguard-go"
        subjects = [
            Subject(laboratory, site, pattern, one_family=stand_in)
            for site, pattern in zip(laboratory.clients, PATTERNS, strict=True)
        ]
        peers = [subject.peer() for subject in subjects]
        gateway: StandIn | Fzgw
        if stand_in:
            gateway = StandIn(laboratory, peers)
        else:
            gateway = Fzgw(laboratory, peers)
            gateway.start()
        captures = [
            Capture(laboratory, laboratory.gateway, f"to-{subject.site.name}", handshakes_and_keepalives(gateway.port))
            for subject in subjects
        ]
        for subject in subjects:
            subject.join(gateway.public_key, gateway.port)
            subject.open(laboratory.server)

        loop = Loop(seconds)
        started = time.monotonic()
        for number, subject in enumerate(subjects):
            plan(loop, subject, number)
            if subject.pattern.down and not subject.pattern.up and subject.pattern.begins == "client":
                greet(loop, subject)

        def progress() -> None:
            streams = [stream for subject in subjects for stream in subject.streams()]
            sent, lost = sum(len(stream.sent) for stream in streams), sum(stream.lost for stream in streams)
            worst = max(stream.worst for stream in streams)
            print(
                f"{time.monotonic() - started:5.0f} s: {sent} datagrams sent, {lost} missing,"
                f" the slowest took {worst * 1000:.0f} ms",
                file=sys.stderr,
            )

        loop.every(30, started + 30, progress)
        loop.run()

        for capture in captures:
            capture.stop()
        judged = []
        for subject, capture in zip(subjects, captures, strict=True):
            logs = [(subject.client.log(), gateway.public_key)]
            if stand_in:
                logs.append((gateway.log(), subject.client.public_key))
            judged.append(judge(subject, Wire.read(capture, gateway.port), seconds, logs))
        print(f"\n{gateway_kind}, {seconds:g} s; this program itself was at most {loop.lag * 1000:.0f} ms late\n")
        print(table([row for row, _ in judged]))
        fine = not any(wrong for _, wrong in judged)
        if isinstance(gateway, Fzgw):
            outcome = gateway.stop()
            print(f"\nledgers balanced; {len(outcome.records.lines)} records, all of them OCSF")
        elif stopped := gateway.log().count(STOPPED_HEARING_BACK):
            print(f'\nthe gateway says "{STOPPED_HEARING_BACK}" {stopped} times')
            fine = False
        print(f"\n{'fine' if fine else 'FAILED'}")
        return fine


def greet(loop: Loop, subject: Subject) -> None:
    """One datagram from a client that only listens, so that the gateway learns where it is."""
    site = subject.site
    with site.namespace.udp(site.v4 if subject.pattern.inner == 4 else site.v6) as udp:
        udp.sendto(b"here I am", (server_address(subject.pattern.inner), 9))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="soak", description="Thin traffic through the gateway for many minutes.")
    parser.add_argument("--seconds", type=float, default=660, help="how long (660)")
    parser.add_argument(
        "--gateway",
        choices=["fzgw", "wireguard-go"],
        default="fzgw",
        help="wireguard-go: to see what the laboratory itself does",
    )
    options = parser.parse_args()
    if missing := missing_tools():
        print(f"missing: {', '.join(missing)}", file=sys.stderr)
        return 1
    if find_wireguard_go() is None:
        print(f"no wireguard-go: {HOW_TO_INSTALL}", file=sys.stderr)
        return 1
    # An orderly end for SIGTERM too: the namespaces go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return 0 if soak(options.seconds, options.gateway) else 1


if __name__ == "__main__":
    sys.exit(main())
