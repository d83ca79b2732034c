"""The state file: what gateways changed on this host and have not put back.

`host.json` in the state directory is written before anything is changed, so that what a killed run left can be put
back by the next one. An entry belongs to one interface in one network namespace. Entries of an earlier boot mean
nothing: the kernel starts with its own values.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from fzgw import logs
from fzgw.host.sysctl import FORWARDING, Change

FILE_NAME: Final = "host.json"
_VERSION: Final = 1

# The file decides what is written as root: nothing but the switches of sysctl.py.
_SWITCH: Final = re.compile(r"net/ipv4/ip_forward|net/ipv[46]/conf/[^/]+/(forwarding|accept_ra|accept_redirects)")

# SO_NETNS_COOKIE (Linux 5.14), the number of the network namespace that no later one of this boot will have.
_SO_NETNS_COOKIE: Final = 71


@dataclass(frozen=True)
class Entry:
    """What one gateway changed: the switches, and the families whose forwarding it relies on."""

    interface: str
    families: frozenset[str] = frozenset()
    changes: tuple[Change, ...] = ()


@dataclass
class Ledger:
    """The entries of this boot and this network namespace, by interface. Change them, then `save()`.

    `problem` is why the file could not be read or locked; `save` raises it when there is something to write.
    """

    path: Path
    entries: dict[str, Entry]
    problem: OSError | None = None
    _elsewhere: list[dict[str, Any]] = field(default_factory=list)
    _stored: dict[str, Entry] = field(default_factory=dict)

    def holds(self, interface: str) -> bool:
        """Whether the file, as it was last read or written, has an entry of `interface`."""
        return interface in self._stored

    def save(self) -> None:
        """Write the file in one step if the entries changed, or remove it when it has none left. Raises `OSError`."""
        if self.entries == self._stored:
            return
        if self.problem is not None:
            raise self.problem
        here = {"boot": boot_id(), "netns": network_namespace()}
        entries = [
            *self._elsewhere,
            *(
                {
                    **here,
                    "interface": entry.interface,
                    "families": sorted(entry.families),
                    "changes": [asdict(change) for change in entry.changes],
                }
                for entry in self.entries.values()
            ),
        ]
        if entries:
            _write(self.path, json.dumps({"version": _VERSION, "entries": entries}, indent=1))
        else:
            self.path.unlink(missing_ok=True)
            _temporary(self.path).unlink(missing_ok=True)
        self._stored = dict(self.entries)


@contextmanager
def locked(directory: Path, *, create: bool = True) -> Iterator[Ledger]:
    """The ledger in `directory` (made if missing, with `create`), which no other process changes meanwhile."""
    try:
        if create:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        yield Ledger(directory / FILE_NAME, {}, problem=error)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield read(directory)
    finally:
        os.close(descriptor)


def read(directory: Path) -> Ledger:
    """The ledger in `directory` as it stands. A file that cannot be understood counts as empty, with a warning."""
    path = directory / FILE_NAME
    ledger = Ledger(path, {})
    try:
        here = (boot_id(), network_namespace())
        for item in json.loads(path.read_text())["entries"]:
            if (item["boot"], item["netns"]) == here:
                changes = tuple(_change(change) for change in item["changes"])
                entry = Entry(item["interface"], frozenset(item["families"]), changes)
                ledger.entries[entry.interface] = entry
            elif item["boot"] == here[0]:
                ledger._elsewhere.append(item)
    except FileNotFoundError:
        return ledger
    except OSError as error:
        return Ledger(path, {}, problem=error)
    except (ValueError, KeyError, TypeError) as error:
        # What an earlier run left can then not be put back.
        logs.get_logger().warning("state_file_not_understood", path=str(path), reason=str(error))
        return Ledger(path, {})
    ledger._stored = dict(ledger.entries)
    return ledger


def _change(stored: dict[str, str]) -> Change:
    """A change out of the file. Raises `ValueError` for a switch that no gateway touches."""
    change = Change(**stored)
    if change.family not in FORWARDING or not _SWITCH.fullmatch(change.path):
        raise ValueError(f"unknown switch {change.path!r}")
    return change


def _write(path: Path, text: str) -> None:
    """Write the whole file or nothing, on the disk when this returns."""
    temporary = _temporary(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _temporary(path: Path) -> Path:
    """Of one name, so that what a killed run left is overwritten: the directory is locked."""
    return path.with_name(f".{path.name}.new")


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def network_namespace() -> str:
    """A name for the calling thread's network namespace that is good for this boot."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            return f"cookie:{int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), 'little')}"
        except OSError:
            # An older kernel; the inode may come again when the namespace has gone, which is rarer than the crash.
            return f"inode:{Path('/proc/thread-self/ns/net').stat().st_ino}"
