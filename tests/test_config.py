"""fzgw.config: a TOML file becomes one frozen Config."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from config_files import GATEWAY, new_public_key, peer_table, write_config, write_key
from fzgw import _core
from fzgw.config import load, load_text
from fzgw.config.values import key_text


def test_the_smallest_configuration_has_the_documented_defaults(tmp_path: Path) -> None:
    """Every default of the design holds when nothing but the gateway is configured."""
    config = load(write_config(tmp_path))
    assert config.gateway.listen == 51820
    assert config.gateway.interface == "fzgw0"
    assert config.gateway.mtu == 1420
    assert config.gateway.dns == ()
    assert config.nat.mode == "masquerade"
    assert (config.flow_logs.open_after, config.flow_logs.update_every) == (5.0, 60.0)
    assert (config.flow_logs.max_flows, config.flow_logs.max_flows_per_peer) == (1_000_000, None)
    assert config.flow_logs.close_delay == 2.0
    idle = config.flow_logs.idle
    assert (idle.tcp, idle.tcp_opening, idle.udp, idle.icmp, idle.other) == (1200.0, 75.0, 120.0, 30.0, 120.0)
    assert (config.limits.handshake_rate, config.limits.shutdown_timeout) == (200, 10.0)
    assert (config.peers, config.resources, config.rules, config.sinks, config.handlers) == ((), (), (), (), ())
    assert config.warnings == ()


def test_the_whole_configuration_of_the_design_loads(tmp_path: Path) -> None:
    """Each key of the design's example arrives where the core reads it, in its unit and normal form."""
    private_key = write_key(tmp_path / "gateway.key")
    preshared_key = write_key(tmp_path / "laptop-7.psk")
    (tmp_path / "handlers.py").write_text("def Night(flow): ...\n")
    public_key = new_public_key()
    path = write_config(
        tmp_path,
        f"""
[gateway]
name = "exit-1"
private_key_file = "gateway.key"
listen = 51821
endpoint = "vpn.example.com:51820"
interface = "wg-exit"
addresses = ["100.64.0.1/16", "FD00:64:0::1/64"]
mtu = 1380
dns = ["100.64.0.1"]
state_dir = "state"

[nat]
mode = "none"

[flow_logs]
open_after = 0
update_every = "2m"
max_flows = 1_000
max_flows_per_peer = 10
close_delay = "500ms"
[flow_logs.idle]
tcp = "1h"
udp = 1.5

[limits]
handshake_rate = 50
shutdown_timeout = "3s"

[[peers]]
name = "laptop-7"
user = "someone@example.com"
groups = ["engineering"]
public_key = "{public_key}"
preshared_key_file = "laptop-7.psk"
allowed_ips = ["100.64.0.2", "fd00:64:0::2/128", "fd00:64::2/128"]
persistent_keepalive = 25
endpoint = "[2001:DB8::1]:51820"

[[resources]]
name = "wiki"
addresses = ["10.1.2.0/24"]
ports = ["tcp/443", "icmp", "udp/53", "tcp/8000-8100", "tcp/7-7"]
domain = "Wiki.Example.com."

[[rules]]
name = "engineering-wiki"
groups = ["engineering"]
resources = ["wiki"]

[[rules]]
name = "in"
peers = ["laptop-7"]
users = ["someone@example.com"]
direction = "inbound"

[[sinks]]
type = "stdout"

[[handlers]]
load = "handlers.py:Night"
""",
    )
    config = load(path)
    assert config.path == path
    gateway = config.gateway
    assert gateway.private_key == private_key
    assert gateway.public_key == _core.public_key(private_key)
    assert gateway.addresses == ("100.64.0.1/16", "fd00:64::1/64")
    assert gateway.state_dir == tmp_path / "state"
    assert (gateway.listen, gateway.interface, gateway.mtu, gateway.dns) == (
        51821,
        "wg-exit",
        1380,
        ("100.64.0.1",),
    )
    assert config.nat.mode == "none"
    assert (config.flow_logs.open_after, config.flow_logs.update_every) == (0.0, 120.0)
    assert (config.flow_logs.max_flows_per_peer, config.flow_logs.close_delay) == (10, 0.5)
    assert (config.flow_logs.idle.tcp, config.flow_logs.idle.udp) == (3600.0, 1.5)
    (peer,) = config.peers
    assert (peer.name, peer.user, peer.groups) == ("laptop-7", "someone@example.com", ("engineering",))
    assert key_text(peer.public_key) == public_key
    assert peer.preshared_key == preshared_key
    assert peer.allowed_ips == ("100.64.0.2/32", "fd00:64::2/128")
    assert (peer.persistent_keepalive, peer.endpoint) == (25, "[2001:db8::1]:51820")
    (wiki,) = config.resources
    assert wiki.ports == ("tcp/443", "icmp", "udp/53", "tcp/8000-8100", "tcp/7")
    assert wiki.domain == "wiki.example.com"
    assert [(rule.groups, rule.users, rule.peers, rule.resources, rule.direction) for rule in config.rules] == [
        (("engineering",), (), (), ("wiki",), "outbound"),
        ((), ("someone@example.com",), ("laptop-7",), (), "inbound"),
    ]
    assert [sink.type for sink in config.sinks] == ["stdout"]
    assert [handler.load for handler in config.handlers] == ["handlers.py:Night"]


def test_a_config_is_frozen_and_shows_no_secret(tmp_path: Path) -> None:
    """Nothing can be assigned, and neither private nor preshared key is in its repr."""
    write_key(tmp_path / "a.psk", b"\xaa" * 32)
    write_key(tmp_path / "gateway.key", b"\xbb" * 32)
    text = GATEWAY + peer_table("a", "100.64.0.2/32", more='preshared_key_file = "a.psk"\n')
    config = load(write_config(tmp_path, text))
    with pytest.raises(ValidationError):
        config.gateway.name = "other"  # type: ignore[misc]
    assert config.peers[0].preshared_key == b"\xaa" * 32
    assert r"\xaa\xaa" not in repr(config)
    assert r"\xbb\xbb" not in repr(config)


def test_keepalive_zero_is_none(tmp_path: Path) -> None:
    """WireGuard's 0 means no keepalive, which is None here."""
    text = GATEWAY + peer_table("a", "100.64.0.2/32", more="persistent_keepalive = 0\n")
    assert load(write_config(tmp_path, text)).peers[0].persistent_keepalive is None


def test_the_default_state_directory_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_STATE_HOME when it is absolute, else ~/.local/state; one directory an interface."""
    path = write_config(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert load(path).gateway.state_dir == tmp_path / "xdg" / "fzgw" / "fzgw0"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load(path).gateway.state_dir == tmp_path / "home/.local/state/fzgw/fzgw0"


def test_a_text_can_be_checked_before_it_is_written(tmp_path: Path) -> None:
    """load_text judges a text as if it were the file at the path."""
    path = write_config(tmp_path)
    text = path.read_text()
    path.unlink()
    assert load_text(text, path).gateway.name == "exit-1"
