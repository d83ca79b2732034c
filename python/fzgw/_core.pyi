"""The Rust engine of fzgw."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Protocol, final, overload, type_check_only

from fzgw.config import Config, FlowLogsConfig

__all__ = [
    "Batch",
    "Delta",
    "Flow",
    "Gap",
    "Gateway",
    "IcmpErrors",
    "Note",
    "Openings",
    "Path",
    "Peer",
    "Replay",
    "StartError",
    "Tcp",
    "generate_private_key",
    "public_key",
    "toml_lines",
]

class StartError(Exception):
    """Why a gateway cannot start. Its text is one clear line."""

    kind: str
    """`port_in_use`, `interface_taken`, `no_tun`, `privilege` or `other`."""

@final
class Peer:
    """The peer of a flow: who. Without a known peer its name and key are empty and it has no groups."""

    @property
    def name(self) -> str:
        """The configuration's name."""

    @property
    def user(self) -> str | None:
        """The user behind it, where the configuration says so."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Its groups, in the configuration's order."""

    @property
    def public_key(self) -> str:
        """The WireGuard public key, base64."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Delta:
    """Counts of a flow since its record before (R19)."""

    @property
    def bytes_out(self) -> int:
        """IP bytes from initiator to responder."""

    @property
    def bytes_in(self) -> int:
        """IP bytes from responder to initiator."""

    @property
    def packets_out(self) -> int:
        """Packets from initiator to responder."""

    @property
    def packets_in(self) -> int:
        """Packets from responder to initiator."""

    @property
    def attempts(self) -> int:
        """Denied packets; 0 on an allowed flow (R23)."""

    @property
    def attempted_bytes(self) -> int:
        """IP bytes of the denied packets."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__ = None  # type: ignore[assignment]

@final
class Tcp:
    """What is told of a TCP flow alone (R10), since it began."""

    @property
    def history(self) -> str:
        """What happened, a letter an event, upper case from the initiator and lower case from the responder: `S` SYN,
        `H` SYN-ACK, `A` a bare ACK, `D` payload, `F` FIN, `R` RST, `T` retransmission, `I` FIN with RST, `Q` SYN with
        FIN or RST.

        Each stands once for each direction, but for `T`, which comes again with the 10th, 100th, … retransmission.
        """

    @property
    def conn_state(self) -> str:
        """As `Flow.conn_state`."""

    @property
    def flags_out(self) -> int:
        """TCP flags seen from the initiator, OR-ed: the low byte of the header's flags."""

    @property
    def flags_in(self) -> int:
        """TCP flags seen from the responder, OR-ed."""

    @property
    def syn_to_syn_ack(self) -> float | None:
        """Seconds from the last SYN before the first SYN-ACK to that one: the responder's side of the gateway. None
        unless both were seen."""

    @property
    def syn_ack_to_ack(self) -> float | None:
        """Seconds from the last SYN-ACK to the initiator's first segment after it: the initiator's side. None unless
        both were seen."""

    @property
    def retransmits_out(self) -> int:
        """Segments of the initiator that began before what it had sent already."""

    @property
    def retransmits_in(self) -> int:
        """Segments of the responder that began before what it had sent already."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__ = None  # type: ignore[assignment]

@final
class IcmpErrors:
    """ICMP errors of one type and code about a flow (R13)."""

    @property
    def type(self) -> int:
        """ICMP or ICMPv6 type, by the flow's IP version; 255 with code 255 for all past the 15th kind."""

    @property
    def code(self) -> int:
        """Its code."""

    @property
    def packets(self) -> int:
        """Errors."""

    @property
    def bytes(self) -> int:
        """Their IP bytes."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__ = None  # type: ignore[assignment]

@final
class Path:
    """One outer path of a flow's tunnel (R24)."""

    @property
    def remote(self) -> str:
        """The peer's endpoint, `address:port`."""

    @property
    def local(self) -> str:
        """The gateway's end, `address:port`."""

    @property
    def since(self) -> float:
        """Unix seconds of the flow's first packet on it."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__ = None  # type: ignore[assignment]

@final
class Flow:
    """A frozen view of one flow record. Out is initiator to responder, whoever reports.

    Nothing is converted before it is asked for. A flow that is kept keeps the whole batch that it came in: keep what
    you need of it instead.
    """

    @property
    def uid(self) -> str:
        """Unique across gateways and restarts (R4)."""

    @property
    def activity(self) -> str:
        """`open`, `update` or `close`."""

    @property
    def number(self) -> int:
        """The record's number within the flow, from 1; 0 for the event that `on_open` gets."""

    @property
    def peer(self) -> Peer:
        """Whose flow it is. Never None."""

    @property
    def protocol(self) -> int:
        """IP protocol number."""

    @property
    def src_ip(self) -> str:
        """The initiator's inner address; unspecified on a denied flow that joins several (R23)."""

    @property
    def src_port(self) -> int:
        """The initiator's port, the identifier of an ICMP echo, or 0."""

    @property
    def dst_ip(self) -> str:
        """The responder's inner address; unspecified on a denied flow that joins several (R23)."""

    @property
    def dst_port(self) -> int:
        """The responder's port, or 0."""

    @property
    def icmp(self) -> tuple[int, int] | None:
        """Type and code of an ICMP echo or query flow."""

    @property
    def community_id(self) -> str | None:
        """Community ID v1, seed 0 (R4); None for a denied flow, which stands for attempts from many ports."""

    @property
    def initiator_known(self) -> bool:
        """False where the flow was met in the middle (R3)."""

    @property
    def direction(self) -> str:
        """`outbound`: the peer opened it; `inbound`: somebody outside did; `unknown`: in a capture without a
        configuration there are no peers."""

    @property
    def domain(self) -> str | None:
        """The responder's domain, where it is known."""

    @property
    def domain_source(self) -> str | None:
        """`config`: the domain is its resource's."""

    @property
    def resource(self) -> str | None:
        """The name of the resource that the responder belongs to."""

    @property
    def rule(self) -> str | None:
        """The name of the access rule that decided; None without rules."""

    @property
    def verdict(self) -> str:
        """`allow` or `deny`."""

    @property
    def start(self) -> float:
        """Unix seconds of the first packet."""

    @property
    def end(self) -> float:
        """`start` plus the monotonic time to the last packet (R16), Unix seconds."""

    @property
    def start_ns(self) -> int:
        """`start` in nanoseconds, exact."""

    @property
    def end_ns(self) -> int:
        """`end` in nanoseconds, exact."""

    @property
    def duration(self) -> float:
        """Monotonic seconds from the first to the last packet."""

    @property
    def bytes_out(self) -> int:
        """IP bytes from initiator to responder, headers included (R20)."""

    @property
    def bytes_in(self) -> int:
        """IP bytes from responder to initiator."""

    @property
    def packets_out(self) -> int:
        """Packets from initiator to responder."""

    @property
    def packets_in(self) -> int:
        """Packets from responder to initiator."""

    @property
    def payload_out(self) -> int:
        """Bytes above TCP or UDP from initiator to responder."""

    @property
    def payload_in(self) -> int:
        """Bytes above TCP or UDP from responder to initiator."""

    @property
    def delta(self) -> Delta:
        """Counts since the flow's record before."""

    @property
    def attempts(self) -> int:
        """Denied packets; 0 on an allowed flow (R23)."""

    @property
    def attempted_bytes(self) -> int:
        """IP bytes of the denied packets."""

    @property
    def conn_state(self) -> str:
        """How far it came, one of Zeek's 13 words (R10): `SF`, `S0`, `REJ`, …"""

    @property
    def tcp(self) -> Tcp | None:
        """What is told of TCP alone; None for other protocols and for a denied flow."""

    @property
    def icmp_errors(self) -> tuple[IcmpErrors, ...]:
        """ICMP errors about it, by type and code in the order of their first, at most 16 (R13)."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Outer paths, oldest first, at most 16 (R24)."""

    @property
    def paths_total(self) -> int:
        """How many paths there were, also past 16."""

    @property
    def end_reason(self) -> str | None:
        """Why it ended, on the close record: `fin`, `rst`, `idle`, `icmp_unreachable`, `reused`, `evicted`,
        `peer_removed`, `shutdown`, `capture_end`."""

@final
class Gap:
    """Records that were lost because the queue to Python was full, and what was in them."""

    @property
    def records(self) -> int:
        """Missing records."""

    @property
    def packets(self) -> int:
        """Packets in their deltas."""

    @property
    def bytes(self) -> int:
        """IP bytes in their deltas."""

    @property
    def start(self) -> float:
        """Unix seconds of the first loss."""

    @property
    def end(self) -> float:
        """Unix seconds of the last loss."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__ = None  # type: ignore[assignment]

@final
class Note:
    """Something that a reader of the records must know."""

    @property
    def kind(self) -> str:
        """`clock_step`: the wall clock was stepped (R16)."""

    @property
    def at(self) -> float:
        """When it was noticed, Unix seconds."""

    @property
    def by(self) -> float:
        """By how many seconds; forward is positive."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__ = None  # type: ignore[assignment]

@final
class Openings(Sequence[Flow]):
    """Flows that opened, in order: events for handlers, not records (R18). Lazy."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int, /) -> Flow: ...
    @overload
    def __getitem__(self, index: slice, /) -> Sequence[Flow]: ...

@type_check_only
class RecordRemarks(Protocol):
    """What handlers said of a record (`fzgw.remarks.Remarks`)."""

    @property
    def handler_error(self) -> str | None:
        """What one of them raised."""

    @property
    def annotations(self) -> Sequence[tuple[str, bool | int | float | str]]:
        """What they noted on its flow: names and values, integers of 64 bits."""

    @property
    def omit(self) -> bool:
        """Whether the record has no line."""

@final
class Batch(Sequence[Flow | Gap | Note]):
    """Records in order. Lazy: a record that nobody looks at is never converted."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int, /) -> Flow | Gap | Note: ...
    @overload
    def __getitem__(self, index: slice, /) -> Sequence[Flow | Gap | Note]: ...
    def __iter__(self) -> Iterator[Flow | Gap | Note]: ...
    @property
    def flow_records(self) -> int:
        """How many of the records are of flows: all but gaps and notes."""

    @property
    def opened(self) -> Openings:
        """Flows that opened since the batch before; handle them before the records."""

    def render(
        self, format: str, sequence: int, remarks: Mapping[int, RecordRemarks] | None = None
    ) -> tuple[bytes, int]:
        """The records as JSON lines of a format, `ocsf`, `ecs` or `zeek`, UTF-8; and how many lines they are.

        A record that the format has no line for is left out: in `ecs` and `zeek` all but close records. The lines are
        numbered from `sequence`; `remarks` has what is to be said of a record by its index in the batch. Raises
        ValueError for another format.
        """

@final
class Gateway:
    """A running gateway: one worker thread in Rust that owns the UDP port and the device."""

    @staticmethod
    def start(config: Config, *, flow_logs: bool, open_events: bool = False, memory: bool = False) -> Gateway:
        """Opens the UDP port and the TUN device, in the network namespace of the calling thread, and starts.

        `flow_logs`: records are made; `open_events`: openings are announced too; `memory`: the device is a pair of
        sockets in this process, which needs no privilege. Raises StartError, and ValueError for a configuration that
        was not validated. Whatever fails leaves nothing behind.
        """

    @property
    def interface(self) -> str:
        """The name of the device."""

    @property
    def tun_offload(self) -> str:
        """What the device can do beyond one packet a call: "tso+uso", "tso" or "off"."""

    @property
    def port(self) -> int:
        """The UDP port."""

    @property
    def boot_id(self) -> str:
        """16 hex digits, new at each start."""

    def recv(self, max: int = 1000, timeout: float = 1.0) -> Batch | None:
        """The next records, at most `max`; an empty batch after `timeout` seconds; None at the end.

        The end is when the gateway was stopped and everything was taken. The interpreter is released meanwhile.
        """

    def reload(self, config: Config, *, flow_logs: bool, open_events: bool = False) -> None:
        """Takes peers, rules, resources and limits of a new configuration; returns when they are in force.

        A peer is its public key: tunnels and flows of those that stay go on. Raises ValueError, and changes nothing
        then.
        """

    def stats(self) -> dict[str, Any]:
        """The books at a moment between two batches of packets; after the end, the last ones.

        `packets` and `bytes` (L1): by side, `received`, `forwarded`, `waiting`, `dropped` by reason. `flows` (L2): by
        side, `forwarded`, `ended`, `live`, `icmp_errors`, `pending_fragments`, `untracked` by reason, each as
        (packets, bytes). `denied` (L2b), `originated`, `datagrams`, `records`, `peers`, and `balanced`: whether all of
        it adds up. `tun_offload`: as the property. `error`: why it ended by itself, where it did.
        """

    def notices(self) -> list[str]:
        """What the operator should hear of since the last call, a line each: things that happen once."""

    def stop(self) -> None:
        """Ends every flow with `shutdown` and lets `recv` deliver the rest. Returns at once; may be called again."""

    def memory_send(self, packet: bytes) -> None:
        """Gives the in-memory device an IP packet, as if the kernel had routed it there. Raises OSError."""

    def memory_recv(self, timeout: float = 1.0) -> bytes | None:
        """The next IP packet that the gateway wrote to the in-memory device; None after `timeout` seconds."""

@final
class Replay:
    """Capture files through the flow engine, on a thread of their own that ends with this object."""

    @staticmethod
    def start(
        paths: Sequence[str | PathLike[str]],
        *,
        config: Config | None = None,
        flow_logs: FlowLogsConfig | None = None,
        updates: bool = True,
        open_events: bool = False,
    ) -> Replay:
        """Begins to read.

        `paths`: files in their order, as one capture; "-" is standard input. `config`: peers, resources, rules and
        limits; without it there are no peers. `flow_logs`: limits in place of the configuration's, or of the defaults.
        `updates`: open and update records are made, not close records alone; `open_events`: openings are announced too.
        What cannot be read is told by `error`. The queue of batches is bounded and makes the reader wait. Raises
        ValueError for a configuration that was not validated, OSError where no thread can be had.
        """

    def recv(self, max: int = 1000, timeout: float = 1.0) -> Batch | None:
        """The next records, at most `max`; an empty batch after `timeout` seconds; None at the end.

        The interpreter is released meanwhile.
        """

    def progress(self) -> dict[str, int]:
        """How far it is: `bytes` (read of the files, compressed as they are), `bytes_total` (0 where that is unknown),
        `packets` (frames), `flows` (live)."""

    def ledger(self) -> dict[str, Any]:
        """The books, once `recv` has given None; RuntimeError before.

        `packets` (L1): `frames` in all, `not_ip` by reason, and by side `received`, `forwarded`, `waiting`, `dropped`
        by reason; `bytes` the same by side. `flows` (L2) and `denied` (L2b) as `Gateway.stats` has them. `records`:
        `made`. `balanced`: whether all of it adds up.
        """

    @property
    def error(self) -> str | None:
        """After the end: why reading stopped early, in one line that names the file, and the offset in it."""

    def stop(self) -> None:
        """Ends the reading early, if it has not ended. Returns at once; may be called again."""

def generate_private_key() -> bytes:
    """A new WireGuard private key: 32 bytes, clamped."""

def public_key(private_key: bytes) -> bytes:
    """The public key, 32 bytes, of a private key of 32 bytes."""

def toml_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line (from 1) of every key path of a TOML document: ``("peers", 0, "public_key")`` -> 37.

    Raises ValueError with the line for a document that is not TOML.
    """
