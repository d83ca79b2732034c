"""``fzgw init``: a commented configuration and the gateway's key."""

import json
import os
import socket
from pathlib import Path

import click

from fzgw.cli.errors import Failure
from fzgw.cli.options import DEFAULT_CONFIG

KEY_FILE = "gateway.key"

CONFIG_MODE = 0o644
"""The configuration holds no secret: keys are in files of their own."""


@click.command
@click.argument("path", default=DEFAULT_CONFIG, type=click.Path(path_type=Path))
def init(path: Path) -> None:
    """Write a commented configuration to PATH (gateway.toml) and a new key beside it.

    Neither file is ever overwritten.
    """
    from fzgw import _core
    from fzgw.config import files
    from fzgw.config.values import key_text

    key_path = path.with_name(KEY_FILE)
    for existing in (path, key_path):
        if os.path.lexists(existing):
            raise Failure(f"{existing} exists; it is not overwritten, and nothing was written")
    private_key = _core.generate_private_key()
    try:
        files.create(key_path, key_text(private_key) + "\n", files.SECRET)
    except FileExistsError:
        raise Failure(f"{key_path} exists; it is not overwritten, and nothing was written") from None
    try:
        files.create(path, _template(), CONFIG_MODE)
    except BaseException as error:
        key_path.unlink()
        if isinstance(error, FileExistsError):
            raise Failure(f"{path} exists; it is not overwritten, and nothing was written") from None
        raise
    _tell(path, key_path, key_text(_core.public_key(private_key)))


def _tell(path: Path, key_path: Path, public_key: str) -> None:
    config = "" if path == Path(DEFAULT_CONFIG) else f" --config {path}"
    argument = "" if path == Path(DEFAULT_CONFIG) else f" {path}"
    click.echo(
        f"""\
{path}: the configuration
{key_path}: the gateway's private key, mode 0600
public key: {public_key}

Next:
  1. edit {path}: set `endpoint` to where clients reach this host, and look at `addresses`
  2. fzgw peer add laptop{config} > laptop.conf     (or --qr for a phone)
  3. fzgw check{argument}
  4. sudo fzgw run {path}""",
        err=True,
    )


def _template() -> str:
    name = socket.gethostname().partition(".")[0]
    usable = name.isascii() and name.isprintable() and name.strip() == name and 0 < len(name) <= 64
    return _TEMPLATE.replace("@NAME@", json.dumps(name if usable else "exit-1"))


_TEMPLATE = """\
# fzgw: a WireGuard gateway. `fzgw check` says what this file makes it do.
# Durations are "500ms", "5s", "2m", "1h", or a number of seconds. Paths are relative to this file.
# Any key can be set for one run: fzgw run --set flow_logs.idle.tcp=300s

[gateway]
# What records call this gateway.
name = @NAME@
# The key made with this file. Clients know its public half: a new key means new configurations for all of them.
private_key_file = "gateway.key"
# UDP port, for IPv4 and IPv6.
listen = 51820
# Host and port at which clients reach this gateway: `fzgw peer add` writes it into their configurations.
# endpoint = "vpn.example.com:51820"
interface = "fzgw0"
# The gateway's own addresses in the tunnel, with the size of their networks. Clients get the next free ones.
# Without an IPv6 address there is no IPv6 in the tunnel.
addresses = ["100.64.0.1/16", "fd00:64::1/64"]
# Bytes of a packet inside the tunnel, 1280 to 8920. 1420 fits into Ethernet.
mtu = 1420
# Many segments in one call of the TUN device, where the kernel has that; "off" moves them one by one.
# tun_offload = "auto"
# DNS servers that clients are told to use. Without any, their questions go where they went before.
# dns = ["9.9.9.9", "2620:fe::fe"]
# Where the gateway keeps what must survive a restart. Default: fzgw/<interface> in the XDG state directory
# (~/.local/state).
# state_dir = "/var/lib/fzgw"

[nat]
# "masquerade": packets that leave the tunnel by another interface get that interface's address, which an exit node
# needs. "none": they keep the client's tunnel address, and other routers must know the way back.
mode = "masquerade"

[flow_logs]
# A flow that is still open after so long is told of by an open record; shorter ones by their close record alone.
# open_after = "5s"
# A flow that goes on is told of again so often, while it has traffic.
# update_every = "60s"
# An ended TCP flow stays this long, for its last segments.
# close_delay = "2s"
# Flows kept at once, and those of one peer (default: an eighth of all, or all with a single peer).
# max_flows = 1_000_000
# max_flows_per_peer = 125_000

# A flow that was silent for longer, both ways, has ended.
# [flow_logs.idle]
# tcp = "1200s"
# tcp_opening = "75s"      # a SYN without an answer
# udp = "120s"
# icmp = "30s"
# other = "120s"

# [limits]
# Handshakes a second, above which unknown senders must first show that their address is theirs.
# handshake_rate = 200
# How long a shutdown may take to deliver every record.
# shutdown_timeout = "10s"

# Where records of flows go. With neither a sink nor a handler, no records are made.
[[sinks]]
# JSON lines (OCSF) on stdout.
type = "stdout"

# Your own Python, called with flows: a function, or a subclass of fzgw.FlowHandler.
# [[handlers]]
# load = "handlers.py:Night"

# Destinations with a name, for rules and records.
# ports: "tcp/443", "udp/53", "tcp/8000-8100", "tcp", "udp", "icmp" or "any"; without it, any.
# domain: shown as the domain of its flows.
# [[resources]]
# name = "wiki"
# addresses = ["10.1.2.0/24"]
# ports = ["tcp/443", "icmp"]
# domain = "wiki.example.com"

# Who may reach what. Without any rule everything is allowed; with rules, everything that none of them allows is denied.
# A rule is for peers in any of its groups, users and peers (none given: for all), to any of its resources (none given:
# to everywhere). direction = "inbound" is for what others open towards the peers.
# [[rules]]
# name = "engineering-wiki"
# groups = ["engineering"]
# users = ["someone@example.com"]
# peers = ["laptop-7"]
# resources = ["wiki"]
# direction = "outbound"

# The clients, one table each. `fzgw peer add NAME` appends them, with keys and the next free addresses:
# user and groups: who it is, on records and for rules.
# preshared_key_file: a second, symmetric secret between this peer and the gateway.
# allowed_ips: the addresses it may use. Those outside the gateway's networks get a route: a network behind the peer.
# persistent_keepalive: seconds between keepalives from the gateway (clients mostly send their own).
# endpoint: ip:port of a peer that the gateway may call first.
# [[peers]]
# name = "laptop-7"
# user = "someone@example.com"
# groups = ["engineering"]
# public_key = "..."
# preshared_key_file = "laptop-7.psk"
# allowed_ips = ["100.64.0.2/32", "fd00:64::2/128"]
# persistent_keepalive = 25
# endpoint = "192.0.2.7:51820"
"""
