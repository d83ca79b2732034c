"""The demo's own verdict: did the records say what the clients did?"""

from __future__ import annotations

from collections.abc import Sequence

from fzgw.demo import plan
from fzgw.demo.errors import DemoError
from fzgw.demo.ledgers import Equation
from fzgw.demo.records import FlowRow
from fzgw.demo.traffic import ExpectedFlow


def check(expected: Sequence[ExpectedFlow], rows: Sequence[FlowRow], equations: Sequence[Equation]) -> None:
    """`DemoError` that names everything that is missing or wrong, a line each."""
    closed = [row for row in rows if row.activity == "close"]
    problems = [problem for flow in expected for problem in _problems_of(flow, closed)]
    problems += [f"a ledger does not balance: {equation}" for equation in equations if not equation.balanced]
    if problems:
        raise DemoError("\n".join(["the gateway does not tell what the clients did:", *problems]))


def is_of(row: FlowRow, flow: ExpectedFlow) -> bool:
    """Whether a record has the ends and the peer of an expected flow."""
    return (
        (row.peer, row.protocol, row.src_port) == (flow.client.name, flow.protocol, flow.src_port)
        and (row.dst_ip, row.dst_port) == (plan.SERVER, flow.dst_port)
        # The key of a denied flow has no initiator's address (R23): its record may come without one.
        and row.src_ip in (flow.client.tunnel, "")
    )


def _problems_of(flow: ExpectedFlow, closed: Sequence[FlowRow]) -> list[str]:
    matching = [row for row in closed if is_of(row, flow)]
    if not matching:
        return [f"{flow.title}: no close record of {flow.client.name} to {plan.SERVER}:{flow.dst_port}"]
    if len(matching) > 1:
        return [f"{flow.title}: {len(matching)} close records instead of one"]
    [row] = matching
    wrong = []
    if row.verdict != flow.verdict:
        wrong.append(f"verdict is {row.verdict}, not {flow.verdict}")
    outer = tuple(path.rpartition(":")[0] for path in row.paths)
    # What is denied travels on no path.
    if flow.verdict == "allow" and outer != flow.outer_addresses:
        wrong.append(f"outer paths are {', '.join(outer) or 'none'}, not {', '.join(flow.outer_addresses)}")
    if flow.verdict == "deny" and (row.attempts == 0 or row.packets_out or row.packets_in):
        wrong.append(f"{row.attempts} attempts and {row.packets_out + row.packets_in} forwarded packets")
    # A retransmitted segment counts again, so these are lower bounds.
    if row.payload_out < flow.payload_out:
        wrong.append(f"payload_out is {row.payload_out}, less than the {flow.payload_out} that the client sent")
    if row.payload_in < flow.payload_in:
        wrong.append(f"payload_in is {row.payload_in}, less than the {flow.payload_in} that the client received")
    return [f"{flow.title}: {text}" for text in wrong]
