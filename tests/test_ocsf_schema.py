"""Every line that the extension renders is OCSF: real flows of a running gateway against the published schemas."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from fzgw._core import Batch, Flow, Gateway, generate_private_key, public_key
from fzgw.config import load_text
from fzgw.remarks import Remarks
from ocsf import schema_folder, validate

pytestmark = pytest.mark.skipif(
    schema_folder() is None, reason="no OCSF schemas: FZGW_SHARED is not set and there is no ../shared"
)

TCP, UDP, ICMP = 6, 17, 1
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

LAPTOP, WIKI = "100.64.0.2", "10.1.2.3"
LAPTOP6, OUTSIDE6 = "fd00:64::2", "2001:db8::53"

# More than the 256 keys of one peer that R23 keeps apart, and more than the 512 that it joins by address.
DENIED_HOSTS = 600

ANNOTATIONS = (("ticket", 'NET-7 "new"'), ("score", 0.5), ("tries", -3), ("known", True))
HANDLER_ERROR = 'ValueError: "no"\n\tin C:\\handlers.py \x01 ü'


@dataclass
class Tunnel:
    """A gateway and a client of it, both with the in-memory device."""

    gateway: Gateway
    client: Gateway

    def up(self, packet: bytes) -> None:
        """From the client through the gateway, and arrived there."""
        self.client.memory_send(packet)
        assert self._received(self.gateway, packet[-4:]), "nothing came out of the gateway"

    def down(self, packet: bytes) -> None:
        """From the outside through the gateway to the client, and arrived there."""
        self.gateway.memory_send(packet)
        assert self._received(self.client, packet[-4:]), "nothing reached the client"

    @staticmethod
    def _received(device: Gateway, end: bytes) -> bool:
        while (packet := device.memory_recv(5.0)) is not None:
            if packet.endswith(end):
                return True
        return False


@pytest.fixture
def tunnel(tmp_path: Path) -> Iterator[Tunnel]:
    """One gateway with rules, and one peer of it."""
    gateway_key, client_key = generate_private_key(), generate_private_key()
    gateway = _start(
        tmp_path / "gateway",
        gateway_key,
        f"""
        addresses = ["100.64.0.1/16", "fd00:64::1/64"]
        [flow_logs]
        open_after = "0s"
        update_every = "50ms"
        [[peers]]
        name = "laptop-7"
        user = "someone@example.com"
        groups = ["engineering"]
        public_key = "{_text(public_key(client_key))}"
        allowed_ips = ["{LAPTOP}/32", "{LAPTOP6}/128"]
        [[resources]]
        name = "wiki"
        addresses = ["10.1.2.0/24"]
        ports = ["tcp/443", "icmp"]
        domain = "wiki.example.com"
        [[resources]]
        name = "laptop"
        addresses = ["{LAPTOP6}/128"]
        ports = ["udp/9000"]
        [[rules]]
        name = "engineering-wiki"
        groups = ["engineering"]
        resources = ["wiki"]
        [[rules]]
        name = "to-the-laptop"
        direction = "inbound"
        resources = ["laptop"]
        """,
        flow_logs=True,
    )
    client = _start(
        tmp_path / "client",
        client_key,
        f"""
        addresses = ["{LAPTOP}/32", "{LAPTOP6}/128"]
        [[peers]]
        name = "gateway"
        public_key = "{_text(public_key(gateway_key))}"
        allowed_ips = ["0.0.0.0/0", "::/0"]
        endpoint = "127.0.0.1:{gateway.port}"
        """,
        flow_logs=False,
    )
    yield Tunnel(gateway, client)
    client.stop()
    gateway.stop()


def test_every_rendered_line_is_valid(tunnel: Tunnel) -> None:
    """L4, R18, R19: Open, update and close records of closed, reset, refused, failed, denied and inbound flows over
    IPv4 and IPv6, some with a handler's error or ICMP errors, are valid OCSF lines, one for each record, whose sequence
    has no hole."""
    records: list[dict[str, Any]] = []
    count = 0
    for batch in _batches(tunnel):
        remarks = {0: Remarks(HANDLER_ERROR, ANNOTATIONS)} if len(batch) else None
        rendered, lines_count = batch.render("ocsf", 1 + count, remarks)
        lines = rendered.splitlines(keepends=True)
        assert len(lines) == lines_count == len(batch)
        found = [validate(line) for line in lines]
        if found:
            assert found[0]["unmapped"]["handler_error"] == HANDLER_ERROR
            assert found[0]["unmapped"]["annotations"] == dict(ANNOTATIONS)
        count += len(batch)
        records += found

    assert [record["metadata"]["sequence"] for record in records] == list(range(1, count + 1))
    assert len({record["metadata"]["uid"] for record in records}) == count
    flows = [record for record in records if record["class_uid"] == 4001]
    assert {flow["activity_name"] for flow in flows} == {"Open", "Traffic", "Close", "Reset", "Refuse", "Fail"}
    assert {flow["connection_info"].get("protocol_name") for flow in flows} >= {"tcp", "udp", "icmp"}
    assert {flow["connection_info"].get("protocol_ver_id") for flow in flows} >= {4, 6}


def test_lines_say_what_happened(tunnel: Tunnel) -> None:
    """R10, R13, R19, R20, R23: A line's counts, ends, names, TCP facts, ICMP errors and denied attempts are those of
    the traffic that was sent, and the deltas of a flow add up."""
    records: list[dict[str, Any]] = []
    for batch in _batches(tunnel):
        records += [validate(line) for line in batch.render("ocsf", 1 + len(records))[0].splitlines()]
    closed = [record for record in records if record["unmapped"].get("activity") == "close"]

    [fin] = [record for record in closed if record["status_code"] == "fin"]
    assert fin["src_endpoint"]["ip"] == LAPTOP
    assert fin["src_endpoint"]["name"] == "laptop-7"
    assert fin["src_endpoint"]["owner"] == {"name": "someone@example.com", "groups": [{"name": "engineering"}]}
    assert fin["dst_endpoint"] == {"ip": WIKI, "port": 443, "domain": "wiki.example.com"}
    assert fin["firewall_rule"] == {"name": "engineering-wiki"}
    assert fin["cumulative_traffic"]["packets_out"] == 4
    assert fin["cumulative_traffic"]["packets_in"] == 2
    assert fin["cumulative_traffic"]["bytes_out"] == 4 * 40 + 4
    assert fin["unmapped"]["payload_out"] == 4
    assert fin["status_detail"] == "SF"
    assert fin["connection_info"]["flag_history"] == "ShAFf"
    assert fin["unmapped"]["retransmits_out"] == fin["unmapped"]["retransmits_in"] == 0
    assert 0 <= fin["unmapped"]["syn_to_syn_ack_ns"] <= fin["unmapped"]["end_ns"] - fin["unmapped"]["start_ns"]

    [failed] = [record for record in closed if record["activity_name"] == "Fail"]
    assert failed["status_detail"] == "S0"
    assert failed["unmapped"]["icmp_errors"] == [{"type": 3, "code": 1, "packets": 1, "bytes": 56}]
    assert failed["cumulative_traffic"]["packets_in"] == 0

    [inbound] = [record for record in closed if record["connection_info"]["direction"] == "Inbound"]
    assert inbound["src_endpoint"] == {"ip": OUTSIDE6, "port": 53}
    assert inbound["dst_endpoint"]["name"] == "laptop-7"

    denied = [record for record in closed if record["action"] == "Denied"]
    assert len(denied) == 513, "256 keys with a port, 256 without, and one of the rule alone"
    assert sum(record["unmapped"]["attempts"] for record in denied) == DENIED_HOSTS
    assert sum("port" in record.get("dst_endpoint", {}) for record in denied) == 256
    assert sum("dst_endpoint" not in record for record in denied) == 1

    last = {record["connection_info"]["uid"]: record for record in closed}
    deltas: dict[str, list[int]] = {uid: [0, 0] for uid in last}
    numbers: dict[str, list[int]] = {uid: [] for uid in last}
    for record in records:
        if record["class_uid"] == 4001:
            uid, unmapped = record["connection_info"]["uid"], record["unmapped"]
            numbers[uid].append(unmapped["number"])
            deltas[uid][0] += record["traffic"]["bytes"]
            deltas[uid][1] += unmapped.get("attempted_bytes_delta", 0)
    for uid, record in last.items():
        assert numbers[uid] == list(range(1, len(numbers[uid]) + 1))
        assert deltas[uid] == [record["cumulative_traffic"]["bytes"], record["unmapped"].get("attempted_bytes", 0)]


def _batches(tunnel: Tunnel) -> Iterator[Batch]:
    """All that the gateway tells of a little of everything, its end included; and of an echo flow that goes on until an
    update of it is told."""
    _traffic(tunnel)
    told = False
    for sequence in range(3, 10_000):
        tunnel.up(_echo(sequence, struct.pack("!I", sequence)))
        batch = tunnel.gateway.recv(1000, 0.01)
        assert batch is not None, "the gateway has ended"
        yield batch
        told = told or any(isinstance(record, Flow) and record.activity == "update" for record in batch)
        if told:
            break
    assert told, "no update"
    tunnel.gateway.stop()
    while (batch := tunnel.gateway.recv(100, 5.0)) is not None:
        yield batch


def _traffic(tunnel: Tunnel) -> None:
    """A little of everything."""
    # Closed by FIN.
    tunnel.up(_tcp(LAPTOP, 40001, WIKI, 443, SYN))
    tunnel.down(_tcp(WIKI, 443, LAPTOP, 40001, SYN | ACK))
    tunnel.up(_tcp(LAPTOP, 40001, WIKI, 443, ACK))
    tunnel.up(_tcp(LAPTOP, 40001, WIKI, 443, ACK | FIN, b"data", sequence=2))
    tunnel.down(_tcp(WIKI, 443, LAPTOP, 40001, ACK | FIN, sequence=2))
    tunnel.up(_tcp(LAPTOP, 40001, WIKI, 443, ACK, sequence=7))
    # Reset when it was open, then one that is refused, then one without an answer.
    tunnel.up(_tcp(LAPTOP, 40002, WIKI, 443, SYN))
    tunnel.down(_tcp(WIKI, 443, LAPTOP, 40002, SYN | ACK))
    tunnel.up(_tcp(LAPTOP, 40002, WIKI, 443, RST | ACK))
    tunnel.up(_tcp(LAPTOP, 40003, WIKI, 443, SYN))
    tunnel.down(_tcp(WIKI, 443, LAPTOP, 40003, RST | ACK))
    tunnel.up(_tcp(LAPTOP, 40004, WIKI, 443, SYN))
    # A router has no way to the host.
    quoted = _tcp(LAPTOP, 40004, WIKI, 443, SYN)[:28]
    tunnel.down(_ip("192.0.2.1", LAPTOP, ICMP, _summed(struct.pack("!BBHI", 3, 1, 0, 0) + quoted)))
    # Inbound over IPv6, and an echo.
    tunnel.down(_ip(OUTSIDE6, LAPTOP6, UDP, struct.pack("!HHHH", 53, 9000, 13, 0xFFFF) + b"hello"))
    tunnel.up(_ip(LAPTOP6, OUTSIDE6, UDP, struct.pack("!HHHH", 9000, 53, 14, 0xFFFF) + b"answer"))
    tunnel.up(_echo(1, b"ping"))
    # Denied, in many keys.
    for host in range(DENIED_HOSTS):
        tunnel.client.memory_send(_tcp(LAPTOP, 50000, f"192.0.{2 + host // 250}.{host % 250}", 22, SYN))
    # What is behind them in the queue has to come out last.
    tunnel.up(_echo(2, b"last"))


def _start(folder: Path, private_key: bytes, tables: str, *, flow_logs: bool) -> Gateway:
    """A gateway on any free port of the loopback's, with the in-memory device."""
    folder.mkdir()
    key_file = folder / "gateway.key"
    key_file.touch(mode=0o600)
    key_file.write_text(_text(private_key))
    text = f"""
        [gateway]
        name = "{folder.name}"
        private_key_file = "gateway.key"
        listen = 0
        state_dir = "{folder}"
        {tables}
    """
    return Gateway.start(load_text(text, folder / "gateway.toml"), flow_logs=flow_logs, memory=True)


def _echo(sequence: int, data: bytes) -> bytes:
    return _ip(LAPTOP, WIKI, ICMP, _summed(struct.pack("!BBHHH", 8, 0, 0, 777, sequence) + data))


def _tcp(
    source: str, source_port: int, destination: str, port: int, flags: int, data: bytes = b"", *, sequence: int = 1
) -> bytes:
    header = struct.pack("!HHIIBBHHH", source_port, port, sequence, 1, 5 << 4, flags, 65535, 0, 0)
    return _ip(source, destination, TCP, header + data)


def _ip(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An IP packet of either version. TCP's and UDP's checksums are the endpoints' business."""
    ends = ip_address(source).packed + ip_address(destination).packed
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + ends + payload
    start = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + ends
    return start[:10] + struct.pack("!H", _checksum(start)) + start[12:] + payload


def _summed(icmp: bytes) -> bytes:
    return icmp[:2] + struct.pack("!H", _checksum(icmp)) + icmp[4:]


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")
