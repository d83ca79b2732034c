"""The gateway under test as a process: `python -m fzgw run`, and what it leaves when it stops.

`StandIn` is wireguard-go in the gateway's place. It shows that the laboratory itself works: what fails with it is not
fzgw's fault.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .ledgers import Books, check_final
from .netlab import GATEWAY_TUNNEL_ADDRESSES, Laboratory, Process, wait_until
from .records import Records
from .wg import MTU, Client, WireGuardGo, generate_private_key, public_key

PORT = 51820
STOP_WITHIN = 15
"""Seconds within which the gateway must have delivered everything and ended (R27 gives it 10)."""


@dataclass(frozen=True)
class Peer:
    """One peer as the gateway is told of it."""

    name: str
    public_key: str
    allowed_ips: list[str]
    preshared_key: str | None = None
    persistent_keepalive: int | None = None
    endpoint: str | None = None
    user: str | None = None
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, client: Client, **more: Any) -> Peer:
        """The peer that a client of the laboratory is."""
        return cls(client.site.name, client.public_key, client.site.allowed_ips, **more)


@dataclass(frozen=True)
class Outcome:
    """What a gateway left behind."""

    records: Records
    books: Books


class Fzgw:
    """One gateway with its configuration, which may be started several times.

    `access`: `[[resources]]` and `[[rules]]` tables, as TOML text. `flow_logs`: settings of that table, as TOML text.
    `tun_offload`, `mtu`: of the table `[gateway]`.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        peers: Sequence[Peer],
        *,
        nat: str = "none",
        access: str = "",
        flow_logs: str = "",
        tun_offload: str = "auto",
        mtu: int = MTU,
    ) -> None:
        self._laboratory = laboratory
        self.interface = f"{laboratory.short}g"
        self.port = PORT
        self.mtu = mtu
        self._tun_offload = tun_offload
        private_key = generate_private_key()
        self.public_key = public_key(private_key)
        self._folder = laboratory.folder / "gateway"
        self._folder.mkdir(mode=0o700)
        self._secret("gateway.key", private_key)
        self._config = self._folder / "gateway.toml"
        self._config.write_text(self._toml(peers, nat, access, flow_logs))
        self._runs = 0
        self._process: Process | None = None

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self._config

    def start(self) -> None:
        """Start it and wait until it can be used."""
        self._launch()
        wait_until(self._is_up, "the gateway is up", timeout=20)

    def refuses_to_start(self) -> tuple[int, str]:
        """Start it where it cannot run: its exit code, and what it said."""
        process = self._launch()
        wait_until(lambda: not process.running(), "the gateway ends by itself", timeout=STOP_WITHIN)
        self._process = None
        return process.wait(0), self.log()

    def _launch(self) -> Process:
        self._runs += 1
        self._records = self._folder / f"records-{self._runs}.jsonl"
        self._stats = self._folder / f"stats-{self._runs}.json"
        self._log = self._laboratory.folder / f"gateway-{self._runs}.log"
        options = ["--flow-logs", "--stats-file", str(self._stats)]
        with self._records.open("wb") as stdout:
            self._process = self._laboratory.spawn(
                self._laboratory.gateway,
                *(sys.executable, "-m", "fzgw", "run", str(self._config), *options),
                stdout=stdout,
                log=self._log.name,
            )
        return self._process

    def books(self) -> Books:
        """Its books as they stand (SIGUSR1)."""
        assert self._process is not None
        self._stats.unlink(missing_ok=True)
        self._process.signal(signal.SIGUSR1)
        return Books(wait_until(self._read_stats, "SIGUSR1 writes the statistics"))

    def stop(self) -> Outcome:
        """SIGTERM; what it leaves, after the ledgers and the records were found in order."""
        assert self._process is not None
        self._stats.unlink(missing_ok=True)
        self._process.signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"R27: still running {STOP_WITHIN} s after SIGTERM\n{self.log()}") from None
        assert code == 0, f"exit {code}\n{self.log()}"
        assert "Traceback" not in self.log(), self.log()
        outcome = Outcome(Records.read(self._records), Books(json.loads(self._stats.read_text())))
        check_final(outcome.books, outcome.records)
        self._process = None
        return outcome

    def ends_by_itself(self) -> tuple[int, Books]:
        """Its exit code and last books, when it ends without having been told to."""
        assert self._process is not None
        code = self._process.wait(STOP_WITHIN)
        self._process = None
        return code, Books(json.loads(self._stats.read_text()))

    def reload(self, peers: Sequence[Peer], *, access: str = "", answer: str = "gateway_reloaded") -> None:
        """Change peers and rules in the configuration and SIGHUP; `answer`: the event that must follow in the log."""
        assert self._process is not None
        before = self._count(answer)
        self._config.write_text(self._toml(peers, "none", access, ""))
        self._process.signal(signal.SIGHUP)
        wait_until(lambda: self._count(answer) > before, f"SIGHUP is answered by {answer}")

    def kill(self) -> None:
        """SIGKILL: nothing is closed, delivered or taken back."""
        assert self._process is not None
        self._process.signal(signal.SIGKILL)
        self._process.wait(5)
        self._process = None

    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.running()

    def records(self) -> Records:
        """What it has written so far, up to the last whole line."""
        whole, _, _ = self._records.read_bytes().rpartition(b"\n")
        return Records(whole.splitlines())

    def log(self) -> str:
        """What it said on stderr."""
        return self._log.read_text()

    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def _is_up(self) -> bool:
        assert self._process is not None
        if not self._process.running():
            raise AssertionError(f"the gateway ended at once\n{self.log()}")
        return self._count("gateway_started") > 0

    def _count(self, event: str) -> int:
        """How often its log, a JSON object a line, tells of an event; a line that is not whole yet tells nothing."""
        whole, _, _ = self.log().rpartition("\n")
        return sum(json.loads(line)["event"] == event for line in whole.splitlines())

    def _read_stats(self) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.running(), f"the gateway ended\n{self.log()}"
        try:
            stats: dict[str, Any] = json.loads(self._stats.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return stats

    def _secret(self, name: str, key: str) -> str:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(f"{key}\n")
        return name

    def _toml(self, peers: Sequence[Peer], nat: str, access: str, flow_logs: str) -> str:
        lines = [
            "[gateway]",
            'name = "e2e"',
            'private_key_file = "gateway.key"',
            f"listen = {self.port}",
            f'interface = "{self.interface}"',
            f"mtu = {self.mtu}",
            f'tun_offload = "{self._tun_offload}"',
            f"addresses = {json.dumps(GATEWAY_TUNNEL_ADDRESSES)}",
            'state_dir = "state"',
            "[nat]",
            f'mode = "{nat}"',
            "[flow_logs]",
            flow_logs,
        ]
        for peer in peers:
            lines += [
                "[[peers]]",
                f'name = "{peer.name}"',
                f'public_key = "{peer.public_key}"',
                f"allowed_ips = {json.dumps(peer.allowed_ips)}",
            ]
            if peer.user is not None:
                lines.append(f'user = "{peer.user}"')
            if peer.groups:
                lines.append(f"groups = {json.dumps(peer.groups)}")
            if peer.preshared_key is not None:
                lines.append(f'preshared_key_file = "{self._secret(f"{peer.name}.psk", peer.preshared_key)}"')
            if peer.persistent_keepalive is not None:
                lines.append(f"persistent_keepalive = {peer.persistent_keepalive}")
            if peer.endpoint is not None:
                lines.append(f'endpoint = "{peer.endpoint}"')
        return "\n".join([*lines, access, ""])


class StandIn(WireGuardGo):
    """wireguard-go where the gateway should be; it routes, and keeps no books.

    All of its clients need underlay addresses of one family: it sends to wrong ones when it has peers over both.
    """

    def __init__(self, laboratory: Laboratory, peers: Sequence[Peer]) -> None:
        super().__init__(laboratory, laboratory.gateway, f"{laboratory.short}g")
        self.port = PORT
        self.set("listen-port", str(PORT))
        for peer in peers:
            self.set_peer(
                peer.public_key,
                peer.allowed_ips,
                endpoint=peer.endpoint,
                preshared_key=peer.preshared_key,
                persistent_keepalive=peer.persistent_keepalive,
            )
        for family in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            self.namespace.sysctl(f"net.{family}", 1)
        self.up(list(GATEWAY_TUNNEL_ADDRESSES), [])
