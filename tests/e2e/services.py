"""What runs on the server outside: HTTP both ways, TCP and UDP echo, on IPv4 and IPv6.

Run inside the server's namespace: `python services.py`. HTTP GET /<bytes> answers with that many bytes of `pattern`;
PUT answers with the SHA-256 of what it was sent.
"""

from __future__ import annotations

import hashlib
import random
import selectors
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HTTP_PORT = 8080
ECHO_PORT = 7007
"""TCP and UDP: everything comes back."""
SINK_PORT = 7009
"""UDP: taken, never answered."""
BLOCK = 1 << 20


def pattern(size: int) -> Iterator[bytes]:
    """`size` bytes in blocks, incompressible and the same in every process."""
    block = random.Random(51820).randbytes(BLOCK)
    for offset in range(0, size, BLOCK):
        yield block[: size - offset]


def pattern_digest(size: int) -> str:
    """SHA-256 of `pattern(size)`, hex."""
    digest = hashlib.sha256()
    for block in pattern(size):
        digest.update(block)
    return digest.hexdigest()


class Handler(BaseHTTPRequestHandler):
    """GET gives bytes, PUT takes them."""

    def do_GET(self) -> None:
        """/<bytes>."""
        size = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        for block in pattern(size):
            self.wfile.write(block)

    def do_PUT(self) -> None:
        """Answers with the digest of the body."""
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            block = self.rfile.read(min(left, BLOCK))
            if not block:
                return
            digest.update(block)
            left -= len(block)
        answer = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class DualStackHTTPServer(ThreadingHTTPServer):
    """IPv4 and IPv6 on one socket."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128


def echo() -> None:
    """TCP and UDP echo, and the silent UDP sink, in one loop."""
    waiting = selectors.DefaultSelector()
    listener = socket.create_server(("::", ECHO_PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
    waiting.register(listener, selectors.EVENT_READ, "accept")
    for port, answer in ((ECHO_PORT, "answer"), (SINK_PORT, "ignore")):
        # One socket a family: answers leave from the address that was asked.
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            udp = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            udp.bind((address, port))
            waiting.register(udp, selectors.EVENT_READ, answer)
    while True:
        for key, _ in waiting.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            if key.data == "accept":
                waiting.register(ready.accept()[0], selectors.EVENT_READ, "stream")
            elif key.data == "stream":
                _echo_stream(waiting, ready)
            else:
                said, sender = ready.recvfrom(65536)
                if key.data == "answer":
                    ready.sendto(said, sender)


def _echo_stream(waiting: selectors.BaseSelector, stream: socket.socket) -> None:
    try:
        said = stream.recv(65536)
        if said:
            stream.sendall(said)
            return
    except OSError as error:
        print(f"echo: {error}", flush=True)
    waiting.unregister(stream)
    stream.close()


if __name__ == "__main__":
    threading.Thread(target=echo, daemon=True).start()
    print("ready", flush=True)
    DualStackHTTPServer(("::", HTTP_PORT), Handler).serve_forever()
