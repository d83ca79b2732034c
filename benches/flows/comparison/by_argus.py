"""What argus counts: frames with their link headers, merged to conversations by racluster.

Of malformed packets it makes what it can, which is not modelled: on fuzzed captures some rows of its table stay
unexplained.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

from comparison.belonging import Fate, Key, conversation
from comparison.by_tshark import TUNNEL, Layer, plain
from comparison.counts import LENGTH_0, NotReadError, Part, Table, Totals, View, nothing, projected, row
from comparison.slow import TCP, UDP, Frame, Packet, UnreadableError, ip_part, packet

IGMP, GRE, ESP, AUTHENTICATION = 2, 47, 50, 51
ETHERNET_ADDRESS = re.compile(r"(?:[0-9a-f]{1,2}:){5}[0-9a-f]{1,2}")
ETHERNET = 1
UNCOUNTED = {0: 4, 108: 4, 113: 16}
"""Bytes of link headers that it does not count, by link type: BSD loopback, Linux cooked."""
BEHIND_AH = "AH, theirs does not look behind it"
GRE_OTHER = "GRE of another protocol, not in theirs"
ESP_V6 = "ESP in IPv6, not in theirs"
QINQ = "802.1ad, not in theirs"
LEAVE = "IGMP leave or PIMv1, in theirs with its group"
ERSPAN = "ERSPAN in Ethernet, packet inside"


def read(capture: Path) -> Totals:
    """Its totals. Ports are those of TCP and UDP: others have types and other things there.

    Raises NotReadError where argus cannot read the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        command = ["argus", "-X", "-r", str(capture), "-w", str(records)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode < 0:
            raise NotReadError(f"died of signal {-done.returncode}")
        if done.returncode or "ArgusError" in done.stderr or not records.exists():
            raise NotReadError(done.stderr.strip().rpartition(") ")[2])
        command = ["racluster", "-X", "-m", "proto", "saddr", "sport", "daddr", "dport", "-r", str(records), "-nn"]
        command += ["-c", ",", "-s", "proto", "saddr", "sport", "daddr", "dport", "spkts", "dpkts", "sbytes", "dbytes"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    totals: Totals = defaultdict(nothing)
    for line in lines[1:]:
        protocol, src, sport, dst, dport, *counts = line.split(",")
        # Larger ones are Ethernet types: ARP and others. Frames below IP have the addresses of Ethernet.
        if not protocol.isdigit() or int(protocol) > 255 or not src or ETHERNET_ADDRESS.fullmatch(src):
            continue
        ports = (int(sport or 0), int(dport or 0)) if int(protocol) in (TCP, UDP) else (0, 0)
        key, turned = conversation(int(protocol), (plain(src), ports[0]), (plain(dst), ports[1]))
        sent, back, sent_bytes, back_bytes = map(int, counts)
        totals[key][turned].add(sent, sent_bytes)
        totals[key][not turned and key[1] != key[2]].add(back, back_bytes)
    return totals


def table(totals: Totals, seen: list[list[Layer]], frames: list[Frame], fates: list[Fate]) -> Table:
    """Its table. Which IP headers a frame has is known from tshark."""
    pieces = {
        frozenset((fate.packet.src, fate.packet.dst)) for fate in fates if fate.packet and _is_v6_piece(fate.packet)
    }

    def project(key: Key) -> Key:
        # For a later fragment of IPv6 it has the identification where others have ports: all between the two addresses
        # is compared.
        protocol, (a, _), (b, _) = key
        if protocol in (TCP, UDP) and frozenset((a, b)) not in pieces:
            return key
        return protocol, (a, 0), (b, 0)

    def uncounted(at: int) -> int:
        return UNCOUNTED.get(frames[at].link, 0)

    def view(at: int) -> View:
        place, rule = _place(frames[at], fates[at], [layer for layer in seen[at] if layer.version])
        ordered = row(*place, project) if place else None
        if ordered is None:
            return View(without=rule)
        return View([(Part(*ordered, frames[at].wire - uncounted(at)), rule)])

    return Table("argus", projected(totals, project), project, view, lambda at: fates[at].overhead - uncounted(at))


def _is_v6_piece(packet: Packet) -> bool:
    return packet.version == 6 and not packet.first


def _place(frame: Frame, fate: Fate, layers: list[Layer]) -> tuple[tuple[Key, bool] | None, str | None]:
    """Where it counts a frame, and the rule that explains why fzgw does not count it there. None: it does not."""
    kept = fate.packet
    if frame.link == ETHERNET and frame.data[12:14] == b"\x88\xbe":
        return _erspan(frame)
    if not layers:
        return None, None
    if kept and kept.guessed:
        return None, LENGTH_0
    if kept and kept.version == 6 and kept.protocol == ESP:
        return None, ESP_V6
    if frame.link == ETHERNET and frame.data[12:14] == b"\x88\xa8":
        return None, QINQ
    # Of GRE it keeps the packet inside alone.
    depth = 0
    while depth + 1 < len(layers) and layers[depth].first == GRE:
        depth += 1
    layer = layers[depth]
    if layer.first == GRE:
        return None, GRE_OTHER
    addresses = (layer.src, 0), (layer.dst, 0)
    if layer.first == AUTHENTICATION:
        return conversation(AUTHENTICATION, *addresses), BEHIND_AH
    if layer.first == IGMP and depth == 0 and (group := _left_group(frame)):
        return conversation(IGMP, (layer.src, 0), (group, 0)), LEAVE
    if depth == 0 and kept and kept.identification is not None:
        # A fragment goes with its datagram's first, whatever becomes of that; without one, by addresses.
        return (fate.key, fate.second) if fate.key else conversation(layer.protocol, *addresses), None
    return layer.conversation(), TUNNEL if depth else None


def _left_group(frame: Frame) -> str | None:
    """The group of an IGMP message that leaves one, or of PIM version 1."""
    data, _, _ = ip_part(frame)
    message = data[(data[0] & 15) * 4 :]
    return str(ipaddress.IPv4Address(message[4:8])) if message[:1] in (b"\x14", b"\x17") and len(message) >= 8 else None


def _erspan(frame: Frame) -> tuple[tuple[Key, bool] | None, str | None]:
    """It takes this Ethernet type for ERSPAN without GRE: another frame is inside."""
    inside = Frame(frame.time, ETHERNET, frame.data[22:], frame.wire - 22)
    try:
        data, wire, _ = ip_part(inside)
        found = packet(data, wire)
    except UnreadableError:
        return None, None
    ports = found.ports or (0, 0)
    return conversation(found.protocol, (found.src, ports[0]), (found.dst, ports[1])), ERSPAN
