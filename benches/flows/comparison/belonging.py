"""What becomes of each packet of a capture by `flow-rules.md`: which conversation counts it, or why none does.

A slow model of the rules that leave packets out: R6 to R9 and R17 (stray TCP segments), R13 (ICMP errors, redirects),
R15 (fragments), scenario 40 (malformed). It has no limits (R26) and makes no records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from comparison.slow import ICMP, ICMPV6, TCP, UDP, Endpoint, Frame, Packet, UnreadableError, ip_part, packet

SECOND = 10**9
IDLE = {TCP: 1200 * SECOND, UDP: 120 * SECOND, ICMP: 30 * SECOND, ICMPV6: 30 * SECOND}
IDLE_OTHER = 120 * SECOND
OPENING = 75 * SECOND
CLOSE_DELAY = 2 * SECOND
FRAGMENTS = 30 * SECOND
DISORDER = SECOND
FIN, SYN, RST, ACK = 1, 2, 4, 16

Key = tuple[int, Endpoint, Endpoint]
"""A conversation: IP protocol and both endpoints, the smaller one first."""


@dataclass(slots=True)
class Fate:
    """What becomes of one frame."""

    reason: str
    """`flow`: counted in `key`. Else the ledgers' word for why not."""
    key: Key | None = None
    """Its conversation; also where it is not counted there."""
    second: bool = False
    """Sent by the second endpoint of `key`."""
    packet: Packet | None = None
    overhead: int = 0
    """Bytes of the frame that are not of the packet: link header and padding."""
    told: int | None = None
    """The IP version by the link header; the packet's own is what counts."""


def conversation(protocol: int, src: Endpoint, dst: Endpoint) -> tuple[Key, bool]:
    """The key of a packet's conversation, and whether its second endpoint sent it."""
    return ((protocol, src, dst), False) if src <= dst else ((protocol, dst, src), True)


@dataclass(slots=True)
class _Flow:
    protocol: int
    second_began: bool
    known: bool
    half_open: bool
    last: int = 0
    answered: bool = False
    moved_on: bool = False
    fins: int = 0
    closing: int | None = None

    def over(self, now: int) -> bool:
        """R8, R9, R17: silent for more than its limit."""
        if self.closing is not None:
            return now - self.closing > CLOSE_DELAY
        half_open = self.half_open and not self.answered
        return now - self.last > (OPENING if half_open else IDLE.get(self.protocol, IDLE_OTHER))


@dataclass(slots=True)
class _Datagram:
    created: int
    waiting: list[Fate]
    flow: _Flow | None
    key: Key | None
    second: bool
    settled: bool


class Belonging:
    """Gives each frame its fate, in order. A fragment's may be settled by a later frame: look when all are in."""

    def __init__(self) -> None:
        self._flows: dict[Key, _Flow] = {}
        self._datagrams: dict[tuple[str, str, int, int], _Datagram] = {}
        self._now = 0
        self._last: int | None = None

    def all(self, frames: Iterable[Frame]) -> list[Fate]:
        """The fates of these frames, settled."""
        fates = [self._one(frame) for frame in frames]
        for fate in fates:
            if fate.reason == "waiting":
                fate.reason = "fragment"
        return fates

    def _one(self, frame: Frame) -> Fate:
        self._tick(frame.time)
        try:
            data, wire, told = ip_part(frame)
        except UnreadableError as unreadable:
            return Fate(str(unreadable))
        try:
            parsed = packet(data, wire)
        except UnreadableError as unreadable:
            return Fate(str(unreadable), overhead=frame.wire)
        fate = Fate("", packet=parsed, overhead=frame.wire - parsed.length, told=told)
        self._pass(fate, parsed)
        return fate

    def _tick(self, time: int) -> None:
        """Time goes by the packets' clock, and never back (R16)."""
        if self._last is None or time >= self._last:
            self._now += 0 if self._last is None else time - self._last
            self._last = time
        elif self._last - time > DISORDER:
            self._last = time

    def _pass(self, fate: Fate, packet: Packet) -> None:
        if packet.redirect:
            fate.reason = "redirect"
            return
        if packet.error:
            fate.reason = "icmp_error" if self._error(packet) else "untracked icmp_error"
            if packet.identification is not None:
                self._settle(fate, packet, None)
            return
        if packet.ports is None:
            self._fragment(fate, packet)
            return
        fate.key, fate.second = conversation(
            packet.protocol, (packet.src, packet.ports[0]), (packet.dst, packet.ports[1])
        )
        flow = self._segment(fate, packet) if packet.protocol == TCP else self._other(fate, packet)
        fate.reason = "flow" if flow else "stray"
        if packet.identification is not None:
            self._settle(fate, packet, flow)

    def _find(self, key: Key) -> _Flow | None:
        flow = self._flows.get(key)
        if flow and flow.over(self._now):
            del self._flows[key]
            return None
        return flow

    def _count(self, flow: _Flow, second: bool) -> None:
        flow.last = self._now
        if second != flow.second_began:
            flow.answered = True

    def _other(self, fate: Fate, packet: Packet) -> _Flow:
        assert fate.key
        flow = self._find(fate.key)
        if flow is None:
            reply = (
                packet.protocol in (ICMP, ICMPV6)
                and packet.ports is not None
                and packet.ports[0] == 0 < packet.ports[1]
            )
            flow = self._flows[fate.key] = _Flow(packet.protocol, fate.second != reply, True, False)
        self._count(flow, fate.second)
        return flow

    def _segment(self, fate: Fate, packet: Packet) -> _Flow | None:
        assert fate.key
        flags = packet.flags
        flow = self._find(fate.key)
        opens = flags & (SYN | ACK | RST | FIN) == SYN
        if flow and opens:
            ours = fate.second == flow.second_began
            # R7, R8; a responder's SYN before that is a simultaneous open, unless the beginning was not seen.
            if flow.closing is not None or flow.moved_on or not (flow.known or ours):
                del self._flows[fate.key]
                flow = None
        if flow is None:
            if flags == 0 or flags & (FIN | RST) or not (flags & SYN or packet.payload):
                return None
            # R3: a SYN-ACK's receiver began.
            began = fate.second != (flags & (SYN | ACK) == SYN | ACK)
            flow = self._flows[fate.key] = _Flow(TCP, began, bool(flags & SYN), opens)
        self._count(flow, fate.second)
        ours = fate.second == flow.second_began
        if ours and not flags & SYN:
            flow.moved_on = True
        if flow.closing is None:
            if flags & FIN:
                flow.fins |= 1 << ours
            if flags & RST or flow.fins == 3:
                flow.closing = self._now
        return flow

    def _error(self, packet: Packet) -> bool:
        """R13: whether it belongs to a flow. A hard one ends a flow that never had an answer."""
        quote = packet.quote
        if quote is None:
            return False
        key, second = conversation(quote.protocol, quote.src, quote.dst)
        flow = self._find(key)
        if flow is None:
            return False
        hard = packet.error in ((3, 2), (3, 3)) if packet.protocol == ICMP else packet.error == (1, 4)
        if hard and not flow.answered and flow.closing is None and second == flow.second_began:
            del self._flows[key]
        return True

    def _datagram(self, packet: Packet) -> tuple[tuple[str, str, int, int], _Datagram | None]:
        assert packet.identification is not None
        key = (packet.src, packet.dst, packet.protocol, packet.identification)
        datagram = self._datagrams.get(key)
        if datagram and self._now - datagram.created > FRAGMENTS:
            for fate in datagram.waiting:
                fate.reason = "fragment"
            del self._datagrams[key]
            datagram = None
        return key, datagram

    def _fragment(self, fate: Fate, packet: Packet) -> None:
        """R15: a later fragment, or a first one without ports."""
        fate.reason = "fragment"
        if packet.first:
            self._settle(fate, packet, None)
            return
        name, datagram = self._datagram(packet)
        if datagram is None:
            datagram = self._datagrams[name] = _Datagram(self._now, [], None, None, False, False)
        if not datagram.settled:
            fate.reason = "waiting"
            datagram.waiting.append(fate)
            return
        fate.key, fate.second = datagram.key, datagram.second
        flow = datagram.flow
        if flow and fate.key and self._flows.get(fate.key) is flow and not flow.over(self._now):
            self._count(flow, fate.second)
            fate.reason = "flow"

    def _settle(self, fate: Fate, packet: Packet, flow: _Flow | None) -> None:
        """The first fragment came: those that wait for it go where it went."""
        name, datagram = self._datagram(packet)
        for waiting in datagram.waiting if datagram else ():
            waiting.reason = "flow" if flow else "fragment"
            waiting.key, waiting.second = fate.key, fate.second
        self._datagrams[name] = _Datagram(self._now, [], flow, fate.key, fate.second, True)
