"""The traffic that the two clients make, and what each piece must leave in the records.

Every step sends through ordinary sockets of its client's namespace, waits for the answer, and returns the flow that it
expects: the demo knows from its own sockets what the gateway must have seen.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fzgw.demo import plan
from fzgw.demo.errors import DemoError
from fzgw.demo.laboratory import Laboratory
from fzgw.demo.server import DOWNLOAD_BYTES, Services, dns_address, dns_question

UPLOAD_BYTES: Final = 2 * 2**20
ROAMING_BYTES: Final = 40 * 16 * 1024
_ROAMING_CHUNK: Final = bytes(16 * 1024)
_ROAMING_PAUSE: Final = 0.01
EXCHANGED_DATAGRAMS: Final = 25
_DATAGRAM_BYTES: Final = 160
ECHO_REQUESTS: Final = 3
_ECHO_PAYLOAD: Final = bytes(56)
_ECHO_REQUEST, _ECHO_REPLY = 8, 0

# Long enough for several retransmissions; a step that takes longer has failed.
_PATIENCE: Final = 10.0


@dataclass(frozen=True)
class ExpectedFlow:
    """What one step must leave behind: one flow of `client` to the server, with at least these payloads in bytes.

    ICMP echo has its identifier as `src_port` and 0 as `dst_port` (R1); a denied flow has no `src_port` (R23).
    """

    title: str
    client: plan.ClientPlan
    protocol: int
    src_port: int
    dst_port: int
    payload_out: int = 0
    payload_in: int = 0
    verdict: str = "allow"
    roamed: bool = False

    @property
    def outer_addresses(self) -> tuple[str, ...]:
        """Where the client was while the flow lasted, in order."""
        if self.roamed:
            assert self.client.roams_to is not None
            return (self.client.underlay, self.client.roams_to)
        return (self.client.underlay,)


@dataclass(frozen=True)
class Step:
    """One piece of traffic: `run()` makes it and returns the flow that it expects."""

    title: str
    run: Callable[[], ExpectedFlow]


class Traffic:
    """All steps of the demo, in the order in which they run."""

    def __init__(self, laboratory: Laboratory, services: Services) -> None:
        self._laboratory = laboratory
        self._services = services
        self.steps = (
            Step("laptop asks the resolver for " + plan.SERVER_DOMAIN, self._dns),
            Step("laptop pings the server", self._ping),
            Step(f"laptop uploads {UPLOAD_BYTES // 2**20} MiB", self._upload),
            Step(f"laptop downloads {DOWNLOAD_BYTES // 2**20} MiB", self._download),
            Step("phone exchanges datagrams", self._exchange),
            Step(f"phone tries TCP port {plan.DENIED_PORT}, which no rule allows", self._denied),
            Step(f"phone uploads and roams from {plan.PHONE.underlay} to {plan.PHONE.roams_to}", self._roaming),
        )

    def _dns(self) -> ExpectedFlow:
        identifier = int.from_bytes(os.urandom(2), "big")
        question = dns_question(identifier, plan.SERVER_DOMAIN)
        with self._socket(plan.LAPTOP, socket.SOCK_DGRAM) as udp:
            udp.connect((plan.SERVER, plan.DNS_PORT))
            udp.send(question)
            answer = udp.recv(512)
            port = udp.getsockname()[1]
        address = dns_address(answer, identifier)
        if address != plan.SERVER:
            raise DemoError(f"the resolver answered {address} instead of {plan.SERVER}")
        return ExpectedFlow(
            "DNS question", plan.LAPTOP, socket.IPPROTO_UDP, port, plan.DNS_PORT, len(question), len(answer)
        )

    def _ping(self) -> ExpectedFlow:
        identifier = int.from_bytes(os.urandom(2), "big")
        # A raw socket: the namespace is ours, while "ping sockets" are off in new namespaces.
        with self._socket(plan.LAPTOP, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
            for sequence in range(ECHO_REQUESTS):
                icmp.sendto(echo_request(identifier, sequence), (plan.SERVER, 0))
                _await_echo_reply(icmp, identifier, sequence)
        return ExpectedFlow("ICMP echo", plan.LAPTOP, socket.IPPROTO_ICMP, identifier, 0)

    def _upload(self) -> ExpectedFlow:
        with self._connected(plan.LAPTOP, plan.UPLOAD_PORT) as tcp:
            port = tcp.getsockname()[1]
            tcp.sendall(bytes(UPLOAD_BYTES))
            _finish_upload(tcp, UPLOAD_BYTES)
        return ExpectedFlow("TCP upload", plan.LAPTOP, socket.IPPROTO_TCP, port, plan.UPLOAD_PORT, UPLOAD_BYTES)

    def _download(self) -> ExpectedFlow:
        with self._connected(plan.LAPTOP, plan.DOWNLOAD_PORT) as tcp:
            port = tcp.getsockname()[1]
            tcp.sendall(b"GET\n")
            total = 0
            while chunk := tcp.recv(256 * 1024):
                total += len(chunk)
        if total != DOWNLOAD_BYTES:
            raise DemoError(f"the download brought {total} bytes of {DOWNLOAD_BYTES}")
        return ExpectedFlow(
            "TCP download", plan.LAPTOP, socket.IPPROTO_TCP, port, plan.DOWNLOAD_PORT, payload_in=DOWNLOAD_BYTES
        )

    def _exchange(self) -> ExpectedFlow:
        with self._socket(plan.PHONE, socket.SOCK_DGRAM) as udp:
            udp.connect((plan.SERVER, plan.ECHO_PORT))
            port = udp.getsockname()[1]
            for number in range(EXCHANGED_DATAGRAMS):
                datagram = number.to_bytes(2, "big").ljust(_DATAGRAM_BYTES, b"\0")
                udp.send(datagram)
                if udp.recv(2048) != datagram:
                    raise DemoError(f"datagram {number} came back changed")
        payload = EXCHANGED_DATAGRAMS * _DATAGRAM_BYTES
        return ExpectedFlow("UDP exchange", plan.PHONE, socket.IPPROTO_UDP, port, plan.ECHO_PORT, payload, payload)

    def _denied(self) -> ExpectedFlow:
        try:
            with self._connected(plan.PHONE, plan.DENIED_PORT):
                raise DemoError(f"port {plan.DENIED_PORT} answered, though no rule allows it")
        except TimeoutError as error:
            raise DemoError(f"the gateway did not say that port {plan.DENIED_PORT} is prohibited") from error
        except OSError as error:
            # How ICMP "administratively prohibited" reaches connect().
            if error.errno != errno.EHOSTUNREACH:
                raise
        if self._services.denied_connections:
            raise DemoError(f"a denied connection reached the server's port {plan.DENIED_PORT}")
        return ExpectedFlow("denied attempt", plan.PHONE, socket.IPPROTO_TCP, 0, plan.DENIED_PORT, verdict="deny")

    def _roaming(self) -> ExpectedFlow:
        with self._connected(plan.PHONE, plan.UPLOAD_PORT) as tcp:
            port = tcp.getsockname()[1]
            chunks = ROAMING_BYTES // len(_ROAMING_CHUNK)
            for number in range(chunks):
                if number == chunks // 2:
                    self._laboratory.roam(plan.PHONE)
                tcp.sendall(_ROAMING_CHUNK)
                # Pacing, so that the change of address meets a flow under way.
                time.sleep(_ROAMING_PAUSE)
            _finish_upload(tcp, ROAMING_BYTES)
        return ExpectedFlow(
            "roaming upload", plan.PHONE, socket.IPPROTO_TCP, port, plan.UPLOAD_PORT, ROAMING_BYTES, roamed=True
        )

    def _connected(self, client: plan.ClientPlan, port: int) -> socket.socket:
        tcp = self._socket(client, socket.SOCK_STREAM)
        try:
            tcp.connect((plan.SERVER, port))
        except BaseException:
            tcp.close()
            raise
        return tcp

    def _socket(self, client: plan.ClientPlan, kind: int, protocol: int = 0) -> socket.socket:
        with self._laboratory.clients[client.name].entered():
            made = socket.socket(socket.AF_INET, kind, protocol)
        made.settimeout(_PATIENCE)
        return made


def echo_request(identifier: int, sequence: int) -> bytes:
    """An ICMP echo request with its checksum (RFC 792), 64 bytes."""
    without = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identifier, sequence) + _ECHO_PAYLOAD
    return without[:2] + struct.pack("!H", _internet_checksum(without)) + without[4:]


def _internet_checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _await_echo_reply(icmp: socket.socket, identifier: int, sequence: int) -> None:
    # A raw socket sees every ICMP packet of its namespace.
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        packet = icmp.recv(2048)
        header_length = (packet[0] & 0x0F) * 4
        kind, _, _, got_identifier, got_sequence = struct.unpack_from("!BBHHH", packet, header_length)
        if (kind, got_identifier, got_sequence) == (_ECHO_REPLY, identifier, sequence):
            return
    raise TimeoutError("timed out")


def _finish_upload(tcp: socket.socket, sent: int) -> None:
    tcp.shutdown(socket.SHUT_WR)
    answer = b""
    while chunk := tcp.recv(64):
        answer += chunk
    [received] = struct.unpack("!Q", answer) if len(answer) == 8 else [0]
    if received != sent:
        raise DemoError(f"of {sent} uploaded bytes {received} arrived")
