"""`fzgw demo`: its parts without privilege, and whole runs of it as root and as an ordinary user.

Whole runs are processes of their own, with a folder for temporary files that must be empty again afterwards.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

import fzgw
from fzgw.cli import main
from fzgw.demo import checks, ledgers, plan, privilege, server, traffic, view
from fzgw.demo.errors import DemoError
from fzgw.demo.records import FlowRow, parse
from fzgw.demo.traffic import ExpectedFlow
from fzgw.host.nat import find_nft
from ocsf import validate

UPLOAD = FlowRow(
    activity="close",
    peer="laptop",
    user="alice",
    protocol=6,
    protocol_name="tcp",
    src_ip=plan.LAPTOP.tunnel,
    src_port=40000,
    dst_ip=plan.SERVER,
    dst_port=plan.UPLOAD_PORT,
    domain=plan.SERVER_DOMAIN,
    verdict="allow",
    rule="everybody",
    bytes_out=1200,
    bytes_in=300,
    packets_out=4,
    packets_in=3,
    payload_out=1000,
    payload_in=8,
    attempts=0,
    duration=0.25,
    paths=("192.0.2.2:33000",),
    end_reason="fin",
)
DENIED = replace(
    UPLOAD,
    src_ip="",
    src_port=0,
    dst_port=plan.DENIED_PORT,
    domain="",
    verdict="deny",
    rule="default-deny",
    bytes_out=0,
    bytes_in=0,
    packets_out=0,
    packets_in=0,
    payload_out=0,
    payload_in=0,
    attempts=2,
    paths=(),
    end_reason="shutdown",
)
EXPECTED_UPLOAD = ExpectedFlow("upload", plan.LAPTOP, 6, 40000, plan.UPLOAD_PORT, payload_out=1000)
EXPECTED_DENIED = ExpectedFlow("denied", plan.LAPTOP, 6, 0, plan.DENIED_PORT, verdict="deny")


def stats() -> dict[str, Any]:
    """The counters of a gateway that has passed on `UPLOAD` and refused `DENIED`."""
    return {
        "packets": {
            "from_peer": {"received": 6, "forwarded": 4, "waiting": 0, "dropped": {"denied": 2, "spoofed": 0}},
            "to_peer": {"received": 3, "forwarded": 3, "waiting": 0, "dropped": {"denied": 0, "spoofed": 0}},
        },
        "bytes": {"from_peer": {"forwarded": 1200}, "to_peer": {"forwarded": 300}},
        "flows": {
            "from_peer": {
                "live": [0, 0],
                "icmp_errors": [0, 0],
                "pending_fragments": [0, 0],
                "untracked": {"stray": [0, 0]},
            },
            "to_peer": {
                "live": [0, 0],
                "icmp_errors": [0, 0],
                "pending_fragments": [0, 0],
                "untracked": {"stray": [0, 0]},
            },
        },
        "records": {"made": 2, "handed": 2, "lost": 0},
        "sinks": {"stdout": {"rendered": 2, "delivered": 2, "waiting": 0, "refused": 0}},
    }


class TestLedgers:
    """The equations at the end."""

    def test_the_books_of_a_good_run_balance(self) -> None:
        """L1, L2 in packets and bytes, both per direction, L2b, L3 and one L3 a sink."""
        equations = ledgers.equations(stats(), [UPLOAD, DENIED])
        assert [equation.name for equation in equations] == [
            *("L1 from peers", "L1 to peers"),
            *("L2 from peers", "L2 from peers", "L2 to peers", "L2 to peers"),
            *("L2b", "L3", "L3 stdout"),
        ]
        assert all(equation.balanced for equation in equations)
        assert str(equations[0]) == ("L1 from peers, packets: 6 received = 4 forwarded + 2 dropped (denied) (balanced)")

    def test_a_record_that_is_not_there_unbalances_them(self) -> None:
        """L2 is proven with the close records themselves, not with the gateway's sum of them."""
        wrong = [str(equation) for equation in ledgers.equations(stats(), [DENIED]) if not equation.balanced]
        assert len(wrong) == 4
        assert wrong[0] == "L2 from peers, packets: 4 forwarded = 0 (NOT BALANCED)"

    def test_counters_of_another_program_are_told(self) -> None:
        """The missing counter is named."""
        with pytest.raises(DemoError, match="the gateway's counters lack 'packets'"):
            ledgers.equations({}, [])


class TestChecks:
    """What the demo says when the records are not what its clients did."""

    def test_records_that_say_what_the_clients_did_pass(self) -> None:
        """Open records beside them do not matter."""
        opened = replace(UPLOAD, activity="open", payload_out=0)
        checks.check(
            [EXPECTED_UPLOAD, EXPECTED_DENIED], [opened, UPLOAD, DENIED], ledgers.equations(stats(), [UPLOAD, DENIED])
        )

    @pytest.mark.parametrize(
        ("rows", "problem"),
        [
            ([], "upload: no close record of laptop to 203.0.113.10:8001"),
            ([replace(UPLOAD, peer="phone")], "upload: no close record of laptop to 203.0.113.10:8001"),
            ([UPLOAD, UPLOAD], "upload: 2 close records instead of one"),
            ([replace(UPLOAD, verdict="deny")], "upload: verdict is deny, not allow"),
            ([replace(UPLOAD, payload_out=999)], "upload: payload_out is 999, less than the 1000 that the client sent"),
            (
                [replace(UPLOAD, paths=("192.0.2.2:1", "192.0.2.3:1"))],
                "upload: outer paths are 192.0.2.2, 192.0.2.3, not 192.0.2.2",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, rows: Sequence[FlowRow], problem: str) -> None:
        """One line for each expected flow that is missing or told wrongly."""
        with pytest.raises(DemoError) as caught:
            checks.check([EXPECTED_UPLOAD], rows, [])
        assert str(caught.value).splitlines()[1:] == [problem]

    def test_a_denied_flow_that_let_packets_through_is_named(self) -> None:
        """R23: attempts alone."""
        with pytest.raises(DemoError, match="denied: 2 attempts and 1 forwarded packets"):
            checks.check([EXPECTED_DENIED], [replace(DENIED, packets_out=1)], [])

    def test_a_roaming_flow_needs_both_paths(self) -> None:
        """Scenario 18: the second path is part of what is expected."""
        expected = replace(EXPECTED_UPLOAD, client=plan.PHONE, roamed=True)
        row = replace(UPLOAD, peer="phone", src_ip=plan.PHONE.tunnel, paths=("198.51.100.2:1", "198.51.100.77:1"))
        checks.check([expected], [row], [])
        with pytest.raises(DemoError, match=r"outer paths are 198\.51\.100\.2, not 198\.51\.100\.2, 198\.51\.100\.77"):
            checks.check([expected], [replace(row, paths=row.paths[:1])], [])

    def test_books_that_do_not_balance_are_named(self) -> None:
        """The whole equation is in the message."""
        with pytest.raises(DemoError, match=r"a ledger does not balance: L2 from peers, packets: 4 forwarded = 0"):
            checks.check([], [], ledgers.equations(stats(), []))


class TestRecords:
    """The gateway's lines as rows."""

    def test_an_echo_has_its_identifier_for_a_port(self) -> None:
        """R1, R12: the OCSF line keeps the identifier among what OCSF does not know."""
        row = parse(json.dumps(ocsf_line(protocol=1, icmp={"type": 8, "code": 0, "identifier": 77})).encode())
        assert row is not None
        assert (row.peer, row.user, row.protocol_name) == ("laptop", "alice", "icmp")
        assert (row.src_port, row.dst_port) == (77, 0)
        assert row.paths == ("192.0.2.2:33000",)
        assert row.duration == 1.5

    def test_the_peer_of_an_inbound_flow_is_its_responder(self) -> None:
        """Scenario 25."""
        line = ocsf_line(protocol=6, direction="Inbound")
        line["src_endpoint"], line["dst_endpoint"] = line["dst_endpoint"], line["src_endpoint"]
        row = parse(json.dumps(line).encode())
        assert row is not None
        assert row.peer == "laptop"

    def test_what_is_no_flow_is_none(self) -> None:
        """Gaps and notes are OCSF Base Events."""
        assert parse(b'{"class_uid": 0}') is None


def ocsf_line(*, protocol: int, direction: str = "Outbound", icmp: dict[str, int] | None = None) -> dict[str, Any]:
    """The fields of a close record that the demo reads."""
    return {
        "class_uid": 4001,
        "status_code": "idle",
        "src_endpoint": {"ip": "100.64.0.2", "name": "laptop", "owner": {"name": "alice"}},
        "dst_endpoint": {"ip": "203.0.113.10"},
        "action": "Allowed",
        "connection_info": {
            "direction": direction,
            "protocol_num": protocol,
            "protocol_name": {1: "icmp", 6: "tcp"}[protocol],
        },
        "cumulative_traffic": {"bytes_out": 84, "bytes_in": 84, "packets_out": 1, "packets_in": 1},
        "unmapped": {
            "activity": "close",
            "start_ns": 1_700_000_000_123_456_789,
            "end_ns": 1_700_000_001_623_456_789,
            "payload_out": 0,
            "payload_in": 0,
            "paths": [{"remote": "192.0.2.2:33000"}],
            **({} if icmp is None else {"icmp": icmp}),
        },
    }


class TestViews:
    """Records on stdout, everything else on stderr."""

    def test_json_lines_are_the_gateways_own(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        """Byte for byte; steps and ledgers do not come between them."""
        shown = view.choose(as_json=True)
        shown.step("a step")
        shown.record(b'{"class_uid": 0}\n', None)
        shown.ledgers(ledgers.equations(stats(), [UPLOAD, DENIED]))
        out, err = capfdbinary.readouterr()
        assert out == b'{"class_uid": 0}\n'
        assert err.startswith(b"a step\nL1 from peers")

    def test_without_a_terminal_there_are_rows_of_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A heading, one row for each flow that ended, then the books."""
        shown = view.choose(as_json=False)
        shown.record(b"", None)
        shown.record(b"", replace(UPLOAD, activity="open"))
        shown.record(b"", UPLOAD)
        shown.record(b"", DENIED)
        heading, *rows = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
        assert heading == "peer user flow verdict rule out in seconds from end"
        assert rows == [
            "laptop alice tcp 100.64.0.2:40000 → files.example:8001 allow everybody 1.2 KiB 300 B 0.250 192.0.2.2 fin",
            "laptop alice tcp 203.0.113.10:22 deny default-deny 2 tried 0.250 shutdown",
        ]

    @pytest.mark.parametrize(
        ("width", "flow"),
        [(80, "tcp files.example:8001 allow"), (145, "tcp 100.64.0.2:40000 → files.example:8001 allow")],
    )
    def test_the_table_fits_its_terminal(self, width: int, flow: str) -> None:
        """On 80 characters too, no cell is cut or folded."""
        output = io.StringIO()
        console = Console(file=output, width=width, force_terminal=True, color_system=None)
        roamed = replace(
            UPLOAD, peer="phone", paths=("198.51.100.2:1", "198.51.100.77:1"), bytes_out=1023 * 1024, src_port=65535
        )
        with view.TableView(console) as shown:
            shown.step("a step")
            for row in (UPLOAD, roamed, DENIED):
                shown.record(b"", row)
            shown.ledgers(ledgers.equations(stats(), [UPLOAD, DENIED]))
        text = output.getvalue()
        for cell in (flow, "203.0.113.10:22", "1023.0 KiB", "2 tried", "198.51.100.77", "shutdown"):
            assert cell in text
        assert "…" not in text.rpartition("Flows, as they close")[2]
        assert "6 received = 4 forwarded + 2 dropped (denied) balanced" in text

    def test_bytes_are_shown_in_fitting_units(self) -> None:
        """B, KiB and MiB."""
        shown = {1023: "1023 B", 1024: "1.0 KiB", 1024**2: "1.00 MiB"}
        assert {count: view._bytes(count) for count in shown} == shown


class TestServer:
    """The small protocols that the demo speaks itself."""

    def test_a_dns_answer_answers_its_question(self) -> None:
        """RFC 1035: same identifier, the question repeated, one address."""
        question = server.dns_question(0x1234, "files.example")
        answer = server.dns_answer(question, "203.0.113.10")
        assert server.dns_address(answer, 0x1234) == "203.0.113.10"
        assert question[12:] in answer
        with pytest.raises(ValueError, match="not the answer"):
            server.dns_address(answer, 0x1235)

    def test_an_echo_request_has_a_right_checksum(self) -> None:
        """RFC 792: the sum over all, checksum included, is all ones."""
        packet = traffic.echo_request(0xBEEF, 3)
        assert len(packet) == 64
        assert traffic._internet_checksum(packet) == 0


class TestRefusals:
    """What the demo says where it cannot run."""

    def test_without_nft_the_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Exit code 1."""
        monkeypatch.setattr(privilege, "find_nft", lambda: None)
        result = CliRunner().invoke(main, ["demo"])
        assert result.exit_code == 1
        assert "package nftables" in result.stderr

    def test_a_tun_device_that_may_not_be_opened(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Exit code 4 with the two ways out, one for root and one without."""
        monkeypatch.setattr(privilege, "find_nft", lambda: "/usr/sbin/nft")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(privilege, "TUN_DEVICE", tmp_path / "tun")
        result = CliRunner().invoke(main, ["demo", "--json"])
        assert result.exit_code == 4
        assert f"sudo {sys.executable} -m fzgw demo --json" in result.stderr
        assert f"sudo chmod 0666 {tmp_path / 'tun'}" in result.stderr

    def test_root_without_a_tun_device(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Root lacks no privilege: exit code 1, and where the device comes from."""
        monkeypatch.setattr(privilege, "find_nft", lambda: "/usr/sbin/nft")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(privilege, "TUN_DEVICE", tmp_path / "tun")
        result = CliRunner().invoke(main, ["demo"])
        assert result.exit_code == 1
        assert "modprobe tun" in result.stderr

    def test_no_namespaces_at_all(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """As in a container without privilege: exit code 4 with the two ways out."""

        def refuse(flags: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        (tmp_path / "tun").touch()
        monkeypatch.setattr(privilege, "find_nft", lambda: "/usr/sbin/nft")
        monkeypatch.setattr(privilege, "TUN_DEVICE", tmp_path / "tun")
        monkeypatch.setattr(privilege, "unshare", refuse)
        result = CliRunner().invoke(main, ["demo"])
        assert result.exit_code == 4
        assert "sudo" in result.stderr
        assert "unprivileged_userns" in result.stderr


COMMAND = ("-m", "fzgw", "demo")
LONGEST = 30.0
"""Seconds that a whole run may take."""


@dataclass(frozen=True)
class Run:
    """A whole run that has ended."""

    exit_code: int
    out: str
    err: str
    seconds: float


@pytest.fixture
def temporary(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder for the temporary files of whole runs, for any user; empty again after each."""
    # Not tmp_path: pytest's folders are for their owner alone.
    folder = Path(os.environ.get("TMPDIR", "/tmp"), f"fzgw-test-{os.getpid()}-{time.monotonic_ns()}")
    folder.mkdir()
    folder.chmod(0o777)
    try:
        yield folder
        assert list(folder.iterdir()) == [], "the demo left files behind"
        assert processes_of(folder) == [], "the demo left processes behind"
        assert "to-server" not in {name for _, name in socket.if_nameindex()}, "the demo left a device behind"
    finally:
        shutil.rmtree(folder)


def processes_of(folder: Path) -> list[str]:
    """Command lines of running processes that name a folder, as the gateway's does."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            line = ""
        if str(folder) in line:
            lines.append(line)
    return lines


def start(argv: Sequence[str], temporary: Path, **environment: str) -> subprocess.Popen[str]:
    """A demo as a process with its own temporary folder."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), **environment},
    )


def run(argv: Sequence[str], temporary: Path, **environment: str) -> Run:
    """A whole run, ended with the test when it takes three times as long as it may."""
    before = time.monotonic()
    process = start(argv, temporary, **environment)
    try:
        out, err = process.communicate(timeout=3 * LONGEST)
    finally:
        process.kill()
    return Run(process.returncode, out, err, time.monotonic() - before)


def assert_shows_everything(done: Run) -> None:
    """A run with `--json` that went as it should."""
    assert done.exit_code == 0, done.err
    assert done.seconds < LONGEST
    lines = [validate(line.encode()) for line in done.out.splitlines()]
    flows = [
        row for line in done.out.splitlines() if (row := parse(line.encode())) is not None and row.activity == "close"
    ]
    assert [line["metadata"]["sequence"] for line in lines] == list(range(1, len(lines) + 1)), "L4: a hole"
    assert sorted(
        (row.peer, row.protocol_name, row.dst_port, row.verdict, len(row.paths))
        for row in flows
        if row.verdict == "allow"
    ) == [
        ("laptop", "icmp", 0, "allow", 1),
        ("laptop", "tcp", plan.UPLOAD_PORT, "allow", 1),
        ("laptop", "tcp", plan.DOWNLOAD_PORT, "allow", 1),
        ("laptop", "udp", plan.DNS_PORT, "allow", 1),
        ("phone", "tcp", plan.UPLOAD_PORT, "allow", 2),
        ("phone", "udp", plan.ECHO_PORT, "allow", 1),
    ]
    [denied] = [row for row in flows if row.verdict == "deny"]
    assert (denied.peer, denied.dst_port, denied.rule) == ("phone", plan.DENIED_PORT, "default-deny")
    assert "NOT BALANCED" not in done.err
    assert done.err.count("(balanced)") == 9


def needs_root() -> None:
    """Skip what only root can do, and what lacks the demo's own needs."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces as root")
    if find_nft() is None:
        pytest.skip("nft is not installed")
    if not privilege.TUN_DEVICE.exists():
        pytest.skip(f"no {privilege.TUN_DEVICE}")


class TestAsRoot:
    """Whole runs as root."""

    @pytest.fixture(autouse=True)
    def _root(self) -> None:
        needs_root()

    def test_json_shows_every_flow_and_balanced_books(self, temporary: Path) -> None:
        """All seven flows with their peers and paths, schema-valid lines, ledgers balanced, within 30 s."""
        assert_shows_everything(run([sys.executable, *COMMAND, "--json"], temporary))

    def test_without_a_terminal_it_prints_rows(self, temporary: Path) -> None:
        """A heading, seven rows, nine equations."""
        done = run([sys.executable, *COMMAND], temporary)
        assert done.exit_code == 0, done.err
        rows, _, books = done.out.partition("\n\n")
        assert len(rows.splitlines()) == 8
        assert len(books.splitlines()) == 9

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_removes_everything(self, temporary: Path, number: signal.Signals) -> None:
        """Ctrl-C in the middle of the traffic; the exit code is the shell's for that signal."""
        process = start([sys.executable, *COMMAND], temporary)
        assert process.stderr is not None
        for line in process.stderr:
            if "downloads" in line:
                break
        before = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=LONGEST)
        assert process.returncode == 128 + number
        assert "removed" in err
        assert time.monotonic() - before < 10

    def test_a_reader_that_leaves_ends_it(self, temporary: Path) -> None:
        """As `fzgw demo --json | head -1` does: exit code 1, no traceback, nothing left behind."""
        process = start([sys.executable, *COMMAND, "--json"], temporary)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait(LONGEST) == 1
        assert "Traceback" not in err

    def test_a_gateway_that_fails_is_quoted(self, temporary: Path, tmp_path: Path) -> None:
        """Exit code 1 with the reason and the end of the gateway's log; nothing left behind."""
        nft = tmp_path / "nft"
        nft.write_text("#!/bin/sh\necho 'nft: a fault of the test' >&2\nexit 1\n")
        nft.chmod(0o755)
        done = run([sys.executable, *COMMAND], temporary, PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert done.exit_code == 1
        assert "the gateway ended at its start with exit code 1" in done.err
        assert "a fault of the test" in done.err


# In a mount namespace of its own: a TUN device node with the mode that the test wants, then an ordinary user. setpriv
# itself starts a program with what root may read; the shell after it may read no more than the user.
_AS_NOBODY = """
mount -t tmpfs -o mode=755 tmpfs "$1"
mknod -m "$2" "$1/tun" c 10 200
mount --bind "$1/tun" /dev/net/tun
shift 2
exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all sh -c 'exec "$@"' sh "$@"
"""


class TestAsAnOrdinaryUser:
    """Whole runs in a user namespace. Root starts them, with a device node of their own."""

    @pytest.fixture(autouse=True)
    def _user(self, temporary: Path) -> None:
        needs_root()
        for tool in ("unshare", "setpriv", "mount", "mknod"):
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} (util-linux, coreutils) is not installed")
        self.temporary = temporary
        modules = (fzgw, pytest, sys.modules["click"])
        folders = [str(Path(module.__file__ or "").parents[1]) for module in modules]
        self.packages = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), *dict.fromkeys(folders)])
        # The user may not reach root's own Python; another one of the same version can run the same packages.
        candidates = (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}")
        for self.python in candidates:
            if self.as_nobody("666", "-c", "import fzgw._core, fzgw.demo.run").exit_code == 0:
                break
        else:
            pytest.skip(f"no Python that an ordinary user may run: {', '.join(candidates)}")
        if self.as_nobody("666", "-c", _MAKE_NAMESPACES).exit_code != 0:
            pytest.skip("this kernel does not let ordinary users make user namespaces")

    def as_nobody(self, tun_mode: str, *arguments: str) -> Run:
        """Python with these arguments as the user nobody, with a TUN node of that mode."""
        node_folder = self.temporary / "node"
        node_folder.mkdir()
        prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _AS_NOBODY, "sh"]
        argv = [*prefix, str(node_folder), tun_mode, self.python, *arguments]
        try:
            return run(argv, self.temporary, PYTHONPATH=self.packages, HOME="/nonexistent")
        finally:
            # The mount on it went with its namespace.
            node_folder.rmdir()

    def test_it_shows_the_same(self) -> None:
        """In a user and network namespace of its own: the same flows and books as for root."""
        assert_shows_everything(self.as_nobody("666", *COMMAND, "--json"))

    def test_a_device_for_root_alone_is_refused_with_the_ways_out(self) -> None:
        """Exit code 4."""
        done = self.as_nobody("600", *COMMAND)
        assert done.exit_code == 4
        assert "Two ways out:" in done.err
        assert "sudo" in done.err
        assert "chmod 0666 /dev/net/tun" in done.err


_MAKE_NAMESPACES = "from fzgw.demo.privilege import require_namespaces; require_namespaces('')"
