"""The kernel's switches below /proc/sys: forwarding, and those of the TUN device itself.

Switching forwarding on moves more than one switch. Linux then overwrites the forwarding of every interface; going
back to IPv4 without forwarding it also sets `conf/all/accept_redirects` to 1, whatever it was; and IPv6 forwarding
throws away the default route that a router advertisement gave, on interfaces where `accept_ra` is 1 and not 2. So a
`Change` is kept for each switch that has to be put back, also for those that only the kernel moves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC_SYS: Final = Path("/proc/sys")

FORWARDING: Final = {"ipv4": "net/ipv4/ip_forward", "ipv6": "net/ipv6/conf/all/forwarding"}
"""The switch that makes the host a router, for each family; below /proc/sys."""

# The order in which switches are set; they go back in the opposite one. accept_ra must be 2 whenever forwarding is 1,
# and the kernel overwrites all the others when the family's own switch moves.
_ACCEPT_RA_RANK: Final = 0
_SIDE_EFFECT_RANK: Final = 1
_FORWARDING_RANK: Final = 2


@dataclass(frozen=True)
class Change:
    """One switch: its path below /proc/sys, the value before the gateway and the gateway's own.

    The two are equal where the gateway changes nothing but the kernel would on the way back. `family` is "ipv4" or
    "ipv6", the forwarding that the change belongs to.
    """

    path: str
    before: str
    ours: str
    family: str


def read(path: str) -> str | None:
    """The switch's value, or None if there is no such switch (an interface that went, a kernel without IPv6)."""
    try:
        return (PROC_SYS / path).read_text().strip()
    except FileNotFoundError:
        return None


def ensure(path: str, value: str) -> bool:
    """Set the switch unless it stands right already; whether it had to be set. Raises `OSError`."""
    if read(path) == value:
        return False
    # Not by Path.write_text, which would try to make a switch that has gone.
    descriptor = os.open(PROC_SYS / path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
    return True


def forwarding_changes(family: str, *, tunnel: str) -> list[Change]:
    """What forwarding `family` ("ipv4" or "ipv6") changes on this host as it stands: nothing if it is on already.

    `tunnel` is left alone. Interfaces that come later are not seen: where one shall take router advertisements while
    the gateway runs, its accept_ra must be set to 2.
    """
    switch = FORWARDING[family]
    before = read(switch)
    if before is None or before == "1":
        return []
    changes = [Change(switch, before, "1", family)]
    for interface in sorted(path.name for path in (PROC_SYS / "net" / family / "conf").iterdir()):
        forwarding = f"net/{family}/conf/{interface}/forwarding"
        if interface not in {"all", tunnel} and read(forwarding) == "1":
            changes.append(Change(forwarding, "1", "1", family))
        accept_ra = f"net/ipv6/conf/{interface}/accept_ra"
        if family == "ipv6" and interface not in {"all", "default", "lo", tunnel} and read(accept_ra) == "1":
            changes.append(Change(accept_ra, "1", "2", family))
    redirects = "net/ipv4/conf/all/accept_redirects"
    if family == "ipv4" and read(redirects) == "0":
        changes.append(Change(redirects, "0", "0", family))
    return in_order(changes)


def still_ours(changes: Iterable[Change]) -> list[Change]:
    """The changes of a killed run whose switches still stand as that run left them. The others were moved since, or
    never moved at all: they are none of our business."""
    return [change for change in changes if (value := read(change.path)) is not None and _ours(change, value)]


def in_order(changes: Iterable[Change]) -> list[Change]:
    """The changes in the order in which they must be made, one for each switch (the first one given)."""
    unique = {change.path: change for change in reversed(list(changes))}
    return sorted(unique.values(), key=lambda change: (_rank(change), change.path))


def make(change: Change) -> None:
    """Make one change; a switch whose interface went meanwhile is none. Raises `OSError`."""
    with suppress(FileNotFoundError):
        ensure(change.path, change.ours)


def put_back(changes: Sequence[Change]) -> list[tuple[Change, OSError]]:
    """Undo changes made in the order given. A switch that no longer stands as we left it belongs to whoever moved it
    and keeps its value. Returns what could not be written; the others are put back all the same."""
    targets = {
        change: change.before if _ours(change, value) else value
        for change in changes
        if (value := read(change.path)) is not None
    }
    failures = []
    for change, value in reversed(targets.items()):
        try:
            # Compared with the value of now: the family's switch has moved the others meanwhile.
            with suppress(FileNotFoundError):
                ensure(change.path, value)
        except OSError as error:
            failures.append((change, error))
    return failures


def dotted(path: str) -> str:
    """The switch's name as sysctl(8) writes it: dots and slashes change places."""
    return path.translate(str.maketrans("/.", "./"))


def _ours(change: Change, value: str) -> bool:
    """Whether the switch, now at `value`, is as we left it. Where forwarding is off already, by a run that was killed
    on its way back or by hand, the kernel has moved what it moves along, not somebody else."""
    moved_along = change.before == change.ours and read(FORWARDING[change.family]) != "1"
    return value == change.ours or moved_along


def _rank(change: Change) -> int:
    if change.path == FORWARDING[change.family]:
        return _FORWARDING_RANK
    if change.path.endswith("/accept_ra"):
        return _ACCEPT_RA_RANK
    return _SIDE_EFFECT_RANK
