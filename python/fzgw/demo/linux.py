"""The three system calls that the laboratory needs and Python 3.11 does not have.

Each raises `OSError` with the kernel's errno. The C library is looked up once, at import, because `prctl` is called
between fork and exec, where nothing may be imported.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWNET: Final = 0x4000_0000

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (`CLONE_NEWUSER` needs a process of one thread)."""
    _checked(_libc.unshare(flags))


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into the namespace behind `descriptor`, which must be of `kind` (`CLONE_NEWNET`)."""
    _checked(_libc.setns(descriptor, kind))


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send `signal_number` to this process when the thread that started it ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
