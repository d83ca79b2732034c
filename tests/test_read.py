"""`fzgw.read`: the flows of a capture in Python."""

from __future__ import annotations

import gc
import gzip
import inspect
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import fzgw
from captures import ETHERNET, START, arp, download, ethernet, pcap, pcapng, tcp, udp, unreachable, zstd
from config_files import GATEWAY, peer_table, write_config
from fzgw import _core
from fzgw.config import load_flow_logs

CLIENT, SERVER = "100.64.0.2:4000", "192.0.2.1:80"


@pytest.fixture
def capture(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a capture and returns its path."""

    def write(content: bytes) -> Path:
        path = tmp_path / "some.pcap"
        path.write_bytes(content)
        return path

    return write


def threads() -> int:
    """Threads of this process, the engine's too."""
    return len(list(Path("/proc/self/task").iterdir()))


class TestFlows:
    """What a flow of a capture says."""

    def test_a_tcp_flow_is_told_whole(self, capture: Callable[[bytes], Path]) -> None:
        """R3, R8, R10, R20: every count, time and state of a download, exactly; without a configuration no peer."""
        (flow,) = fzgw.read(capture(pcap(download(CLIENT, SERVER))))
        assert isinstance(flow, fzgw.Flow)
        assert (flow.activity, flow.number, flow.protocol, flow.end_reason) == ("close", 1, 6, "fin")
        assert (flow.src_ip, flow.src_port, flow.dst_ip, flow.dst_port) == ("100.64.0.2", 4000, "192.0.2.1", 80)
        assert (flow.packets_out, flow.bytes_out, flow.payload_out) == (5, 240, 40)
        assert (flow.packets_in, flow.bytes_in, flow.payload_in) == (4, 1160, 1000)
        assert (flow.start_ns, flow.end_ns) == (START * 10**9, START * 10**9 + 500_000_000)
        assert (flow.direction, flow.verdict, flow.initiator_known) == ("unknown", "allow", True)
        assert (flow.peer.name, flow.peer.public_key, flow.peer.groups, flow.paths) == ("", "", (), ())
        assert flow.conn_state == "SF"
        tcp = flow.tcp
        assert tcp is not None
        assert (tcp.history, tcp.conn_state, tcp.flags_out, tcp.flags_in) == ("ShADdfF", "SF", 0x13, 0x13)
        assert (tcp.retransmits_out, tcp.retransmits_in) == (0, 0)
        assert tcp.syn_to_syn_ack == pytest.approx(0.02)
        assert tcp.syn_ack_to_ack == pytest.approx(0.01)

    def test_icmp_errors_are_with_their_flow(self, capture: Callable[[bytes], Path]) -> None:
        """R13, scenario 27: type, code, packets and bytes, and in nothing else; the flow has ended by it."""
        question = udp("10.0.0.1:4000", "192.0.2.1:9", b"hello")
        frames = [(0.0, question), (0.1, unreachable("192.0.2.1", "10.0.0.1", question))]
        (flow,) = fzgw.read(capture(pcap(frames)))
        (errors,) = flow.icmp_errors
        assert (errors.type, errors.code, errors.packets, errors.bytes) == (3, 3, 1, 56)
        assert (flow.packets_in, flow.end_reason, flow.conn_state, flow.tcp) == (0, "icmp_unreachable", "S0", None)

    def test_ipv6_addresses_are_in_their_short_form(self, capture: Callable[[bytes], Path]) -> None:
        """RFC 5952, as everywhere else."""
        (flow,) = fzgw.read(capture(pcap([(0.0, udp("[fd00:0:0::2]:1", "[2001:db8::1]:53"))])))
        assert (flow.src_ip, flow.dst_ip, flow.bytes_out) == ("fd00::2", "2001:db8::1", 48)

    @pytest.mark.parametrize("last", ["0.0.0.0", "10.20.30.4", "255.199.100.99", "1.10.100.9"])
    def test_ipv4_addresses_are_as_python_writes_them(self, capture: Callable[[bytes], Path], last: str) -> None:
        """Octets of one, two and three digits."""
        (flow,) = fzgw.read(capture(pcap([(0.0, udp("9.9.9.9:1", f"{last}:53"))])))
        assert (flow.src_ip, flow.dst_ip) == ("9.9.9.9", last)

    @pytest.mark.parametrize(
        "content",
        [
            pcap(download(CLIENT, SERVER)),
            pcapng(download(CLIENT, SERVER)),
            gzip.compress(pcap(download(CLIENT, SERVER))),
            zstd(pcapng(download(CLIENT, SERVER))),
            pcap([(at, ethernet(packet)) for at, packet in download(CLIENT, SERVER)], ETHERNET),
            pcap([(0, arp()), *((at, ethernet(packet)) for at, packet in download(CLIENT, SERVER))], ETHERNET),
            pcap(download(CLIENT, SERVER), snaplen=40),
        ],
        ids=["pcap", "pcapng", "gzip", "zstd", "ethernet", "with ARP", "snaplen"],
    )
    def test_the_same_flow_out_of_every_form(self, capture: Callable[[bytes], Path], content: bytes) -> None:
        """Formats, compression, link types and a snaplen change no count."""
        (flow,) = fzgw.read(capture(content))
        counts = (flow.packets_out, flow.bytes_out, flow.packets_in, flow.bytes_in, flow.payload_in)
        assert counts == (5, 240, 4, 1160, 1000)

    def test_with_updates_the_deltas_add_up(self, capture: Callable[[bytes], Path]) -> None:
        """R18, R19: open, updates and close of a flow of 200 s at a packet a second; without `updates`, the close."""
        path = capture(pcap([(at, udp("10.0.0.1:1", "10.0.0.2:2", b"x" * at)) for at in range(200)]))
        records = list(fzgw.read(path, updates=True))
        assert [record.activity for record in records][:2] == ["open", "update"]
        assert [record.activity for record in records][-1] == "close"
        assert Counter(record.activity for record in records)["update"] in (3, 4)
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        assert len({record.uid for record in records}) == 1
        assert sum(record.delta.packets_out for record in records) == records[-1].packets_out == 200
        assert sum(record.delta.bytes_out for record in records) == records[-1].bytes_out == 200 * 28 + 199 * 100
        assert all(record.end_reason is None for record in records[:-1])
        (close,) = fzgw.read(path)
        assert (close.number, close.delta.packets_out, close.packets_out) == (1, 200, 200)

    def test_several_files_are_one_capture(self, tmp_path: Path) -> None:
        """A flow goes on in the next file."""
        frames = download(CLIENT, SERVER)
        first, second = tmp_path / "1.pcap", tmp_path / "2.pcapng"
        first.write_bytes(pcap(frames[:4]))
        second.write_bytes(pcapng(frames[4:]))
        (flow,) = fzgw.read([first, str(second)])
        assert (flow.packets_out, flow.packets_in, flow.end_reason) == (5, 4, "fin")


class TestSettings:
    """Configurations and single keys."""

    def test_peers_are_found_by_their_allowed_ips(self, capture: Callable[[bytes], Path], tmp_path: Path) -> None:
        """R2: on either side, with the direction seen from the peer; by a path or by a loaded configuration."""
        more = 'user = "alice"\ngroups = ["engineering"]\n'
        config = write_config(tmp_path, GATEWAY + peer_table("laptop", "100.64.0.2/32", more=more))
        path = capture(pcap([*download(CLIENT, SERVER), (1.0, udp("192.0.2.9:53", "100.64.0.2:99"))]))
        for given in (config, str(config), fzgw.load_config(config)):
            flows = {flow.direction: flow for flow in fzgw.read(path, config=given)}
            assert flows.keys() == {"outbound", "inbound"}
            assert flows["outbound"].packets_in == 4
            for flow in flows.values():
                assert (flow.peer.name, flow.peer.user, flow.peer.groups) == ("laptop", "alice", ("engineering",))

    def test_rules_of_the_configuration_judge(self, capture: Callable[[bytes], Path], tmp_path: Path) -> None:
        """P1, R23: what no rule allows is a denied flow, with its attempts in total and since the record before."""
        rules = (
            '[[resources]]\nname = "web"\naddresses = ["192.0.2.1/32"]\n[[rules]]\nname = "r"\nresources = ["web"]\n'
        )
        config = write_config(tmp_path, GATEWAY + rules + peer_table("laptop", "100.64.0.2/32"))
        frames = [(at, tcp("100.64.0.2:1", "198.51.100.7:22", 2)) for at in (0.0, 1.0, 3.0)]
        flows = {
            flow.verdict: flow for flow in fzgw.read(capture(pcap([*frames, *download(CLIENT, SERVER, 4.0)])), config)
        }
        denied = flows["deny"]
        assert (denied.rule, denied.attempts, denied.attempted_bytes, denied.packets_out) == ("default-deny", 3, 120, 0)
        assert (denied.delta.attempts, denied.delta.attempted_bytes, denied.tcp) == (3, 120, None)
        assert (flows["allow"].rule, flows["allow"].resource) == ("r", "web")

    @pytest.mark.parametrize("limit", ["60s", 60, "60000ms"])
    def test_set_changes_a_limit(self, capture: Callable[[bytes], Path], limit: object) -> None:
        """R17: a silence of 100 s is within the default limit for UDP, and past one of 60 s."""
        path = capture(pcap([(at, udp("10.0.0.1:1", "10.0.0.2:2")) for at in (0, 100)]))
        assert [flow.packets_out for flow in fzgw.read(path)] == [2]
        assert [flow.packets_out for flow in fzgw.read(path, set={"flow_logs.idle.udp": limit})] == [1, 1]

    def test_set_goes_on_top_of_a_configuration(self, capture: Callable[[bytes], Path], tmp_path: Path) -> None:
        """By its path or loaded; what it says itself stays."""
        text = GATEWAY + '[flow_logs.idle]\nudp = "10s"\n' + peer_table("laptop", "100.64.0.2/32")
        config = write_config(tmp_path, text)
        frames = [(at, udp("100.64.0.2:1", "10.0.0.2:2")) for at in (0, 11)]
        path = capture(pcap([*frames, (11.5, tcp(CLIENT, SERVER, 16, b"x")), (50, tcp(CLIENT, SERVER, 16, b"x"))]))
        for given in (config, fzgw.load_config(config)):
            flows = list(fzgw.read(path, config=given, set={"flow_logs.idle.tcp": "20s"}))
            assert Counter(flow.protocol for flow in flows) == {17: 2, 6: 2}

    def test_the_defaults_are_the_configurations(self, capture: Callable[[bytes], Path]) -> None:
        """The engine's own defaults and those of the configuration's models are the same (R8, R9, R17)."""
        frames = [
            *((at, udp("10.0.0.1:1", "10.0.0.2:2")) for at in (0, 120, 240.1)),
            *((at, tcp("10.0.0.1:3", "10.0.0.2:4", 2)) for at in (0, 75, 150.1)),
            *((at, tcp("10.0.0.1:5", "10.0.0.2:6", 16, b"x")) for at in (0, 1200, 2400.1)),
        ]
        path = capture(pcap(sorted(frames)))

        def told(setting: dict[str, object] | None) -> list[tuple[int, str, int, float]]:
            return [
                (flow.protocol, flow.activity, flow.packets_out, flow.duration)
                for flow in fzgw.read(path, set=setting, updates=True)
            ]

        assert told(None) == told({"flow_logs.max_flows": 1_000_000})
        assert Counter(protocol for protocol, activity, *_ in told(None) if activity == "close") == {17: 2, 6: 4}

    def test_what_is_wrong_is_raised_at_once(self, capture: Callable[[bytes], Path], tmp_path: Path) -> None:
        """Not with the first flow: a file that is not there, a key that is not known."""
        path = capture(pcap([]))
        with pytest.raises(FileNotFoundError, match=r"nowhere\.pcap"):
            fzgw.read(tmp_path / "nowhere.pcap")
        with pytest.raises(IsADirectoryError):
            fzgw.read(tmp_path)
        with pytest.raises(fzgw.ConfigErrors, match='did you mean "tcp"'):
            fzgw.read(path, set={"flow_logs.idle.tpc": "1s"})
        with pytest.raises(fzgw.ConfigErrors, match="needs a configuration"):
            fzgw.read(path, set={"nat.mode": "none"})
        with pytest.raises(fzgw.ConfigErrors, match="no such file"):
            fzgw.read(path, config=tmp_path / "nowhere.toml")


class TestFaults:
    """What came before a fault is yielded before it is raised."""

    @pytest.mark.parametrize("form", [pcap, pcapng])
    def test_a_file_that_ends_too_early(
        self, capture: Callable[[bytes], Path], form: Callable[[list[tuple[float, bytes]]], bytes]
    ) -> None:
        """The flows up to there, then a CaptureError with file and offset."""
        whole = form([(at, udp(f"10.0.0.{at}:1", "10.0.0.9:2")) for at in (1, 2, 3)])
        path = capture(whole[:-5])
        flows = fzgw.read(path)
        assert [next(flows).src_ip, next(flows).src_ip] == ["10.0.0.1", "10.0.0.2"]
        with pytest.raises(fzgw.CaptureError, match=r"some\.pcap: truncated at offset \d+") as caught:
            next(flows)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"\x7fELF and more", b"hello " * 100])
    def test_what_is_no_capture(self, capture: Callable[[bytes], Path], content: bytes) -> None:
        """One clear line that names the file."""
        with pytest.raises(fzgw.CaptureError, match=r"some\.pcap: ") as caught:
            list(fzgw.read(capture(content)))
        assert "\n" not in str(caught.value)


class TestLaziness:
    """Nothing is read that nobody asks for."""

    def test_it_is_a_generator_that_begins_when_asked(self, capture: Callable[[bytes], Path]) -> None:
        """No thread before the first flow; none after the generator is closed or forgotten in the middle."""
        path = capture(pcap([(at / 1000, udp(f"10.0.{at >> 8}.{at & 255}:1", "10.9.0.9:2")) for at in range(20_000)]))
        before = threads()
        flows = fzgw.read(path, set={"flow_logs.idle.udp": "1ms"})
        assert inspect.isgenerator(flows)
        assert threads() == before
        assert next(flows).src_ip == "10.0.0.0"
        flows.close()
        assert list(flows) == []
        flows = fzgw.read(path, set={"flow_logs.idle.udp": "1ms"})
        assert next(flows).src_ip == "10.0.0.0"
        del flows
        gc.collect()
        waited = threading.Event()
        for _ in range(200):
            if threads() == before:
                break
            waited.wait(0.05)
        assert threads() == before

    def test_a_reading_that_is_stopped_balances(self, capture: Callable[[bytes], Path]) -> None:
        """L1, L2: the books are open while there are records to take; stopped in the middle, every packet read until
        then is in them, and that is no error."""
        path = capture(pcap([(at / 1000, udp(f"10.0.{at >> 8}.{at & 255}:1", "10.9.0.9:2")) for at in range(40_000)]))
        reading = _core.Replay.start([path], flow_logs=load_flow_logs(["flow_logs.idle.udp=1ms"]))
        with pytest.raises(RuntimeError, match="until recv has given None"):
            reading.ledger()
        assert reading.error is None
        reading.stop()
        taken = 0
        while (batch := reading.recv(max=700, timeout=10)) is not None:
            assert len(batch) <= 700
            taken += len(batch)
        books = reading.ledger()
        assert books["balanced"] is True
        assert books["records"]["made"] == taken == books["packets"]["frames"] < 40_000
        assert reading.error is None
        assert reading.progress()["packets"] == taken

    def test_memory_does_not_grow_with_the_capture(self, tmp_path: Path) -> None:
        """300,000 flows, a few hundred of them alive at a time, read within 64 MiB more than the first flow takes."""
        path = tmp_path / "large.pcap"
        with path.open("wb") as file:
            file.write(pcap([]))
            for block in range(300):
                numbers = range(block * 1000, (block + 1) * 1000)
                frames = ((n / 1000, udp(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:1", "192.0.2.1:2")) for n in numbers)
                file.write(pcap(frames)[24:])
        code = (
            "import resource, sys, fzgw\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "flows = fzgw.read(sys.argv[1], set={'flow_logs.idle.udp': '200ms'})\n"
            "next(flows)\n"
            "before = peak()\n"
            "print(1 + sum(1 for _ in flows), peak() - before)\n"
        )
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        flows, grown_kib = map(int, done.stdout.split())
        assert flows == 300_000
        assert grown_kib < 64 * 1024

    def test_importing_and_reading_takes_no_configuration_along(self, capture: Callable[[bytes], Path]) -> None:
        """A script that reads a capture does not wait for pydantic, nor for what only the command line needs."""
        code = (
            "import sys, fzgw\n"
            "assert len(list(fzgw.read(sys.argv[1]))) == 1\n"
            "heavy = {'pydantic', 'rich', 'structlog', 'click', 'fzgw.config', 'fzgw.handlers'}\n"
            "print(sorted(heavy & set(sys.modules)))\n"
        )
        command = [sys.executable, "-c", code, str(capture(pcap(download(CLIENT, SERVER))))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "[]\n"
