"""The tables of the configuration file as frozen models, one class a table, one field a key.

Durations are seconds (float), keys are 32 raw bytes, networks and addresses are text in normal form, lists are tuples.
Every key has its default here and nowhere else. The Rust core reads these attributes by name.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationInfo

from fzgw.config import values
from fzgw.config.errors import ConfigProblem
from fzgw.config.keyfiles import KeyFiles

SMALLEST_MTU = 1280
"""Bytes. IPv6 needs it on every link."""

LARGEST_MTU = 8920
"""Bytes. A 9000-byte jumbo frame less WireGuard's 80 bytes over IPv6."""

LARGEST_FLOW_TABLE = 100_000_000
"""Flows: an upper end for `max_flows`, so that a slip of the hand does not ask for terabytes."""


def _key_from_file(value: object, info: ValidationInfo) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"should be the path of a key file, not {values.kind(value)}")
    return _files(info).key(value)


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError(f"should be a path, not {values.kind(value) if value != '' else 'empty'}")
    return _files(info).resolve(value)


def _existing_handler(text: str, info: ValidationInfo) -> str:
    file, _ = values.handler_spec(text)
    path = _files(info).resolve(file)
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    return text


def _files(info: ValidationInfo) -> KeyFiles:
    if not isinstance(info.context, KeyFiles):
        raise TypeError("validate configurations with fzgw.config.load: paths need to know their configuration file")
    return info.context


def _unique(items: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _public_key(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"should be a key in base64, not {values.kind(value)}")
    return values.key(value)


def _default_state_dir(validated: dict[str, Any]) -> Path:
    home = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    state = Path(home) if home.startswith("/") else _home_state()
    # One directory a gateway: two of them on a host differ in their interface, and must not share a uid.
    return state / "fzgw" / str(validated.get("interface", "fzgw0"))


def _home_state() -> Path:
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError:  # a user without an entry and without HOME, as containers have them
        return Path("/var/lib")


Name = Annotated[str, AfterValidator(values.name)]
Address = Annotated[str, AfterValidator(values.address)]
InterfaceAddress = Annotated[str, AfterValidator(values.interface_address)]
Network = Annotated[str, AfterValidator(values.network)]
Networks = Annotated[tuple[Network, ...], AfterValidator(_unique), Field(min_length=1)]
PortRule = Annotated[str, AfterValidator(values.port_rule)]
Duration = Annotated[float, BeforeValidator(values.duration)]
PositiveDuration = Annotated[float, BeforeValidator(values.duration), Field(gt=0)]
PublicKey = Annotated[bytes, BeforeValidator(_public_key)]
KeyFromFile = Annotated[bytes, BeforeValidator(_key_from_file)]


class Table(BaseModel):
    """What all tables share: frozen, no unknown keys, no conversion between types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class GatewayConfig(Table):
    """``[gateway]``: the gateway itself."""

    name: Name
    """What records call this gateway."""
    private_key: KeyFromFile = Field(validation_alias="private_key_file", repr=False)
    listen: int = Field(default=51820, ge=0, le=65535)
    """UDP port, for IPv4 and IPv6; 0 takes any free one."""
    endpoint: Annotated[str, AfterValidator(values.endpoint)] | None = None
    """Host and port that clients are given; nothing else uses it."""
    interface: Annotated[str, AfterValidator(values.interface_name)] = "fzgw0"
    addresses: Annotated[tuple[InterfaceAddress, ...], AfterValidator(_unique), Field(min_length=1)]
    """The gateway's own tunnel addresses with the prefix lengths of their networks."""
    mtu: int = Field(default=1420, ge=SMALLEST_MTU, le=LARGEST_MTU)
    """Bytes of an inner packet."""
    tun_offload: Literal["auto", "off"] = "auto"
    """Whether many segments may cross the TUN device in one call, where the kernel has that."""
    dns: tuple[Address, ...] = ()
    """DNS servers that clients are given."""
    state_dir: Annotated[Path, BeforeValidator(_path)] = Field(default_factory=_default_state_dir)

    _uid: str = PrivateAttr(default="")
    _public_key: bytes = PrivateAttr(default=b"")

    @property
    def uid(self) -> str:
        """This gateway's identity in records: stays when its name or key changes, once kept in the state directory."""
        return self._uid

    @property
    def public_key(self) -> bytes:
        """The 32 bytes that clients know this gateway by."""
        return self._public_key


class NatConfig(Table):
    """``[nat]``: what happens to the source address of what leaves the tunnel."""

    mode: Literal["masquerade", "none"] = "masquerade"


class IdleConfig(Table):
    """``[flow_logs.idle]``: seconds of silence in both directions after which a flow has ended (R17)."""

    tcp: PositiveDuration = 1200.0
    tcp_opening: PositiveDuration = 75.0
    udp: PositiveDuration = 120.0
    icmp: PositiveDuration = 30.0
    other: PositiveDuration = 120.0


class FlowLogsConfig(Table):
    """``[flow_logs]``: when a flow is told of, and how many are kept."""

    open_after: Duration = 5.0
    """Seconds until an open flow gets its open record; 0 reports each at once (R18)."""
    update_every: PositiveDuration = 60.0
    """Seconds between the update records of a flow that has traffic (R19)."""
    close_delay: Duration = 2.0
    """Seconds an ended TCP flow stays to absorb its last segments (R8)."""
    max_flows: int = Field(default=1_000_000, ge=1, le=LARGEST_FLOW_TABLE)
    max_flows_per_peer: Annotated[int, Field(ge=1, le=LARGEST_FLOW_TABLE)] | None = None
    """None: an eighth of `max_flows`, or all of them with one peer (R26)."""
    idle: IdleConfig = IdleConfig()


class FlowLogsOnly(Table):
    """What a configuration is where nothing but flows is looked at: captures that are read without a gateway."""

    flow_logs: FlowLogsConfig = FlowLogsConfig()


class LimitsConfig(Table):
    """``[limits]``: protection of the gateway itself."""

    handshake_rate: int = Field(default=200, ge=1, le=1_000_000)
    """Handshakes a second above which unknown initiators have to prove their address with a cookie."""
    shutdown_timeout: PositiveDuration = 10.0
    """Seconds a shutdown may take to deliver every record (R27)."""


def _keepalive(seconds: int) -> int | None:
    return seconds or None


class PeerConfig(Table):
    """``[[peers]]``: one WireGuard client."""

    name: Name
    user: Name | None = None
    groups: Annotated[tuple[Name, ...], AfterValidator(_unique)] = ()
    public_key: PublicKey
    preshared_key: KeyFromFile | None = Field(default=None, validation_alias="preshared_key_file", repr=False)
    allowed_ips: Networks
    persistent_keepalive: Annotated[int, Field(ge=0, le=65535), AfterValidator(_keepalive)] | None = None
    """Seconds between keepalives that the gateway sends; None (or 0 in the file) for none."""
    endpoint: Annotated[str, AfterValidator(values.ip_endpoint)] | None = None
    """``ip:port`` where the peer can be reached before it has spoken; the gateway may then start the handshake."""


class ResourceConfig(Table):
    """``[[resources]]``: a named destination."""

    name: Name
    addresses: Networks
    ports: Annotated[tuple[PortRule, ...], AfterValidator(_unique)] = ()
    """``tcp/443``, ``tcp/8000-8100``, ``udp``, ``icmp``, ``any``; empty means any."""
    domain: Annotated[str, AfterValidator(values.domain)] | None = None
    """Shown as the domain of its flows, with source "config"."""


class RuleConfig(Table):
    """``[[rules]]``: who may reach what (P1-P4).

    It matches a peer that is in any of `groups`, `users` and `peers`; all three empty: every peer. Empty `resources`:
    any destination."""

    name: Name
    groups: tuple[Name, ...] = ()
    users: tuple[Name, ...] = ()
    peers: tuple[Name, ...] = ()
    resources: tuple[Name, ...] = ()
    direction: Literal["outbound", "inbound"] = "outbound"
    """inbound: the peer is the responder, and the resource names the peer's addresses and ports."""


class SinkConfig(Table):
    """``[[sinks]]``: where records go."""

    type: Literal["stdout"]


class HandlerConfig(Table):
    """``[[handlers]]``: Python that sees flows."""

    load: Annotated[str, AfterValidator(_existing_handler)]
    """``file.py:name``, the file relative to the configuration file."""


class Config(Table):
    """A whole configuration, valid and frozen. `fzgw.config.load` makes it."""

    gateway: GatewayConfig
    nat: NatConfig = NatConfig()
    flow_logs: FlowLogsConfig = FlowLogsConfig()
    limits: LimitsConfig = LimitsConfig()
    peers: tuple[PeerConfig, ...] = ()
    resources: tuple[ResourceConfig, ...] = ()
    rules: tuple[RuleConfig, ...] = ()
    """None at all: everything is allowed."""
    sinks: tuple[SinkConfig, ...] = ()
    handlers: tuple[HandlerConfig, ...] = ()

    _path: Path = PrivateAttr(default=Path())
    _warnings: tuple[ConfigProblem, ...] = PrivateAttr(default=())

    @property
    def path(self) -> Path:
        """The file it came from, as it was named."""
        return self._path

    @property
    def warnings(self) -> tuple[ConfigProblem, ...]:
        """What is not wrong but should be known, levels "warning" and "info", in the order of the file."""
        return self._warnings
