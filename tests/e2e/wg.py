"""WireGuard clients that are not ours: wireguard-go, configured by `wg set` as its users do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .netlab import ClientSite, Laboratory, Namespace, join, run, wait_until

ROOT = Path(__file__).resolve().parents[2]
MTU = 1420
HOW_TO_INSTALL = "GOBIN=$PWD/build/bin go install golang.zx2c4.com/wireguard@latest"


def find_wireguard_go() -> str | None:
    """wireguard-go: $FZGW_WIREGUARD_GO, else build/bin of the checkout, else the PATH."""
    named = os.environ.get("FZGW_WIREGUARD_GO")
    if named:
        return shutil.which(named)
    built = ROOT / "build/bin/wireguard"
    return str(built) if built.exists() else shutil.which("wireguard-go") or shutil.which("wireguard")


def generate_private_key() -> str:
    """A new private key, base64."""
    return run("wg", "genkey").strip()


def public_key(private_key: str) -> str:
    """The public key of a private key, both base64."""
    return run("wg", "pubkey", input=private_key).strip()


def generate_preshared_key() -> str:
    """A new preshared key, base64."""
    return run("wg", "genpsk").strip()


class WireGuardGo:
    """One wireguard-go process with its device inside a namespace."""

    def __init__(self, laboratory: Laboratory, namespace: Namespace, interface: str) -> None:
        program = find_wireguard_go()
        assert program is not None, f"no wireguard-go: {HOW_TO_INSTALL}"
        self._laboratory = laboratory
        self.namespace = namespace
        self.interface = interface
        self._log = laboratory.folder / f"{interface}.log"
        self._process = laboratory.spawn(
            namespace, program, "-f", interface, log=self._log.name, env={"LOG_LEVEL": "verbose"}
        )
        wait_until(lambda: Path(f"/var/run/wireguard/{interface}.sock").exists(), f"{interface} answers `wg`")
        self.set_private_key(generate_private_key())

    def set(self, *arguments: str) -> None:
        """`wg set INTERFACE ARGUMENTS...`."""
        self.namespace.run("wg", "set", self.interface, *arguments)

    def set_private_key(self, key: str) -> None:
        """Be somebody else."""
        self.private_key, self.public_key = key, public_key(key)
        self.set("private-key", self._key_file("private", key))

    def set_peer(
        self,
        key: str,
        allowed_ips: list[str],
        *,
        endpoint: str | None = None,
        preshared_key: str | None = None,
        persistent_keepalive: int | None = None,
    ) -> None:
        """Add a peer or change it."""
        arguments = ["peer", key, "allowed-ips", ",".join(allowed_ips)]
        if endpoint is not None:
            arguments += ["endpoint", endpoint]
        if preshared_key is not None:
            arguments += ["preshared-key", self._key_file("preshared", preshared_key)]
        if persistent_keepalive is not None:
            arguments += ["persistent-keepalive", str(persistent_keepalive)]
        self.set(*arguments)

    def up(self, addresses: list[str], routes: list[str], *, mtu: int = MTU) -> None:
        """Addresses, link and routes, as wg-quick sets them.

        No link-local address: its multicast reports and router solicitations would start handshakes of their own.
        """
        self.namespace.ip("link", "set", self.interface, "mtu", str(mtu), "addrgenmode", "none")
        for address in addresses:
            self._laboratory.add_address(self.namespace, self.interface, address)
        self.namespace.ip("link", "set", self.interface, "up")
        for route in routes:
            self.namespace.ip("-6" if ":" in route else "-4", "route", "add", route, "dev", self.interface)

    def log(self) -> str:
        """What it said so far, verbosely."""
        return self._log.read_text()

    def stop(self) -> None:
        """End it; its device and socket go with it."""
        self._process.stop()

    def has_session(self) -> bool:
        """Whether a handshake with any peer was ever completed."""
        said = self.namespace.run("wg", "show", self.interface, "latest-handshakes")
        return any(int(line.split()[1]) for line in said.splitlines())

    def _key_file(self, kind: str, key: str) -> str:
        path = self._laboratory.folder / f"{self.interface}.{kind}"
        path.touch(mode=0o600)
        path.write_text(f"{key}\n")
        return str(path)


class Client(WireGuardGo):
    """A client: everything through the gateway, over an IPv4 or an IPv6 underlay."""

    def __init__(self, laboratory: Laboratory, site: ClientSite) -> None:
        super().__init__(laboratory, site.namespace, f"{laboratory.short}c{site.number}")
        self.site = site

    def join(
        self,
        gateway_key: str,
        port: int,
        *,
        family: int = 4,
        preshared_key: str | None = None,
        mtu: int = MTU,
    ) -> None:
        """Make the gateway its peer and the tunnel its default route."""
        self.know(gateway_key, port, family=family, preshared_key=preshared_key)
        self.up([f"{self.site.v4}/16", f"{self.site.v6}/64"], ["default", "::/0"], mtu=mtu)

    def know(self, gateway_key: str, port: int, *, family: int = 4, preshared_key: str | None = None) -> None:
        """Make the gateway its peer, over an IPv4 or an IPv6 underlay."""
        endpoint = join(self.site.underlay(1, family), port)
        self.set_peer(gateway_key, ["0.0.0.0/0", "::/0"], endpoint=endpoint, preshared_key=preshared_key)
