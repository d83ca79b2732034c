"""A small laboratory for the tests of fzgw.host: network namespaces, TUN devices, single packets.

The namespaces have names of their own for each run and go with the test that made them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

PATIENCE: Final = 10.0
"""Seconds until something that must come has failed to come."""

_CLONE_NEWNET: Final = 0x4000_0000
_TUNSETIFF: Final = 0x4004_54CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "needs root (network namespaces)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "needs /dev/net/tun"
    tools = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    return f"needs {' and '.join(tools)} (Debian: apt install iproute2 nftables)" if tools else None


needs_root = pytest.mark.skipif(_missing() is not None, reason=_missing() or "")
"""For tests in network namespaces."""


class Namespace:
    """A network namespace, up to `close`."""

    def __init__(self) -> None:
        self.name = f"fzgwt-{os.getpid()}-{secrets.token_hex(3)}"
        _run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> str:
        """What `ip` says in here."""
        return _run("ip", "-n", self.name, *arguments)

    def nft(self, script: str) -> None:
        """Loads an nftables script in here."""
        with self.inside():
            _run("nft", "-f", "-", script=script)

    def tables(self) -> list[str]:
        """The nftables tables in here, as "family name"."""
        with self.inside():
            return [line.removeprefix("table ") for line in _run("nft", "list", "tables").splitlines()]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and the processes it starts, in the namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
            yield
        finally:
            _setns(home)
            os.close(home)
            os.close(there)

    def switch(self, name: str) -> str:
        """The value of /proc/sys/net/`name` in here."""
        with self.inside():
            return (Path("/proc/sys/net") / name).read_text().strip()

    def set_switch(self, name: str, value: int) -> None:
        """Sets /proc/sys/net/`name` in here."""
        with self.inside():
            (Path("/proc/sys/net") / name).write_text(str(value))

    def udp(self, address: str, port: int) -> socket.socket:
        """A UDP socket that lives in here."""
        with self.inside():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            found = socket.socket(family, socket.SOCK_DGRAM)
            found.settimeout(PATIENCE)
            found.bind((address, port))
            return found

    def python(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """A Python process in here that imports what this one can; its output is a pipe."""
        with self.inside():
            return subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                stdout=subprocess.PIPE,
                text=True,
            )

    def close(self) -> None:
        """Removes the namespace with all that is in it."""
        _run("ip", "netns", "del", self.name)


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    """So many namespaces, removed at the end."""
    made: list[Namespace] = []
    try:
        for _ in range(count):
            made.append(Namespace())
        yield made
    finally:
        for namespace in made:
            namespace.close()


def wire(one: Namespace, name: str, other: Namespace, far_name: str) -> None:
    """A cable between two namespaces: both ends up, without duplicate address detection to wait for."""
    one.ip("link", "add", name, "type", "veth", "peer", "name", far_name, "netns", other.name)
    for namespace, interface in ((one, name), (other, far_name)):
        namespace.set_switch(f"ipv6/conf/{interface}/accept_dad", 0)
        namespace.ip("link", "set", interface, "up")


class Tun:
    """A TUN device in the calling thread's namespace, held open as the engine holds it."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(self._descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))

    def write(self, packet: bytes) -> None:
        """A packet comes out of the tunnel."""
        os.write(self._descriptor, packet)

    def read(self, wanted: Callable[[bytes], bool] = lambda _: True, patience: float = PATIENCE) -> bytes | None:
        """The next wanted packet that goes into the tunnel, or None."""
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._descriptor], [], [], left)[0]:
                packet = os.read(self._descriptor, 65535)
                if wanted(packet):
                    return packet
        return None

    def close(self) -> None:
        """The device goes."""
        os.close(self._descriptor)


def udp_packet(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """A UDP packet with its IP header, either family."""
    near, far = ip_address(source), ip_address(destination)
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", *ports, length, 0) + payload
    pseudo = near.packed + far.packed + struct.pack("!HH", 17, length)
    udp = udp[:6] + struct.pack("!H", _checksum(pseudo + udp) or 0xFFFF) + udp[8:]
    if near.version == 6:
        return struct.pack("!IHBB", 0x6000_0000, length, 17, 64) + near.packed + far.packed + udp
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, 17, 0) + near.packed + far.packed
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + udp


def endpoints(packet: bytes) -> tuple[str, str]:
    """Source and destination address of an IP packet."""
    if packet[0] >> 4 == 6:
        return str(ip_address(packet[8:24])), str(ip_address(packet[24:40]))
    return str(ip_address(packet[12:16])), str(ip_address(packet[16:20]))


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _run(*command: str, script: str = "") -> str:
    result = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result.stdout


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
