"""How a demo ends without success."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on; `str()` says why, in words for its user."""


class NoPrivilegeError(DemoError):
    """The right to make namespaces or TUN devices is missing; `str()` has the two ways out."""


class Interrupted(BaseException):
    """A signal ended the demo. Not an `Exception`, so that no step of the traffic takes it for its own failure."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
