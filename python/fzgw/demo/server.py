"""What answers in the server's namespace: a file store, a resolver, an echo, and a port that nobody may reach."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from typing import Any, Final

from fzgw.demo import plan
from fzgw.demo.namespaces import NetworkNamespace

DOWNLOAD_BYTES: Final = 4 * 2**20
_CHUNK: Final = bytes(64 * 1024)

# RFC 1035, 4.1.1: an answer, recursion desired and available.
_DNS_ANSWER_FLAGS: Final = 0x8180
_DNS_HEADER: Final = struct.Struct("!6H")
_DNS_A: Final = 1
_DNS_IN: Final = 1
_DNS_POINTER_TO_QUESTION: Final = 0xC00C
_DNS_TTL: Final = 60


class Services:
    """The server's sockets and their threads; a context manager that closes them."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self.denied_connections = 0
        services = self

        class Forbidden(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                services.denied_connections += 1

        # Sockets belong to the namespace in which they are made, whichever thread serves them afterwards.
        with namespace.entered():
            self._servers: list[socketserver.BaseServer] = [
                _Tcp((plan.SERVER, plan.UPLOAD_PORT), _Upload),
                _Tcp((plan.SERVER, plan.DOWNLOAD_PORT), _Download),
                _Tcp((plan.SERVER, plan.DENIED_PORT), Forbidden),
                socketserver.UDPServer((plan.SERVER, plan.DNS_PORT), _Dns),
                socketserver.UDPServer((plan.SERVER, plan.ECHO_PORT), _Echo),
            ]
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *exception: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away mid-transfer, as on Ctrl-C, is no error of the server's."""


class _Upload(socketserver.BaseRequestHandler):
    """Takes everything until the client's end, then says how many bytes came."""

    request: socket.socket

    def handle(self) -> None:
        total = 0
        while chunk := self.request.recv(len(_CHUNK)):
            total += len(chunk)
        self.request.sendall(struct.pack("!Q", total))


class _Download(socketserver.BaseRequestHandler):
    """Sends `DOWNLOAD_BYTES` after the client's first bytes."""

    request: socket.socket

    def handle(self) -> None:
        if not self.request.recv(64):
            return
        for _ in range(DOWNLOAD_BYTES // len(_CHUNK)):
            self.request.sendall(_CHUNK)


class _Echo(socketserver.BaseRequestHandler):
    request: tuple[bytes, socket.socket]

    def handle(self) -> None:
        datagram, reply_socket = self.request
        reply_socket.sendto(datagram, self.client_address)


class _Dns(socketserver.BaseRequestHandler):
    """Answers every question with the server's own address."""

    request: tuple[bytes, socket.socket]

    def handle(self) -> None:
        question, reply_socket = self.request
        reply_socket.sendto(dns_answer(question, plan.SERVER), self.client_address)


def dns_question(identifier: int, name: str) -> bytes:
    """A question for the IPv4 addresses of `name` (RFC 1035)."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split("."))
    return _DNS_HEADER.pack(identifier, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", _DNS_A, _DNS_IN)


def dns_answer(question: bytes, address: str) -> bytes:
    """The answer to `question` that gives one IPv4 `address`."""
    identifier, *_ = _DNS_HEADER.unpack_from(question)
    record = struct.pack("!3HIH", _DNS_POINTER_TO_QUESTION, _DNS_A, _DNS_IN, _DNS_TTL, 4) + socket.inet_aton(address)
    return _DNS_HEADER.pack(identifier, _DNS_ANSWER_FLAGS, 1, 1, 0, 0) + question[_DNS_HEADER.size :] + record


def dns_address(answer: bytes, identifier: int) -> str:
    """The address in an answer of `dns_answer`; `ValueError` when it answers another question."""
    got, flags, _, answers, _, _ = _DNS_HEADER.unpack_from(answer)
    if (got, flags, answers) != (identifier, _DNS_ANSWER_FLAGS, 1):
        raise ValueError(f"not the answer to question {identifier}: {answer.hex()}")
    return socket.inet_ntoa(answer[-4:])
