"""The test kit: what tests of fzgw, and of programs built on it, need to talk to a gateway.

`Client` is a small WireGuard client. It is the gateway's own engine with one peer, the gateway, whose endpoint is
configured: so it makes handshakes, keeps the session alive and roams as any client does.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Sequence
from ipaddress import ip_interface, ip_network
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fzgw import _core

if TYPE_CHECKING:
    from fzgw.config import Config

_END_PATIENCE = 5.0


class Client:
    """A WireGuard client of one gateway; a context manager that starts and stops it.

    `gateway_key` is the gateway's public key, `private_key` the client's own (None: a new one), `preshared_key` what
    both share, all raw and of 32 bytes. `endpoint` is the gateway's outer `ip:port`. `addresses` are the client's own
    in the tunnel with their prefix lengths ("100.64.0.2/32"), `mtu` is in bytes, `persistent_keepalive` in seconds.

    Without an `interface` the inner packets come and go by `send` and `receive`, and no privilege is needed. With one,
    a TUN device of that name is made in the network namespace of the thread that calls `start`, with the addresses and
    a default route for each of their families; that needs CAP_NET_ADMIN there.
    """

    def __init__(
        self,
        *,
        gateway_key: bytes,
        endpoint: str,
        addresses: Sequence[str],
        private_key: bytes | None = None,
        preshared_key: bytes | None = None,
        mtu: int = 1420,
        persistent_keepalive: int | None = None,
        interface: str | None = None,
    ) -> None:
        self.private_key = private_key or _core.generate_private_key()
        self._interface = interface
        self._addresses = tuple(map(ip_interface, addresses))
        self._config = _configuration(
            self.private_key,
            interface=interface or "fzgw-client",
            addresses=addresses,
            mtu=mtu,
            gateway_key=gateway_key,
            endpoint=endpoint,
            preshared_key=preshared_key,
            persistent_keepalive=persistent_keepalive,
        )
        self._engine: _core.Gateway | None = None

    @property
    def public_key(self) -> bytes:
        """The 32 bytes that the gateway knows this client by."""
        return _core.public_key(self.private_key)

    @property
    def port(self) -> int:
        """The outer UDP port, chosen by the kernel. `RuntimeError` while the client does not run."""
        return self._running().port

    def start(self) -> None:
        """Start it. `fzgw.StartError` when the engine cannot start, `fzgw.host.HostError` when the device cannot be
        set up; nothing is left behind then. `RuntimeError` when it runs already."""
        if self._engine is not None:
            raise RuntimeError("the client runs already")
        self._engine = _core.Gateway.start(self._config, flow_logs=False, memory=self._interface is None)
        if self._interface is None:
            return
        try:
            self._set_up_device()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop it and wait for its end; the device goes with it. Closing it again does nothing."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        engine.stop()
        while engine.recv(timeout=_END_PATIENCE) is not None:
            continue

    def send(self, packet: bytes) -> None:
        """Send an inner IP packet through the tunnel; the first one begins the handshake and waits for its end.

        `RuntimeError` while the client does not run, or when it has a device of its own.
        """
        self._in_memory().memory_send(packet)

    def receive(self, timeout: float = 1.0) -> bytes | None:
        """The next inner IP packet out of the tunnel, None when there is none within `timeout` seconds.

        `RuntimeError` while the client does not run, or when it has a device of its own.
        """
        return self._in_memory().memory_recv(timeout)

    def stats(self) -> dict[str, Any]:
        """The engine's counters, as of `fzgw.Gateway.stats`. `RuntimeError` while the client does not run."""
        return self._running().stats()

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> _core.Gateway:
        if self._engine is None:
            raise RuntimeError("the client does not run")
        return self._engine

    def _in_memory(self) -> _core.Gateway:
        if self._interface is not None:
            raise RuntimeError(f"packets of this client go through its device {self._interface}")
        return self._running()

    def _set_up_device(self) -> None:
        from fzgw.host.link import TunnelLink
        from fzgw.host.plan import HostPlan

        everywhere = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
        engine = self._running()
        plan = HostPlan(
            interface=engine.interface,
            mtu=self._config.gateway.mtu,
            addresses=self._addresses,
            routes=tuple(everywhere[version] for version in sorted({own.version for own in self._addresses})),
            nat_sources=None,
            unrouted=(),
        )
        TunnelLink(engine.interface).converge(plan)


def _configuration(
    private_key: bytes,
    *,
    interface: str,
    addresses: Sequence[str],
    mtu: int,
    gateway_key: bytes,
    endpoint: str,
    preshared_key: bytes | None,
    persistent_keepalive: int | None,
) -> Config:
    """A configuration as `fzgw.config.load` makes it: keys are read from files, which are gone again afterwards."""
    from fzgw.config import load_text

    lines = [
        "[gateway]",
        'name = "client"',
        'private_key_file = "private.key"',
        "listen = 0",
        f"interface = {json.dumps(interface)}",
        f"addresses = {json.dumps(list(addresses))}",
        f"mtu = {mtu}",
        'state_dir = "state"',
        "[nat]",
        'mode = "none"',
        "[[peers]]",
        'name = "gateway"',
        f"public_key = {json.dumps(_text(gateway_key))}",
        'allowed_ips = ["0.0.0.0/0", "::/0"]',
        f"endpoint = {json.dumps(endpoint)}",
    ]
    with tempfile.TemporaryDirectory(prefix="fzgw-client-") as directory:
        # mkdtemp made the directory for its owner alone, which covers the keys in it.
        Path(directory, "private.key").write_text(_text(private_key))
        if preshared_key is not None:
            Path(directory, "preshared.key").write_text(_text(preshared_key))
            lines.append('preshared_key_file = "preshared.key"')
        if persistent_keepalive is not None:
            lines.append(f"persistent_keepalive = {persistent_keepalive}")
        return load_text("\n".join(lines), Path(directory, "client.toml"))


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")
