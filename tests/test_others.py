"""`benches/flows/others.py`: fzgw against tshark, on captures made here."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from captures import ACK, ETHERNET, SYN, arp, download, ethernet, pcap, tcp, udp, unreachable

BENCH = Path(__file__).parent.parent / "benches" / "flows"
CLIENT, SERVER = "100.64.0.2:4000", "192.0.2.1:80"

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, without argus: it is not on every machine."""
    monkeypatch.syspath_prepend(BENCH)
    import others
    from comparison import by_argus
    from comparison.counts import NotReadError

    def none(capture: Path) -> None:
        raise NotReadError("not asked")

    monkeypatch.setattr(by_argus, "read", none)
    module: ModuleType = others
    return module


def report(others: ModuleType, path: Path, frames: Iterable[tuple[float, bytes]], snaplen: int = 65535) -> list[str]:
    """What the program says of these frames."""
    path.write_bytes(pcap([(at, ethernet(packet)) for at, packet in frames], ETHERNET, snaplen=snaplen))
    capture = others.Capture(path)
    capture.run()
    return list(capture.report(verbose=True))


def row(lines: list[str], name: str) -> str:
    """The line of one table, with single spaces."""
    return next(" ".join(line.split()) for line in lines if line.split()[0] == name)


def piece(packet: bytes, identification: int, offset: int, more: bool, body: bytes) -> bytes:
    """A fragment of an IPv4 packet: its header with other fields, and this much of its body."""
    fields = struct.pack(">HHH", 20 + len(body), identification, offset // 8 | (0x2000 if more else 0))
    return packet[:2] + fields + packet[8:20] + body


def test_equal(others: ModuleType, tmp_path: Path) -> None:
    """A TCP and a UDP conversation are equal everywhere, whole and cut by the snaplen (R20)."""
    frames = [*download(CLIENT, SERVER), (1.0, udp("[fd00::1]:1", "[fd00::2]:53", b"q")), (1.1, udp(SERVER, CLIENT))]
    for snaplen in (65535, 96):
        lines = report(others, tmp_path / "some.pcap", frames, snaplen)
        assert row(lines, "tshark") == "tshark 3 compared 3 equal 0 explained 0 unexplained"
        assert row(lines, "conv,tcp") == "conv,tcp 1 compared 1 equal 0 explained 0 unexplained"
        assert row(lines, "conv,ip") == "conv,ip 1 compared 1 equal 0 explained 0 unexplained"
        assert row(lines, "conv,ipv6") == "conv,ipv6 1 compared 1 equal 0 explained 0 unexplained"


def test_differences_have_their_rule(others: ModuleType, tmp_path: Path) -> None:
    """R6, R13, R15: strays, ICMP errors and later fragments are explained, and by nothing but these."""
    whole = udp("10.0.0.1:5", "10.0.0.2:6", b"x" * 32)
    question = udp("10.0.0.3:7", "10.0.0.4:8", b"?")
    lines = report(
        others,
        tmp_path / "some.pcap",
        [
            *download(CLIENT, SERVER),
            (5.0, tcp(CLIENT, SERVER, ACK, seq=142)),
            # The second piece comes before the first.
            (6.0, piece(whole, 9, 24, False, whole[44:])),
            (6.1, piece(whole, 9, 0, True, whole[20:44])),
            (7.0, question),
            (7.1, unreachable("10.0.0.4", "10.0.0.3", question)),
        ],
    )
    assert row(lines, "ledger") == "ledger 3 compared 3 equal 0 explained 0 unexplained"
    assert row(lines, "tshark") == (
        "tshark 5 compared 1 equal 4 explained 0 unexplained,"
        " R13 ICMP error of a flow (1), R15 later fragment (2), R6 stray segment (1)"
    )
    assert row(lines, "conv,ip").startswith("conv,ip 3 compared 1 equal 2 explained 0 unexplained, R13")


def test_a_wrong_count_is_found(others: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte too many in fzgw's records is not explained, also where a rule has a part in the row."""
    right = others.flows

    def wrong(capture: Path) -> object:
        totals = right(capture)
        next(iter(totals.values()))[0].add(0, 1)
        return totals

    monkeypatch.setattr(others, "flows", wrong)
    for late in ([], [(5.0, tcp(CLIENT, SERVER, ACK, seq=142))]):
        lines = report(others, tmp_path / "some.pcap", [*download(CLIENT, SERVER), *late])
        assert row(lines, "tshark").startswith("tshark 1 compared 0 equal 0 explained 1 unexplained")
        assert row(lines, "conv,tcp").startswith("conv,tcp 1 compared 0 equal 0 explained 1 unexplained")


def test_what_is_not_ip(others: ModuleType, tmp_path: Path) -> None:
    """Frames without IP are in nobody's conversations, and in the ledger."""
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap([(0.0, arp()), (0.1, ethernet(tcp(CLIENT, SERVER, SYN)))], ETHERNET))
    capture = others.Capture(path)
    capture.run()
    assert capture.unexplained() == 0
    assert next(capture.report(verbose=False)).endswith("2 frames, 1 not_ip")
