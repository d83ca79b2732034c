"""The laboratory: clients, gateway and server, each in a network namespace of its own.

    client1 ──10.91.1.0/24── gateway ──10.92.0.0/24── server
    client2 ──10.91.2.0/24──┘          (everything has IPv6 as well)

Segmentation offload is off on every veth, so that what a counter or a capture sees is what travels: packets, not
super-packets. `Namespace.merge_on_arrival` has packets merged where they arrive, as network cards do it. Namespaces
are named after the process that made them (`fz1234-0-client1`); a laboratory removes its own at the end, and what a
killed run left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, TypeVar

T = TypeVar("T")

TUNNEL_NETWORKS = ("100.64.0.0/16", "fd00:64::/64")
GATEWAY_TUNNEL_ADDRESSES = ("100.64.0.1/16", "fd00:64::1/64")
SERVER_V4, SERVER_V6 = "10.92.0.2", "fd92::2"
"""The server's addresses, outside the tunnel."""
EXIT_V4, EXIT_V6 = "10.92.0.1", "fd92::1"
"""The gateway's addresses towards the server: what the server sees under masquerade."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_laboratories = 0


def wait_until(condition: Callable[[], T | None], what: str, timeout: float = 10, every: float = 0.02) -> T:
    """Return the first true answer of `condition`, asked every `every` seconds.

    `AssertionError` that names `what` when there is none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(every)


def run(*argv: str, input: str | None = None, timeout: float = 60, check: bool = True) -> str:  # noqa: A002
    """Run a command to its end and return its stdout; a failure raises with both of its streams."""
    done = subprocess.run(argv, input=input, text=True, capture_output=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Process:
    """A child that this process started; it is ended by its own id and nothing else."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        stderr: IO[bytes] | int = subprocess.DEVNULL,
        env: dict[str, str] | None = None,
    ) -> None:
        self.argv = list(argv)
        # A session of its own: Ctrl-C reaches the tests, which then end their children in order. And the kernel
        # ends it when the tests themselves are killed.
        self._popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *argv],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id; setpriv and `ip netns exec` replace themselves by the command."""
        return self._popen.pid

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; none is sent to what has ended."""
        self._popen.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Wait for its end and return the exit code; `subprocess.TimeoutExpired` when it goes on."""
        return self._popen.wait(timeout)

    def stop(self, timeout: float = 5) -> int:
        """SIGTERM, after `timeout` seconds SIGKILL; returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            return self.wait(timeout)


class Namespace:
    """One named network namespace, its loopback up."""

    def __init__(self, name: str) -> None:
        self.name = name
        run("ip", "netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def remove(self) -> None:
        """Remove it with the devices inside."""
        run("ip", "netns", "delete", self.name)

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs `argv` inside."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str, input: str | None = None, timeout: float = 60, check: bool = True) -> str:  # noqa: A002
        """`run` inside."""
        return run(*self.argv(*argv), input=input, timeout=timeout, check=check)

    def ip(self, *argv: str, check: bool = True) -> str:
        """`ip` inside."""
        return run("ip", "-n", self.name, *argv, check=check)

    def sysctl(self, key: str, value: object) -> None:
        """Set one sysctl inside."""
        self.run("sysctl", "-qw", f"{key}={value}")

    def merge_on_arrival(self, device: str) -> None:
        """Have packets merged where they arrive (GRO), as a network card does, UDP too: what is forwarded from there
        is super-packets."""
        self.run("ethtool", "-K", device, "gro", "on", "rx-udp-gro-forwarding", "on")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside; sockets that it opens there stay there."""
        with (
            Path("/proc/thread-self/ns/net").open("rb") as home,
            Path("/run/netns", self.name).open("rb") as inside,
        ):
            _setns(inside.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def udp(self, address: str, port: int = 0) -> socket.socket:
        """A UDP socket inside, bound to an address of either family."""
        with self.entered():
            udp = socket.socket(family_of(address), socket.SOCK_DGRAM)
        udp.bind((address, port))
        return udp

    def connect(self, address: str, port: int, *, source: str | None = None, timeout: float = 10) -> socket.socket:
        """A TCP connection from inside; `OSError` as `connect` raises it."""
        with self.entered():
            tcp = socket.socket(family_of(address), socket.SOCK_STREAM)
        try:
            tcp.settimeout(timeout)
            if source is not None:
                tcp.bind((source, 0))
            tcp.connect((address, port))
        except BaseException:
            tcp.close()
            raise
        return tcp


@dataclass(frozen=True)
class ClientSite:
    """Where a client lives: its namespace, its underlay, its addresses in the tunnel."""

    number: int
    namespace: Namespace
    device: str

    @property
    def name(self) -> str:
        """The peer's name at the gateway."""
        return f"client{self.number}"

    @property
    def v4(self) -> str:
        """Its IPv4 address in the tunnel."""
        return f"100.64.0.{self.number + 1}"

    @property
    def v6(self) -> str:
        """Its IPv6 address in the tunnel."""
        return f"fd00:64::{self.number + 1}"

    @property
    def allowed_ips(self) -> list[str]:
        """What the gateway lets it say and sends to it."""
        return [f"{self.v4}/32", f"{self.v6}/128"]

    def underlay(self, host: int, family: int = 4) -> str:
        """An address on its side of the underlay: the gateway is host 1, the client host 2, 3 after roaming."""
        return f"10.91.{self.number}.{host}" if family == 4 else f"fd91:{self.number}::{host}"

    def move(self, old: int, new: int) -> None:
        """Change both of its underlay addresses from host `old` to host `new`, as a device that roams does."""
        # Without, the new address would go with the old one of the same subnet.
        self.namespace.sysctl(f"net.ipv4.conf.{self.device}.promote_secondaries", 1)
        for family, length in ((4, 24), (6, 64)):
            self._address("add", new, family, length)
            self._address("del", old, family, length)

    def _address(self, verb: str, host: int, family: int, length: int) -> None:
        nodad = ["nodad"] if family == 6 and verb == "add" else []
        self.namespace.ip("addr", verb, f"{self.underlay(host, family)}/{length}", "dev", self.device, *nodad)


class Laboratory:
    """Namespaces, cables and addresses; a context manager that removes all of it, and the children, at its end."""

    def __init__(self, clients: int = 2) -> None:
        global _laboratories
        self.prefix = f"fz{os.getpid()}-{_laboratories}"
        # An interface name has 15 characters, and the sockets of userspace WireGuard share one folder.
        self.short = f"fz{os.getpid()}{chr(ord('a') + _laboratories % 26)}"
        _laboratories += 1
        self.clients: list[ClientSite] = []
        self._wanted_clients = clients
        self.cable_ends: list[tuple[Namespace, str]] = []
        """Every end of every cable: its namespace and its device there."""
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        remove_leftovers()
        with contextlib.ExitStack() as undo:
            undo.callback(self._exit.close)
            self.folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="fzgw-e2e-")))
            self.gateway = self._namespace("gateway")
            self.server = self._namespace("server")
            self._cable(self.gateway, "exit", [f"{EXIT_V4}/24", f"{EXIT_V6}/64"], self.server, "eth0")
            self._address_server()
            for number in range(1, self._wanted_clients + 1):
                self._add_client(number)
            undo.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._exit.close()

    def on_exit(self, callback: Callable[[], object]) -> None:
        """Have `callback` called before the namespaces go; the last one given is the first called."""
        self._exit.callback(callback)

    def spawn(
        self,
        namespace: Namespace,
        *argv: str,
        log: str | None = None,
        stdout: IO[bytes] | int | None = None,
        env: dict[str, str] | None = None,
    ) -> Process:
        """Start a command inside a namespace, ended with the laboratory at the latest.

        `log`: a file in `folder` for what it says, stdout included unless that goes elsewhere.
        """
        with contextlib.ExitStack() as files:
            said: IO[bytes] | int = subprocess.DEVNULL
            if log is not None:
                said = files.enter_context((self.folder / log).open("ab"))
            process = Process(namespace.argv(*argv), stdout=said if stdout is None else stdout, stderr=said, env=env)
        self.on_exit(lambda: process.stop() if process.running() else None)
        return process

    def server_knows_tunnel(self, yes: bool) -> None:
        """Whether the server has a route back to tunnel addresses. Without, only masqueraded packets get answers."""
        verb = "replace" if yes else "delete"
        for family, gateway in (("-4", EXIT_V4), ("-6", EXIT_V6)):
            self.server.ip(family, "route", verb, "default", "via", gateway)

    def insert_meter(self) -> Namespace:
        """Put a bridge into the cable between gateway and server, in a namespace of its own, and return that.

        At its ports, `to-gateway` and `to-server`, every packet arrives as it travels, whatever the two merge or cut.
        """
        meter = self._namespace("meter")
        for key in ("all", "default"):
            meter.sysctl(f"net.ipv6.conf.{key}.disable_ipv6", 1)  # it has nothing to say
        meter.ip("link", "add", "bridge", "up", "type", "bridge", "mcast_snooping", "0")
        self.cable_ends.remove((self.server, "eth0"))
        self.server.ip("link", "set", "eth0", "netns", meter.name, "name", "to-gateway")
        self.cable_ends.append((meter, "to-gateway"))
        self._cable(self.server, "eth0", [], meter, "to-server")
        for port in ("to-gateway", "to-server"):
            meter.ip("link", "set", port, "up", "master", "bridge")
        self._address_server()
        return meter

    def set_mtu(self, mtu: int) -> None:
        """The MTU of every cable, at both ends."""
        for namespace, device in self.cable_ends:
            namespace.ip("link", "set", device, "mtu", str(mtu))

    def add_address(self, namespace: Namespace, device: str, address: str) -> None:
        """Add an address, without duplicate address detection: what it sends would disturb the counters."""
        namespace.ip("addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []))

    def _address_server(self) -> None:
        for address in (f"{SERVER_V4}/24", f"{SERVER_V6}/64"):
            self.add_address(self.server, "eth0", address)
        self.server_knows_tunnel(True)

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(f"{self.prefix}-{name}")
        self._exit.callback(namespace.remove)
        return namespace

    def _add_client(self, number: int) -> None:
        site = ClientSite(number, self._namespace(f"client{number}"), "eth0")
        gateway_side = [f"{site.underlay(1)}/24", f"{site.underlay(1, 6)}/64"]
        self._cable(self.gateway, f"to-client{number}", gateway_side, site.namespace, site.device)
        for family, length in ((4, 24), (6, 64)):
            self.add_address(site.namespace, site.device, f"{site.underlay(2, family)}/{length}")
        self.clients.append(site)

    def _cable(self, here: Namespace, device: str, addresses: list[str], there: Namespace, peer: str) -> None:
        """A veth pair with `addresses` at the near end, both ends up, quiet, without offload."""
        run("ip", "link", "add", device, "netns", here.name, "type", "veth", "peer", "name", peer, "netns", there.name)
        for namespace, name in ((here, device), (there, peer)):
            self.cable_ends.append((namespace, name))
            # "gso" alone leaves UDP super-packets whole.
            off = [word for feature in ("tso", "gso", "gro", "tx-udp-segmentation") for word in (feature, "off")]
            namespace.run("ethtool", "-K", name, *off)
            # Link-local addresses stay, and are there at once: a router asks for its neighbours from them.
            for key in ("accept_dad", "accept_ra", "router_solicitations"):
                namespace.sysctl(f"net.ipv6.conf.{name}.{key}", 0)
            namespace.ip("link", "set", name, "up")
        for address in addresses:
            self.add_address(here, device, address)


@dataclass(frozen=True)
class Datagram:
    """One captured UDP datagram."""

    time: float
    source: str
    source_port: int
    destination: str
    destination_port: int
    payload: bytes


class Capture:
    """tcpdump on one device, from the moment it is made until `stop`; of each frame it keeps `snaplen` bytes."""

    def __init__(
        self, laboratory: Laboratory, namespace: Namespace, device: str, expression: str, snaplen: int = 65535
    ) -> None:
        self._file = laboratory.folder / f"capture-{namespace.name}-{device}-{time.monotonic_ns()}.pcap"
        self._log = self._file.with_suffix(".log")
        arguments = [
            "-i",
            device,
            "-n",
            "-p",
            "-U",
            "--immediate-mode",
            "-B",
            "16384",
            "-Z",
            "root",
            "-s",
            str(snaplen),
        ]
        self._process = laboratory.spawn(
            namespace, "tcpdump", *arguments, "-w", str(self._file), expression, log=self._log.name
        )
        wait_until(lambda: "listening on" in self._log.read_text(), "tcpdump listens")

    def stop(self) -> None:
        """End it, after it has written what it saw."""
        self._catch_up()
        self._process.signal(signal.SIGINT)
        self._process.wait(10)

    @property
    def file(self) -> Path:
        """Where it writes."""
        return self._file

    def packets(self) -> list[tuple[float, bytes]]:
        """Time and IP packet of every frame so far."""
        if self._process.running():
            self._catch_up()
        return list(read_pcap(self._file.read_bytes()))

    def _catch_up(self) -> None:
        """Wait until it has written every packet that had passed its filter: it may be far behind on a busy machine."""

        def caught_up() -> bool:
            asked = len(self._counts())
            self._process.signal(signal.SIGUSR1)
            answers = wait_until(lambda: self._counts()[asked:], "tcpdump says what it counted", every=0.005)
            captured, passed, lost = map(int, answers[-1])
            assert not lost, "tcpdump lost packets: no proof"
            return captured >= passed

        wait_until(caught_up, "tcpdump has written everything")

    def _counts(self) -> list[tuple[str, str, str]]:
        return re.findall(
            r"(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped by kernel",
            self._log.read_text(),
        )

    def addresses(self) -> set[str]:
        """Every source and destination address so far."""
        found: set[str] = set()
        for _, packet in self.packets():
            parts = [packet[12:16], packet[16:20]] if packet[0] >> 4 == 4 else [packet[8:24], packet[24:40]]
            found |= {socket.inet_ntop(socket.AF_INET if len(part) == 4 else socket.AF_INET6, part) for part in parts}
        return found

    def ports(self) -> set[int]:
        """Every TCP and UDP port so far, of packets without extension headers."""
        found: set[int] = set()
        for _, packet in self.packets():
            four = packet[0] >> 4 == 4
            if packet[9 if four else 6] in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                found |= set(struct.unpack_from("!HH", packet, (packet[0] & 15) * 4 if four else 40))
        return found

    def datagrams(self) -> list[Datagram]:
        """The UDP datagrams so far."""
        return [found for at, packet in self.packets() if (found := _parse_udp(at, packet)) is not None]


def read_pcap(data: bytes) -> Iterator[tuple[float, bytes]]:
    """Time and IP packet of each frame of a capture file, of a veth or a TUN; an unfinished last one is left out."""
    (link_type,) = struct.unpack_from("<I", data, 20)
    header = {1: 14, 12: 0, 101: 0}[link_type]  # Ethernet, raw IP under its two numbers
    offset = 24
    while offset + 16 <= len(data):
        seconds, micros, length, _ = struct.unpack_from("<IIII", data, offset)
        frame = data[offset + 16 : offset + 16 + length]
        if len(frame) < length:
            return
        yield seconds + micros / 1e6, frame[header:]
        offset += 16 + length


def _parse_udp(at: float, packet: bytes) -> Datagram | None:
    """A UDP datagram over IPv4 or over IPv6 without extension headers."""
    if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_UDP:
        header = (packet[0] & 15) * 4
        source, destination, family = packet[12:16], packet[16:20], socket.AF_INET
    elif packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_UDP:
        header = 40
        source, destination, family = packet[8:24], packet[24:40], socket.AF_INET6
    else:
        return None
    source_port, destination_port, length = struct.unpack_from("!HHH", packet, header)
    text = [socket.inet_ntop(family, address) for address in (source, destination)]
    return Datagram(at, text[0], source_port, text[1], destination_port, packet[header + 8 : header + length])


def family_of(address: str) -> socket.AddressFamily:
    """The address family of a literal."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def join(address: str, port: int) -> str:
    """`address:port` as WireGuard and the records write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def missing_tools() -> list[str]:
    """The commands that the laboratory needs and this machine has not."""
    wanted = ("wg", "iperf3", "nft", "tcpdump", "ping", "dig", "dnsmasq", "ethtool", "ip", "sysctl", "setpriv")
    return [command for command in wanted if shutil.which(command) is None]


def remove_leftovers() -> None:
    """Remove the namespaces of runs that were killed: those named after a process that is no more."""
    for line in run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        made = re.fullmatch(r"fz(\d+)-\d+-(gateway|server|meter|client\d+)", name)
        if made and not Path("/proc", made[1]).exists():
            run("ip", "netns", "delete", name, check=False)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
