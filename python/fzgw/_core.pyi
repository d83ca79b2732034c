"""The Rust engine of fzgw."""

from collections.abc import Mapping, Sequence
from typing import Any, final, overload

from fzgw.config import Config

__all__ = [
    "Batch",
    "Delta",
    "Flow",
    "Gap",
    "Gateway",
    "Note",
    "Openings",
    "Path",
    "Peer",
    "StartError",
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

    Nothing is converted before it is asked for.
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
        """`outbound`: the peer opened it; `inbound`: somebody outside did."""

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
    def tcp_flags(self) -> tuple[int, int] | None:
        """TCP flags seen from the initiator and from the responder, OR-ed."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Outer paths, oldest first, at most 16 (R24)."""

    @property
    def paths_total(self) -> int:
        """How many paths there were, also past 16."""

    @property
    def end_reason(self) -> str | None:
        """Why it ended, on the close record: `fin`, `rst`, `idle`, `reused`, `evicted`, `shutdown`, …"""

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

@final
class Batch(Sequence[Flow | Gap | Note]):
    """Records in order. Lazy: a record that nobody looks at is never converted."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int, /) -> Flow | Gap | Note: ...
    @overload
    def __getitem__(self, index: slice, /) -> Sequence[Flow | Gap | Note]: ...
    @property
    def opened(self) -> Openings:
        """Flows that opened since the batch before; handle them before the records."""

    def ocsf(self, sequence: int, handler_errors: Mapping[int, str] | None = None) -> bytes:
        """All records as OCSF JSON lines, UTF-8.

        `metadata.sequence` counts up from `sequence`. `handler_errors` maps a record's index to a text that is merged
        in as `unmapped.handler_error`.
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
        side, `forwarded`, `ended`, `live`, `icmp_errors`, `untracked` by reason, each as (packets, bytes). `denied`
        (L2b), `originated`, `datagrams`, `records`, `peers`, and `balanced`: whether all of it adds up. `error`: why it
        ended by itself, where it did.
        """

    def stop(self) -> None:
        """Ends every flow with `shutdown` and lets `recv` deliver the rest. Returns at once; may be called again."""

    def memory_send(self, packet: bytes) -> None:
        """Gives the in-memory device an IP packet, as if the kernel had routed it there. Raises OSError."""

    def memory_recv(self, timeout: float = 1.0) -> bytes | None:
        """The next IP packet that the gateway wrote to the in-memory device; None after `timeout` seconds."""

def generate_private_key() -> bytes:
    """A new WireGuard private key: 32 bytes, clamped."""

def public_key(private_key: bytes) -> bytes:
    """The public key, 32 bytes, of a private key of 32 bytes."""

def toml_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line (from 1) of every key path of a TOML document: ``("peers", 0, "public_key")`` -> 37.

    Raises ValueError with the line for a document that is not TOML.
    """
