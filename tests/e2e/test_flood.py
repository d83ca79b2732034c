"""Handshakes by the thousand from somebody who knows the gateway's public key and nothing else."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import threading
import time

from .conftest import Gateways
from .netlab import Laboratory, Namespace, wait_until
from .test_silence import COOKIE_REPLY, INITIATION, Wire
from .traffic import Server, Trickle, ping, server_address
from .wg import Client

RATE = 1000
"""Initiations per second: five times what the handshake gate lets through."""


class Flood:
    """Initiations with a true MAC1 and nothing else that is true, until it is stopped."""

    def __init__(self, namespace: Namespace, source: str, target: tuple[str, int], gateway_key: str) -> None:
        self._key = hashlib.blake2s(b"mac1----" + base64.b64decode(gateway_key)).digest()
        self._socket = namespace.udp(source)
        self._target = target
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            for _ in range(RATE // 100):
                self._socket.sendto(self._initiation(), self._target)
                self.sent += 1
            due += 0.01
            time.sleep(max(0, due - time.monotonic()))

    def _initiation(self) -> bytes:
        message = struct.pack("<I", INITIATION) + os.urandom(112)
        return message + hashlib.blake2s(message, key=self._key, digest_size=16).digest() + bytes(16)


def test_a_flood_of_handshakes(
    laboratory: Laboratory, gateways: Gateways, server: Server, clients: tuple[Client, Client]
) -> None:
    """Above the handshake gate's rate strangers get cookies and nothing else.

    An established peer does not notice, and a peer that comes meanwhile gets in, by its cookie if it has to.
    """
    gateway = gateways.start(join=False)
    established, newcomer = clients[1], clients[0]
    established.join(gateway.public_key, gateway.port, family=6)
    trickle = Trickle(established.namespace, established.site.v4, server_address(4), every=0.02)
    trickle.start()
    source = newcomer.site.underlay(9)
    laboratory.add_address(newcomer.namespace, newcomer.site.device, f"{source}/24")
    wire = Wire(laboratory, newcomer.site.number)
    try:
        wait_until(lambda: trickle.returned, "the established peer is served")
        target = (newcomer.site.underlay(1), gateway.port)
        with Flood(newcomer.namespace, source, target, gateway.public_key) as flood:
            wait_until(lambda: flood.sent > RATE, "the flood is there", timeout=5)
            newcomer.join(gateway.public_key, gateway.port)
            ping(newcomer.namespace, server_address(4), count=1)
            # A client tries again 5 s after an initiation that was met by a cookie.
            wait_until(newcomer.has_session, "the newcomer gets in while the flood goes on", timeout=15)
    finally:
        trickle.stop()

    assert len(trickle.returned) == trickle.sent
    assert trickle.longest_gap() < 0.5
    to_strangers = wire.from_gateway(to=source)
    assert to_strangers
    assert {said[0] for said in to_strangers} == {COOKIE_REPLY}
    gateway.stop()
