"""`fzgw replay`: captures on the command line."""

from __future__ import annotations

import gzip
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from captures import ETHERNET, START, arp, download, ethernet, pcap, pcapng, udp, zstd
from config_files import GATEWAY, peer_table, write_config
from ocsf import validate

CLIENT, SERVER = "100.64.0.2:4000", "192.0.2.1:80"

Write = Callable[..., Path]


def replay(*arguments: object, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Runs `python -m fzgw replay` as a process of its own."""
    command = [sys.executable, "-m", "fzgw", "replay", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, cwd=cwd)


def lines_of(output: bytes) -> list[dict[str, Any]]:
    """One JSON object a line."""
    assert not output or output.endswith(b"\n")
    return [json.loads(line) for line in output.splitlines()]


def get(line: dict[str, Any], name: str) -> Any:
    """A field by its dotted name, whether the format nests objects or has dots in its names."""
    if name in line:
        return line[name]
    first, _, rest = name.partition(".")
    return get(line[first], rest) if rest else line[first]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the test, `some.pcap` unless named, and returns its path."""

    def write(content: bytes | str, name: str = "some.pcap") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def capture(write: Write) -> Path:
    """A download, and a flow of 30 s that gets an open record; an ARP frame."""
    frames = [*download(CLIENT, SERVER), *((at, udp("10.0.0.1:1", "10.0.0.2:2")) for at in range(1, 32, 3))]
    return write(pcap([(0.0, arp()), *((at, ethernet(packet)) for at, packet in frames)], ETHERNET))


def _listen_to_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class TestLines:
    """What is written, and where."""

    def test_ocsf_is_the_default(self, capture: Path) -> None:
        """Each line satisfies the published schema; open and close records, exact, numbered without a hole (L4)."""
        done = replay(capture)
        assert done.returncode == 0, done.stderr
        records = [validate(line) for line in done.stdout.splitlines()]
        told = [(get(record, "unmapped.activity"), get(record, "connection_info.protocol_num")) for record in records]
        assert told == [("close", 6), ("open", 17), ("close", 17)]
        assert [get(record, "metadata.sequence") for record in records] == [1, 2, 3]
        tcp = records[0]
        assert (get(tcp, "src_endpoint.ip"), get(tcp, "src_endpoint.port")) == tuple_of(CLIENT)
        assert (get(tcp, "dst_endpoint.ip"), get(tcp, "dst_endpoint.port")) == tuple_of(SERVER)
        assert get(tcp, "cumulative_traffic") == {
            "bytes": 1400, "bytes_out": 240, "bytes_in": 1160, "packets": 9, "packets_out": 5, "packets_in": 4,
        }  # fmt: skip
        assert (get(tcp, "start_time"), get(tcp, "end_time")) == (START * 1000, START * 1000 + 500)
        assert get(tcp, "status_code") == "fin"
        assert get(records[2], "status_code") == "capture_end"

    def test_zeek_has_its_own_names(self, capture: Path) -> None:
        """One line a flow, its close record, with the fields of conn.log."""
        done = replay(capture, "--format", "zeek")
        assert done.returncode == 0, done.stderr
        tcp, datagrams = lines_of(done.stdout)
        assert (get(tcp, "id.orig_h"), get(tcp, "id.orig_p")) == tuple_of(CLIENT)
        assert (get(tcp, "id.resp_h"), get(tcp, "id.resp_p")) == tuple_of(SERVER)
        assert (tcp["proto"], tcp["conn_state"], tcp["history"]) == ("tcp", "SF", "ShADdfF")
        assert (tcp["orig_pkts"], tcp["orig_ip_bytes"], tcp["orig_bytes"]) == (5, 240, 40)
        assert (tcp["resp_pkts"], tcp["resp_ip_bytes"], tcp["resp_bytes"]) == (4, 1160, 1000)
        assert tcp["duration"] == pytest.approx(0.5)
        assert (datagrams["proto"], datagrams["orig_pkts"], datagrams["resp_pkts"]) == ("udp", 11, 0)

    def test_ecs_has_its_own_names(self, capture: Path) -> None:
        """One line a flow, its close record, in the Elastic Common Schema."""
        done = replay(capture, "--format", "ecs")
        assert done.returncode == 0, done.stderr
        tcp, datagrams = lines_of(done.stdout)
        assert (get(tcp, "source.ip"), get(tcp, "source.port")) == tuple_of(CLIENT)
        assert (get(tcp, "destination.ip"), get(tcp, "destination.port")) == tuple_of(SERVER)
        assert (get(tcp, "source.packets"), get(tcp, "source.bytes")) == (5, 240)
        assert (get(tcp, "destination.packets"), get(tcp, "destination.bytes")) == (4, 1160)
        assert get(tcp, "network.transport") == "tcp"
        assert (get(datagrams, "network.transport"), get(datagrams, "source.packets")) == ("udp", 11)

    def test_output_takes_the_lines(self, capture: Path, tmp_path: Path) -> None:
        """Then nothing is on stdout, and the file has what would have been there, but for the uids of the run."""
        done = replay(capture, "--output", tmp_path / "out.jsonl")
        assert (done.returncode, done.stdout) == (0, b"")
        kept = ("src_endpoint", "dst_endpoint", "traffic", "cumulative_traffic", "start_time", "end_time")
        written, printed = (tmp_path / "out.jsonl").read_bytes(), replay(capture).stdout
        assert [[line[key] for key in kept] for line in lines_of(written)] == [
            [line[key] for key in kept] for line in lines_of(printed)
        ]

    @pytest.mark.parametrize("compressed", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
    def test_standard_input(self, capture: Path, compressed: Callable[[bytes], bytes]) -> None:
        """`-`, compressed or not."""
        done = replay("-", stdin=compressed(capture.read_bytes()))
        assert done.returncode == 0, done.stderr
        assert len(lines_of(done.stdout)) == 3

    def test_files_are_read_in_order_as_one_capture(self, write: Write) -> None:
        """A flow goes on in the next file, of another format."""
        frames = download(CLIENT, SERVER)
        done = replay(write(pcap(frames[:5]), "1"), write(pcapng(frames[5:]), "2"))
        (line,) = lines_of(done.stdout)
        assert get(line, "cumulative_traffic.packets") == 9

    def test_an_empty_capture_has_no_lines(self, write: Write) -> None:
        """And is no error."""
        done = replay(write(pcap([])))
        assert (done.returncode, done.stdout) == (0, b"")
        assert b"balanced: yes" in done.stderr


def _records(made: int, *, notes: int, rendered: int, no_line: int) -> dict[str, Any]:
    """L3 of a replay that handed over all it made, without a handler that omits."""
    omitted = {"no_line": no_line, "handler": 0}
    return {"made": made, "handed": made, "notes": notes, "rendered": rendered, "omitted": omitted}


class TestBooks:
    """The summary on stderr, and --ledger."""

    def test_the_ledger_has_every_term(self, capture: Path, tmp_path: Path) -> None:
        """L1, L2, L3: frames, packets, flows and records, each with its terms; they add up."""
        books = self._books(capture, tmp_path)
        packets, flows, records = books["packets"], books["flows"], books["records"]
        assert books["balanced"] is True
        assert (packets["frames"], packets["not_ip"]) == (21, {"not_ip": 1})
        sides = [packets["from_peer"], packets["to_peer"]]
        assert sum(side["received"] for side in sides) == 20
        for side in sides:
            assert side["received"] == side["forwarded"] + side["waiting"] + sum(side["dropped"].values())
        assert (flows["opened"], flows["live"]) == (2, 0)
        for side in (flows["from_peer"], flows["to_peer"]):
            terms = [side[name] for name in ("ended", "live", "icmp_errors", "pending_fragments")]
            for unit in (0, 1):
                rest = sum(tally[unit] for tally in side["untracked"].values())
                assert side["forwarded"][unit] == sum(term[unit] for term in terms) + rest
        assert records == _records(3, notes=0, rendered=3, no_line=0)

    def test_records_without_a_line_are_accounted_for(self, capture: Path, write: Write, tmp_path: Path) -> None:
        """L3: with a handler of updates, open records are made that zeek has no line for."""
        handler = write("import fzgw\nclass H(fzgw.FlowHandler):\n    def on_update(self, flow): pass\n", "h.py")
        books = self._books(capture, tmp_path, "--format", "zeek", "--handler", f"{handler}:H")
        assert books["records"] == _records(3, notes=0, rendered=2, no_line=1)
        assert books["balanced"] is True
        books = self._books(capture, tmp_path, "--format", "zeek")
        assert books["records"] == _records(2, notes=0, rendered=2, no_line=0)

    def test_a_note_is_a_line_in_ocsf(self, write: Write, tmp_path: Path) -> None:
        """R16: a capture whose clock was stepped back says so, and balances."""
        path = write(pcap([(at, udp("10.0.0.1:1", "10.0.0.2:2")) for at in (3600.0, 3601.0, 5.0, 6.0, 7.0)]))
        books = self._books(path, tmp_path)
        assert books["records"] == _records(1, notes=1, rendered=2, no_line=0)
        assert books["balanced"] is True

    def test_the_summary_is_short(self, capture: Path) -> None:
        """Four lines on stderr for a human, what was left out by its reason."""
        assert replay(capture).stderr.decode().splitlines() == [
            "packets:  21 read, 20 of them (1,708 bytes) passed on; apart from them 1 not_ip",
            "flows:    2 of 20 packets",
            "records:  3 made, 3 rendered",
            "balanced: yes",
        ]

    def _books(self, capture: Path, folder: Path, *arguments: object) -> dict[str, Any]:
        done = replay(capture, *arguments, "--ledger", folder / "books.json")
        assert done.returncode == 0, done.stderr
        books: dict[str, Any] = json.loads((folder / "books.json").read_text())
        return books


class TestFaults:
    """Exit codes, one clear line, and what came before."""

    def test_a_file_that_ends_too_early(self, write: Write, tmp_path: Path) -> None:
        """What came before is told and balances; the offset is named; files after it are not read; exit 1."""
        path = write(pcap(download(CLIENT, SERVER))[:-7])
        after = write(pcap([(5.0, udp("10.0.0.1:1", "10.0.0.2:2"))]), "after.pcap")
        done = replay(path, after, "--ledger", tmp_path / "books.json")
        assert done.returncode == 1
        (line,) = lines_of(done.stdout)
        assert get(line, "cumulative_traffic.packets") == 8
        last = done.stderr.decode().splitlines()[-1]
        offset = len(pcap(download(CLIENT, SERVER)[:-1]))
        assert last.startswith(f"error: {path}: truncated at offset {offset}:")
        assert json.loads((tmp_path / "books.json").read_text())["balanced"] is True

    @pytest.mark.parametrize("content", [b"", b"\x7fELF", b"no capture at all" * 100])
    def test_what_is_no_capture(self, write: Write, content: bytes) -> None:
        """One line that names it, exit 1."""
        path = write(content)
        done = replay(path)
        assert (done.returncode, done.stdout) == (1, b"")
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith(f"error: {path}: ")

    def test_a_missing_file_is_found_before_anything_is_written(self, capture: Path, tmp_path: Path) -> None:
        """Also when it is the second one."""
        done = replay(capture, tmp_path / "nowhere.pcap", "--output", tmp_path / "out", "--ledger", tmp_path / "books")
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.decode() == f"error: {tmp_path / 'nowhere.pcap'}: No such file or directory\n"
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "books").exists()

    @pytest.mark.parametrize("option", ["--output", "--ledger"])
    def test_a_capture_is_not_overwritten(self, capture: Path, option: str) -> None:
        """Its own name as the output is a usage error, and it stays as it is."""
        before = capture.read_bytes()
        done = replay(capture, option, capture.parent / "." / capture.name)
        assert done.returncode == 2
        assert b"is the capture itself" in done.stderr
        assert capture.read_bytes() == before

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            ([], 2, "Missing argument 'FILE...'"),
            (["-", "-"], 2, "standard input (-) can be read once"),
            (["some.pcap", "--format", "xml"], 2, "'xml' is not one of"),
            (
                ["some.pcap", "--set", "flow_logs.idle.tpc=1s"],
                3,
                'flow_logs.idle.tpc: is not known; did you mean "tcp"',
            ),
            (["some.pcap", "--set", "flow_log.idle.tcp=1s"], 3, 'is not known; did you mean "flow_logs"?'),
            (["some.pcap", "--set", "nat.mode=none"], 3, "nat.mode: needs a configuration"),
            (["some.pcap", "--config", "nowhere.toml"], 3, "nowhere.toml: there is no such file"),
            (["some.pcap", "--handler", "nowhere.py:h"], 3, "nowhere.py is missing"),
            (["some.pcap", "--handler", "h.py:h"], 3, "h.py:1: ZeroDivisionError"),
        ],
    )
    def test_what_is_asked_wrongly(
        self, capture: Path, write: Write, arguments: list[str], code: int, message: str
    ) -> None:
        """Usage is 2, configuration and handlers are 3, with the nearest name; nothing is written, no traceback."""
        write("1 / 0\n", "h.py")
        done = replay(*arguments, cwd=capture.parent)
        assert (done.returncode, done.stdout) == (code, b"")
        assert message in done.stderr.decode()
        assert b"Traceback" not in done.stderr

    def test_a_reader_that_has_gone(self, capture: Path) -> None:
        """stdout closed by its reader, as `head` does: exit code 1 and nothing on stderr."""
        reader, writer = os.pipe()
        os.close(reader)
        try:
            command = [sys.executable, "-m", "fzgw", "replay", str(capture)]
            done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
        finally:
            os.close(writer)
        assert (done.returncode, done.stderr) == (1, b"")

    @pytest.mark.parametrize("with_handler", [False, True])
    def test_ctrl_c_ends_it(self, write: Write, with_handler: bool) -> None:
        """Exit code 130, at once and without a traceback, while it waits for its input or is in a handler."""
        handler = write("import sys, time\ndef h(flow):\n    print('called', flush=True)\n    time.sleep(60)\n", "h.py")
        options = ["--handler", f"{handler}:h"] if with_handler else []
        command = [sys.executable, "-m", "fzgw", "replay", "-", *options]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Tests that run in the background of a shell have inherited that nobody listens to Ctrl-C.
            preexec_fn=_listen_to_ctrl_c,
        )
        with process:
            assert process.stdin is not None
            assert process.stderr is not None
            # Five flows, each ended by the silence before the next: no pipe fills up with so little.
            process.stdin.write(pcap([(at * 300.0, udp("10.0.0.1:1", "10.0.0.2:2")) for at in range(5)]))
            process.stdin.flush()
            if with_handler:
                assert select.select([process.stderr], [], [], 30)[0], "the handler was never called"
                assert os.read(process.stderr.fileno(), 6) == b"called"
            else:
                assert process.stdout is not None
                assert select.select([process.stdout], [], [], 30)[0], "no flow was ever told"
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert time.monotonic() - began < 5
            assert b"Traceback" not in process.stderr.read()


class TestSettings:
    """Limits and peers."""

    def test_set_changes_the_idle_limit(self, write: Write) -> None:
        """R17: a silence of 100 s is one flow by default and two with a limit of 60 s."""
        path = write(pcap([(at, udp("10.0.0.1:1", "10.0.0.2:2")) for at in (0, 100)]))
        for options, flows in (([], 1), (["--set", "flow_logs.idle.udp=60s"], 2)):
            lines = lines_of(replay(path, *options).stdout)
            assert [get(line, "unmapped.activity") for line in lines].count("close") == flows

    def test_with_a_configuration_peers_have_names(self, write: Write, tmp_path: Path) -> None:
        """R2: the peer is found by its allowed IPs on either side; both directions of its flow are its own."""
        write_config(tmp_path, GATEWAY + peer_table("laptop", "100.64.0.2/32", more='user = "alice"\n'))
        frames = [*download(CLIENT, SERVER), (1.0, udp("192.0.2.9:53", "100.64.0.2:99"))]
        done = replay(write(pcap(frames)), "--config", tmp_path / "gateway.toml", "--set", "gateway.name=lab")
        assert done.returncode == 0, done.stderr
        outbound, inbound = [validate(line) for line in done.stdout.splitlines()]
        assert get(outbound, "connection_info.direction") == "Outbound"
        assert (get(outbound, "src_endpoint.name"), get(outbound, "src_endpoint.owner.name")) == ("laptop", "alice")
        assert (get(outbound, "traffic.packets_out"), get(outbound, "traffic.packets_in")) == (5, 4)
        assert get(inbound, "connection_info.direction") == "Inbound"
        assert (get(inbound, "dst_endpoint.name"), get(inbound, "traffic.packets_out")) == ("laptop", 1)
        assert {get(line, "network_observation_point.name") for line in (outbound, inbound)} == {"lab"}

    def test_without_one_nobody_is_named(self, capture: Path) -> None:
        """Either side may open a flow, and no direction is claimed."""
        lines = lines_of(replay(capture).stdout)
        assert {get(line, "connection_info.direction") for line in lines} == {"Unknown"}


class TestHandlers:
    """The same handlers as live."""

    HANDLERS = (
        "import fzgw\n"
        "class Tells(fzgw.FlowHandler):\n"
        "    def on_open(self, flow): print('on_open', flow.number, flow.protocol)\n"
        "    def on_update(self, flow): print('on_update', flow.number, flow.packets_out, flow.delta.packets_out)\n"
        "    def on_close(self, flow): print('on_close', flow.number, flow.packets_out, flow.end_reason)\n"
        "class Notes(fzgw.FlowHandler):\n"
        "    def on_open(self, flow): return fzgw.annotate(flow, port=flow.dst_port, note='an \"open\" one')\n"
        "    def on_close(self, flow): return fzgw.omit(flow) if flow.dst_port == 2 else None\n"
        "def fails(flow):\n"
        "    raise ValueError(flow.dst_port)\n"
    )

    def test_hooks_see_what_they_define(self, write: Write) -> None:
        """R18, R19: on_open as a flow opens, on_update and on_close with their records; prints go to stderr."""
        path = write(pcap([(at, udp("10.0.0.1:1", "10.0.0.2:2")) for at in range(150)]))
        handlers = write(self.HANDLERS, "h.py")
        done = replay(path, "--handler", f"{handlers}:Tells", "--format", "zeek")
        assert done.returncode == 0, done.stderr
        assert len(lines_of(done.stdout)) == 1
        told = [line.split() for line in done.stderr.decode().splitlines() if line.startswith("on_")]
        assert told[0] == ["on_open", "0", "17"]
        assert [name for name, *_ in told[1:]] in (["on_update"] * 2 + ["on_close"], ["on_update"] * 3 + ["on_close"])
        # The first update is the flow's second record: the open record is told to nobody.
        assert [int(number) for _, number, *_ in told[1:]] == list(range(2, len(told) + 1))
        assert told[-1] == ["on_close", str(len(told)), "150", "capture_end"]

    def test_the_handlers_of_the_configuration_run_too(self, capture: Path, write: Write, tmp_path: Path) -> None:
        """Relative to its file; those of the command line come after them."""
        write(self.HANDLERS, "h.py")
        handlers = '[[handlers]]\nload = "h.py:Tells"\n'
        config = write_config(tmp_path, GATEWAY + handlers + peer_table("laptop", "100.64.0.2/32"))
        done = replay(capture, "--config", config)
        assert done.returncode == 0, done.stderr
        assert "on_close 1 5 fin" in done.stderr.decode().splitlines()

    def test_an_error_is_on_its_record(self, capture: Path, write: Write) -> None:
        """A handler that raises costs no line: it goes out with handler_error, the open record without."""
        handlers = write(self.HANDLERS, "h.py")
        done = replay(capture, "--handler", f"{handlers}:fails")
        assert done.returncode == 0, done.stderr
        records = [validate(line) for line in done.stdout.splitlines()]
        errors = [record["unmapped"].get("handler_error") for record in records]
        assert errors == ["fails: ValueError: 80", None, "fails: ValueError: 2"]

    @pytest.mark.parametrize(
        ("form", "place"),
        [("ocsf", ("unmapped", "annotations")), ("ecs", ("fzgw", "annotations")), ("zeek", ("fzgw_annotations",))],
    )
    def test_annotations_are_in_every_format(
        self, capture: Path, write: Write, tmp_path: Path, form: str, place: tuple[str, ...]
    ) -> None:
        """L3: what a handler noted as the flow opened is on its records; what it omits is in the books."""
        handlers = write(self.HANDLERS, "h.py")
        ledger = tmp_path / "ledger.json"
        done = replay(capture, "--format", form, "--handler", f"{handlers}:Notes", "--ledger", ledger)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found = []
        for line in lines:
            value = line
            for name in place:
                value = value[name]
            found.append(value)
        assert {"port": 80, "note": 'an "open" one'} in found
        records = json.loads(ledger.read_text())["records"]
        assert records["omitted"]["handler"] == 1
        assert records["handed"] == records["rendered"] + sum(records["omitted"].values())
        if form == "ocsf":
            for line in done.stdout.splitlines():
                validate(line)


class TestTerminal:
    """What is for eyes alone."""

    @pytest.fixture
    def terminal(self) -> Iterator[tuple[int, int]]:
        """Both ends of a terminal."""
        ours, theirs = pty.openpty()
        yield ours, theirs
        os.close(ours)

    def test_a_long_run_has_a_progress_bar_on_a_terminal(
        self, write: Write, terminal: tuple[int, int], tmp_path: Path
    ) -> None:
        """On stderr, with packets and flows, while lines go to a file; a pipe on stderr gets none."""
        slow = write("import time\ndef h(flow): time.sleep(0.01)\n", "h.py")
        path = write(pcap([(at, udp("10.0.0.1:1", f"10.0.0.{at % 150}:2")) for at in range(150)]))
        arguments = [path, "--handler", f"{slow}:h", "--set", "flow_logs.idle.udp=1s", "--output", tmp_path / "out"]
        ours, theirs = terminal
        command = [sys.executable, "-m", "fzgw", "replay", *map(str, arguments)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            try:
                while chunk := os.read(ours, 65536):
                    shown += chunk
            except OSError:
                """Linux says so when the other end is closed."""
            assert process.wait(60) == 0
        assert b"packets/s" in shown
        assert b"balanced: yes" in shown
        assert b"packets/s" not in replay(*arguments).stderr

    def test_a_short_run_loads_little(self, capture: Path) -> None:
        """A small capture is read before pydantic, rich or structlog would have been imported."""
        code = (
            "import sys; from fzgw.cli import main\n"
            "try: main(['replay', sys.argv[1], '--output', '/dev/null'])\n"
            "except SystemExit as end: assert end.code == 0\n"
            "heavy = {'pydantic', 'rich', 'structlog', 'fzgw.config', 'fzgw.handlers', 'json'}\n"
            "print(sorted(heavy & set(sys.modules)))\n"
        )
        command = [sys.executable, "-c", code, str(capture)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "[]\n"


def tuple_of(end: str) -> tuple[str, int]:
    """Address and port of ``10.0.0.1:53``."""
    address, _, port = end.rpartition(":")
    return address, int(port)
