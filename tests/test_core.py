"""The edge between Rust and Python, without root: the engine on its in-memory device, a WireGuard client of its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from config_files import peer_table, write_config
from fzgw import _core
from fzgw.config import Config, load
from fzgw.config.values import key_text
from fzgw.testing import Client
from host_lab import udp_packet

GATEWAY = """\
[gateway]
name = "exit-1"
private_key_file = "gateway.key"
listen = 0
addresses = ["100.64.0.1/16"]
[nat]
mode = "none"
"""
CLIENT_KEY = bytes([8]) * 31 + bytes([0x48])


def udp(src: str, dst: str, src_port: int, dst_port: int, payload: bytes) -> bytes:
    """An IPv4 UDP packet."""
    return udp_packet(src, dst, (src_port, dst_port), payload)


def configuration(folder: Path, more: str = "", *, groups: str = "") -> Config:
    """A gateway with one peer, `laptop`, whose key is CLIENT_KEY's."""
    key = key_text(_core.public_key(CLIENT_KEY))
    peer = peer_table("laptop", "100.64.0.2/32", public_key=key, more=groups)
    return load(write_config(folder, GATEWAY + more + peer))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The plain configuration."""
    return configuration(tmp_path)


@pytest.fixture
def gateway(config: Config) -> Iterator[_core.Gateway]:
    """A gateway on the in-memory device that makes records and announces openings."""
    gateway = _core.Gateway.start(config, flow_logs=True, open_events=True, memory=True)
    yield gateway
    gateway.stop()
    while gateway.recv(timeout=5) is not None:
        continue


def laptop(gateway: _core.Gateway, config: Config) -> Client:
    """The client that the configuration knows; it connects when it first sends."""
    return Client(
        gateway_key=config.gateway.public_key,
        endpoint=f"127.0.0.1:{gateway.port}",
        addresses=["100.64.0.2/32"],
        private_key=CLIENT_KEY,
    )


@pytest.fixture
def client(gateway: _core.Gateway, config: Config) -> Iterator[Client]:
    """The same, running."""
    with laptop(gateway, config) as client:
        yield client


def exchange(gateway: _core.Gateway, client: Client, src_port: int = 4000) -> None:
    """One question of 5 bytes through the tunnel and one answer of 6."""
    question = udp("100.64.0.2", "192.0.2.1", src_port, 53, b"hello")
    answer = udp("192.0.2.1", "100.64.0.2", 53, src_port, b"world!")
    client.send(question)
    assert gateway.memory_recv(10) == question
    gateway.memory_send(answer)
    assert client.receive(10) == answer


def drain(gateway: _core.Gateway, max: int = 1000) -> list[_core.Flow | _core.Gap | _core.Note]:
    """Every record of a gateway that was told to stop."""
    records: list[_core.Flow | _core.Gap | _core.Note] = []
    while (batch := gateway.recv(max=max, timeout=10)) is not None:
        assert len(batch) <= max
        records += batch
    return records


def test_a_flow_crosses_the_edge_whole(gateway: _core.Gateway, client: Client) -> None:
    """Scenario 15: every field of a UDP flow, as Python sees it; the opening came before (R18)."""
    before = time.time()
    exchange(gateway, client)
    batch = gateway.recv(timeout=10)
    assert batch is not None
    assert [flow.number for flow in batch.opened] == [0]
    uid = batch.opened[0].uid
    gateway.stop()
    (flow,) = drain(gateway)
    assert isinstance(flow, _core.Flow)
    assert (flow.uid, flow.activity, flow.number) == (uid, "close", 1)
    assert uid.startswith(gateway.boot_id)
    assert (flow.peer.name, flow.peer.user, flow.peer.groups) == ("laptop", None, ())
    assert flow.peer.public_key == key_text(_core.public_key(CLIENT_KEY))
    assert (flow.protocol, flow.src_ip, flow.src_port, flow.dst_ip, flow.dst_port) == (
        17, "100.64.0.2", 4000, "192.0.2.1", 53,
    )  # fmt: skip
    assert (flow.packets_out, flow.packets_in, flow.bytes_out, flow.bytes_in) == (1, 1, 33, 34)
    assert (flow.payload_out, flow.payload_in) == (5, 6)
    assert (flow.delta.packets_out, flow.delta.bytes_in) == (1, 34)
    assert (flow.direction, flow.verdict, flow.end_reason) == ("outbound", "allow", "shutdown")
    assert (flow.initiator_known, flow.icmp, flow.tcp, flow.rule, flow.domain) == (True, None, None, None, None)
    assert (flow.conn_state, flow.icmp_errors) == ("SF", ())
    assert before <= flow.start <= flow.end <= time.time()
    assert flow.end_ns - flow.start_ns == round(flow.duration * 1e9)
    (path,) = flow.paths
    assert (path.remote, path.local) == (f"127.0.0.1:{client.port}", f"127.0.0.1:{gateway.port}")
    assert flow.paths_total == 1


def test_a_batch_is_a_sequence(gateway: _core.Gateway, client: Client) -> None:
    """Indexes count from both ends, a bad one is an IndexError; it can be gone through again; `max` bounds a batch, and
    nothing is lost by it."""
    for port in range(4000, 4010):
        exchange(gateway, client, port)
    gateway.stop()
    batch = None
    while not batch:
        batch = gateway.recv(max=4, timeout=10)
    assert len(batch) == 4
    ports = [flow.src_port for flow in batch if isinstance(flow, _core.Flow)]
    assert ports[-1] == batch[-1].src_port  # type: ignore[union-attr]
    assert [flow.src_port for flow in batch if isinstance(flow, _core.Flow)] == ports
    assert batch.flow_records == 4
    with pytest.raises(IndexError):
        batch[4]
    with pytest.raises(IndexError):
        batch[-5]
    ports += [flow.src_port for flow in drain(gateway, max=3) if isinstance(flow, _core.Flow)]
    assert sorted(ports) == list(range(4000, 4010))


def test_waiting_ends_on_time_and_at_the_end(gateway: _core.Gateway) -> None:
    """`recv` gives an empty batch on timeout and None after the end, again and again; stopping twice is fine."""
    batch = gateway.recv(timeout=0.01)
    assert batch is not None
    assert len(batch) == 0
    gateway.stop()
    gateway.stop()
    assert drain(gateway) == []
    assert gateway.recv(timeout=0) is None


def test_the_books_are_there_during_and_after(gateway: _core.Gateway, client: Client) -> None:
    """L1, L2: statistics balance at any moment, and the last ones stay after the end."""
    exchange(gateway, client)
    during = gateway.stats()
    assert during["balanced"]
    assert during["packets"]["from_peer"]["forwarded"] == 1
    assert during["flows"]["to_peer"]["live"] == (1, 34)
    (peer,) = during["peers"]
    assert (peer["name"], peer["endpoint"]) == ("laptop", f"127.0.0.1:{client.port}")
    assert 0 <= peer["last_handshake_s"] < 60
    gateway.stop()
    drain(gateway)
    after = gateway.stats()
    assert after["balanced"]
    assert after["flows"]["from_peer"]["ended"] == (1, 33)
    assert after["records"] == {"made": 1, "handed": 1, "lost": 0, "handler_missed": 0}


def test_a_reload_changes_rules_and_keeps_the_flow(gateway: _core.Gateway, client: Client, tmp_path: Path) -> None:
    """P1: rules of a reload judge what opens from then on; a flow that is open goes on."""
    exchange(gateway, client)
    rules = (
        '[[resources]]\nname = "web"\naddresses = ["198.51.100.0/24"]\n[[rules]]\nname = "web"\nresources = ["web"]\n'
    )
    gateway.reload(configuration(tmp_path, rules), flow_logs=True)
    exchange(gateway, client)
    client.send(udp("100.64.0.2", "192.0.2.1", 4001, 53, b"hello"))
    # The prohibition is an ICMP error to the client (R23).
    error = client.receive(10)
    assert error is not None
    assert error[20:22] == bytes([3, 13])
    gateway.stop()
    flows = {flow.verdict: flow for flow in drain(gateway) if isinstance(flow, _core.Flow)}
    assert flows["allow"].packets_out == 2
    assert (flows["deny"].attempts, flows["deny"].rule) == (1, "default-deny")
    delta = flows["deny"].delta
    assert (delta.attempts, delta.attempted_bytes, delta.packets_out) == (1, 33, 0)


def test_flow_logs_off_makes_no_records(config: Config) -> None:
    """Scenario 22: traffic passes, and nothing is recorded or announced."""
    gateway = _core.Gateway.start(config, flow_logs=False, memory=True)
    with laptop(gateway, config) as client:
        exchange(gateway, client)
    gateway.stop()
    assert drain(gateway) == []
    stats = gateway.stats()
    assert stats["balanced"]
    assert stats["packets"]["from_peer"]["forwarded"] == 1
    assert stats["flows"]["opened"] == 0


def test_a_port_in_use_is_one_clear_error(gateway: _core.Gateway, tmp_path: Path) -> None:
    """A second gateway on the port fails with what to do, and leaves the first alone."""
    path = write_config(tmp_path, GATEWAY.replace("listen = 0", f"listen = {gateway.port}"))
    with pytest.raises(_core.StartError, match=rf"UDP port {gateway.port} is in use.*gateway\.listen") as caught:
        _core.Gateway.start(load(path), flow_logs=True, memory=True)
    assert caught.value.kind == "port_in_use"
    with pytest.raises(OSError, match="in use"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", gateway.port))


def test_what_makes_no_sense_is_refused(gateway: _core.Gateway) -> None:
    """A negative timeout and an unknown format are ValueErrors; keys have 32 bytes."""
    with pytest.raises(ValueError, match="timeout"):
        gateway.recv(timeout=-1)
    batch = gateway.recv(timeout=0)
    assert batch is not None
    with pytest.raises(ValueError, match='"xml" is no format of records'):
        batch.render("xml", 1)
    with pytest.raises(ValueError, match="32"):
        _core.public_key(b"short")


def test_keys_are_curve25519() -> None:
    """RFC 7748, section 5.2: the first iteration from 9; new private keys differ and are clamped."""
    nine = bytes([9]) + bytes(31)
    assert _core.public_key(nine).hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    first, second = _core.generate_private_key(), _core.generate_private_key()
    assert first != second
    assert first[0] & 7 == 0
    assert first[31] & 0xC0 == 0x40
