"""Compares a replayed capture with the truth of the generator: flows, packets, bytes and directions, exactly.

    python benches/flows/truth.py A.pcap A.truth.csv

A row of the truth is one conversation: its initiator sent `tx`, its responder `rx`. Exit code 1 and the first
differences where anything differs.
"""

from __future__ import annotations

import csv
import ipaddress
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import fzgw

Key = tuple[int, str, int, str, int]
Counts = tuple[int, int, int, int]


def truth(path: str) -> Iterator[tuple[Key, Counts]]:
    """The generator's conversations."""
    with Path(path).open(newline="", encoding="ascii") as file:
        for row in csv.DictReader(file):
            src, dst = (str(ipaddress.ip_address(row[name])) for name in ("src", "dst"))
            counts = (int(row["tx_pkts"]), int(row["tx_bytes"]), int(row["rx_pkts"]), int(row["rx_bytes"]))
            yield (int(row["proto"]), src, int(row["sport"]), dst, int(row["dport"])), counts


def replayed(path: str) -> Iterator[tuple[Key, Counts]]:
    """fzgw's close records. The generator does not tell the identifiers of ICMP."""
    for flow in fzgw.read(path):
        ports = (0, 0) if flow.icmp else (flow.src_port, flow.dst_port)
        counts = (flow.packets_out, flow.bytes_out, flow.packets_in, flow.bytes_in)
        yield (flow.protocol, flow.src_ip, ports[0], flow.dst_ip, ports[1]), counts


def collect(flows: Iterator[tuple[Key, Counts]]) -> tuple[int, dict[Key, tuple[int, ...]]]:
    """How many there are, and the sums and number of each tuple."""
    found: dict[Key, tuple[int, ...]] = {}
    number = 0
    for key, counts in flows:
        number += 1
        before = found.get(key, (0, 0, 0, 0, 0))
        found[key] = tuple(a + b for a, b in zip(before, (*counts, 1), strict=True))
    return number, found


def main(capture: str, csv_path: str) -> int:
    """Prints what was compared, or what differs."""
    rows, expected = collect(truth(csv_path))
    flows, found = collect(replayed(capture))
    differ = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    print(f"{capture}: {rows} conversations, {flows} flows, {len(differ)} differ")
    for key in itertools.islice(differ, 10):
        print("  ", *key, "expected", expected.get(key), "found", found.get(key), file=sys.stderr)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
