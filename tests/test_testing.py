"""The test kit: its client against a real gateway, both on in-memory devices, and once on a TUN device as root."""

from __future__ import annotations

import base64
import os
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from config_files import write_config, write_key
from fzgw import _core
from fzgw.config import ConfigErrors, load
from fzgw.demo.namespaces import NetworkNamespace
from fzgw.demo.privilege import TUN_DEVICE
from fzgw.testing import Client

CLIENT_V4, CLIENT_V6 = "100.64.0.2", "fd00:64::2"
OUTSIDE_V4, OUTSIDE_V6 = "203.0.113.10", "2001:db8::10"
UDP = 17


def udp_packet(source: str, destination: str, payload: bytes) -> bytes:
    """A UDP packet from port 1000 to port 2000, of the addresses' family, with its checksums."""
    src, dst = ip_address(source), ip_address(destination)
    length = 8 + len(payload)
    pseudo = src.packed + dst.packed + struct.pack("!IxxxB", length, UDP)
    datagram = struct.pack("!4H", 1000, 2000, length, 0) + payload
    datagram = datagram[:6] + struct.pack("!H", _checksum(pseudo + datagram)) + payload
    if src.version == 6:
        return struct.pack("!IHBB", 6 << 28, length, UDP, 64) + src.packed + dst.packed + datagram
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, UDP, 0) + src.packed + dst.packed
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + datagram


def _checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class MemoryGateway:
    """A gateway on an in-memory device, on any free UDP port, with one peer."""

    def __init__(self, folder: Path, peer_key: bytes, preshared_key: bytes | None = None) -> None:
        private_key = write_key(folder / "gateway.key")
        self.public_key = _core.public_key(private_key)
        more = ""
        if preshared_key is not None:
            write_key(folder / "peer.psk", preshared_key)
            more = 'preshared_key_file = "peer.psk"'
        text = f"""\
[gateway]
name = "exit-1"
private_key_file = "gateway.key"
listen = 0
addresses = ["100.64.0.1/16", "fd00:64::1/64"]

[[peers]]
name = "kit"
public_key = "{base64.b64encode(peer_key).decode()}"
allowed_ips = ["{CLIENT_V4}/32", "{CLIENT_V6}/128"]
{more}
"""
        self.engine = _core.Gateway.start(load(write_config(folder, text)), flow_logs=True, memory=True)

    @property
    def endpoint(self) -> str:
        """Where a client on this host reaches it."""
        return f"127.0.0.1:{self.engine.port}"

    def take(self, packet: bytes, timeout: float = 5.0) -> bool:
        """Whether this packet comes out of the tunnel in time."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if self.engine.memory_recv(left) == packet:
                return True
        return False

    def close(self) -> list[_core.Flow]:
        """End it and return its close records."""
        self.engine.stop()
        flows = []
        while (batch := self.engine.recv(timeout=5)) is not None:
            flows += [record for record in batch if isinstance(record, _core.Flow) and record.activity == "close"]
        return flows


@pytest.fixture
def private_key() -> bytes:
    """The client's key."""
    return _core.generate_private_key()


@pytest.fixture
def gateway(tmp_path: Path, private_key: bytes) -> Iterator[MemoryGateway]:
    """A running gateway that knows the client."""
    gateway = MemoryGateway(tmp_path, _core.public_key(private_key))
    yield gateway
    gateway.close()


def client_of(gateway: MemoryGateway, private_key: bytes | None, preshared_key: bytes | None = None) -> Client:
    """A client of this gateway, not yet started."""
    return Client(
        gateway_key=gateway.public_key,
        endpoint=gateway.endpoint,
        addresses=[f"{CLIENT_V4}/32", f"{CLIENT_V6}/128"],
        private_key=private_key,
        preshared_key=preshared_key,
    )


class TestInMemory:
    """Without privilege: inner packets by `send` and `receive`."""

    @pytest.mark.parametrize(("inside", "outside"), [(CLIENT_V4, OUTSIDE_V4), (CLIENT_V6, OUTSIDE_V6)])
    def test_packets_travel_both_ways(
        self, gateway: MemoryGateway, private_key: bytes, inside: str, outside: str
    ) -> None:
        """The first packet begins the handshake and is not lost by it; the answer comes back, both unchanged."""
        question, answer = udp_packet(inside, outside, b"question"), udp_packet(outside, inside, b"an answer")
        with client_of(gateway, private_key) as client:
            client.send(question)
            assert gateway.take(question)
            gateway.engine.memory_send(answer)
            assert client.receive(5) == answer

    def test_the_gateway_knows_whose_flow_it_is(self, gateway: MemoryGateway, private_key: bytes) -> None:
        """R2: the peer of the record is the client's key; its path ends at the client's outer port."""
        packet = udp_packet(CLIENT_V4, OUTSIDE_V4, b"12345")
        with client_of(gateway, private_key) as client:
            port = client.port
            client.send(packet)
            assert gateway.take(packet)
        [flow] = gateway.close()
        assert (flow.peer.name, flow.peer.public_key) == ("kit", base64.b64encode(client.public_key).decode())
        assert (flow.src_ip, flow.src_port, flow.dst_ip, flow.dst_port) == (CLIENT_V4, 1000, OUTSIDE_V4, 2000)
        assert (flow.payload_out, flow.end_reason) == (5, "shutdown")
        assert [path.remote for path in flow.paths] == [f"127.0.0.1:{port}"]

    def test_a_preshared_key_must_be_the_same(self, tmp_path: Path, private_key: bytes) -> None:
        """With it packets travel; with another one the gateway takes nothing."""
        shared = os.urandom(32)
        gateway = MemoryGateway(tmp_path, _core.public_key(private_key), shared)
        packet = udp_packet(CLIENT_V4, OUTSIDE_V4, b"secret")
        with client_of(gateway, private_key, os.urandom(32)) as stranger:
            stranger.send(packet)
            assert not gateway.take(packet, timeout=0.5)
        with client_of(gateway, private_key, shared) as client:
            client.send(packet)
            assert gateway.take(packet)
        gateway.close()

    def test_a_key_that_is_no_peers_gets_nothing(self, gateway: MemoryGateway) -> None:
        """Silence; the client's packet waits for a handshake that never ends."""
        packet = udp_packet(CLIENT_V4, OUTSIDE_V4, b"hello")
        with client_of(gateway, None) as stranger:
            stranger.send(packet)
            assert not gateway.take(packet, timeout=0.5)
            assert stranger.receive(0.1) is None

    def test_it_can_be_started_again(self, gateway: MemoryGateway, private_key: bytes) -> None:
        """With the same key, and a session of its own."""
        client = client_of(gateway, private_key)
        for number in range(2):
            packet = udp_packet(CLIENT_V4, OUTSIDE_V4, bytes([number]))
            with client:
                client.send(packet)
                assert gateway.take(packet, timeout=8)

    def test_its_counters_are_the_engines(self, gateway: MemoryGateway, private_key: bytes) -> None:
        """Ledgers included: the client has books like a gateway's, and they balance."""
        packet = udp_packet(CLIENT_V4, OUTSIDE_V4, b"counted")
        with client_of(gateway, private_key) as client:
            client.send(packet)
            assert gateway.take(packet)
            assert client.stats()["balanced"] is True


class TestLife:
    """Starting and closing."""

    def client(self, *, endpoint: str = "127.0.0.1:9", interface: str | None = None) -> Client:
        """A client of a gateway that does not exist."""
        return Client(
            gateway_key=_core.public_key(_core.generate_private_key()),
            endpoint=endpoint,
            addresses=["100.64.0.2/32"],
            interface=interface,
        )

    def test_a_client_that_does_not_run_says_so(self) -> None:
        """Before its start and after its end; closing it twice does nothing."""
        client = self.client()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="does not run"):
                client.send(b"")
            with pytest.raises(RuntimeError, match="does not run"):
                client.stats()
            with client:
                assert client.port > 0
            client.close()

    def test_it_starts_once(self) -> None:
        """A second start would lose the first engine."""
        with self.client() as client, pytest.raises(RuntimeError, match="runs already"):
            client.start()

    def test_with_a_device_packets_have_another_way(self) -> None:
        """`send` and `receive` are for clients without one."""
        client = self.client(interface="fzgw-kit0")
        with pytest.raises(RuntimeError, match="device fzgw-kit0"):
            client.send(b"")
        with pytest.raises(RuntimeError, match="device fzgw-kit0"):
            client.receive()

    def test_a_wrong_endpoint_is_refused(self) -> None:
        """By the same rules as in a configuration: an address and a port."""
        with pytest.raises(ConfigErrors, match="endpoint"):
            self.client(endpoint="vpn.example.com")

    def test_keys_do_not_stay_on_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The configuration reads them from files, which are gone when the client exists."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        self.client()
        assert list(tmp_path.iterdir()) == []


class TestOnADevice:
    """As root, in a network namespace of the test's own."""

    @pytest.fixture
    def namespace(self) -> Iterator[NetworkNamespace]:
        """An empty one with its loopback up."""
        if os.geteuid() != 0:
            pytest.skip("makes a TUN device in a network namespace as root")
        if not TUN_DEVICE.exists():
            pytest.skip(f"no {TUN_DEVICE}")
        namespace = NetworkNamespace()
        yield namespace
        namespace.close()

    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
    def test_it_is_the_namespaces_way_out(
        self, namespace: NetworkNamespace, tmp_path: Path, private_key: bytes, family: socket.AddressFamily
    ) -> None:
        """An ordinary socket's datagram goes through the device with the client's address and comes out of the tunnel;
        afterwards the device is gone."""
        inside, outside = (CLIENT_V4, OUTSIDE_V4) if family == socket.AF_INET else (CLIENT_V6, OUTSIDE_V6)
        with namespace.entered():
            gateway = MemoryGateway(tmp_path, _core.public_key(private_key))
            with Client(
                gateway_key=gateway.public_key,
                endpoint=gateway.endpoint,
                addresses=[f"{CLIENT_V4}/32", f"{CLIENT_V6}/128"],
                private_key=private_key,
                interface="wg0",
            ):
                with socket.socket(family, socket.SOCK_DGRAM) as udp:
                    udp.bind(("", 1000))
                    udp.sendto(b"hello", (outside, 2000))
                packet = gateway.engine.memory_recv(5)
            assert "wg0" not in {name for _, name in socket.if_nameindex()}
            gateway.close()
        assert packet is not None
        expected = udp_packet(inside, outside, b"hello")
        # All but the kernel's own choices: IP identifier, flags, hop limit, flow label, checksum.
        addresses = slice(12, 20) if family == socket.AF_INET else slice(8, 40)
        assert (packet[addresses], packet[-13:-7]) == (expected[addresses], expected[-13:-7])
        assert packet.endswith(b"hello")
