"""The gateway's OCSF lines as the demo reads them: a few of the fields, under the names of `fzgw.Flow`."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class FlowRow:
    """One flow record. Ends without a port have 0, an ICMP echo its identifier as `src_port`; `duration` in seconds.

    `paths` are the peer's outer `address:port`s, in order.
    """

    activity: str
    peer: str
    user: str
    protocol: int
    protocol_name: str
    src_ip: str
    src_port: int
    dst_ip: str
    dst_port: int
    domain: str
    verdict: str
    rule: str
    bytes_out: int
    bytes_in: int
    packets_out: int
    packets_in: int
    payload_out: int
    payload_in: int
    attempts: int
    duration: float
    paths: tuple[str, ...]
    end_reason: str


def parse(line: bytes) -> FlowRow | None:
    """A line of the gateway's stdout; None for what is no flow record (gaps, notes).

    `ValueError` or `KeyError` when the line is not what a gateway writes.
    """
    record = json.loads(line)
    if record["class_uid"] != 4001:
        return None
    extra = record["unmapped"]
    source, destination = record.get("src_endpoint", {}), record.get("dst_endpoint", {})
    connection, totals = record["connection_info"], record["cumulative_traffic"]
    peer = source if connection["direction"] == "Outbound" else destination
    return FlowRow(
        activity=extra["activity"],
        peer=peer.get("name", ""),
        user=peer.get("owner", {}).get("name", ""),
        protocol=connection.get("protocol_num", 0),
        protocol_name=connection.get("protocol_name", ""),
        src_ip=source.get("ip", ""),
        src_port=source.get("port", extra.get("icmp", {}).get("identifier", 0)),
        dst_ip=destination.get("ip", ""),
        dst_port=destination.get("port", 0),
        domain=destination.get("domain", ""),
        verdict={"Allowed": "allow", "Denied": "deny"}[record["action"]],
        rule=record.get("firewall_rule", {}).get("name", ""),
        bytes_out=totals["bytes_out"],
        bytes_in=totals["bytes_in"],
        packets_out=totals["packets_out"],
        packets_in=totals["packets_in"],
        payload_out=extra.get("payload_out", 0),
        payload_in=extra.get("payload_in", 0),
        attempts=extra.get("attempts", 0),
        duration=(extra["end_ns"] - extra["start_ns"]) / 1e9,
        paths=tuple(path["remote"] for path in extra.get("paths", ())),
        end_reason=record.get("status_code", ""),
    )
