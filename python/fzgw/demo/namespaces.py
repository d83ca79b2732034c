"""Network namespaces that only file descriptors hold.

They have no name: nothing is mounted under /run/netns, two demos cannot collide, and when the process that holds them
ends, by whatever signal, the kernel takes them away with the devices, addresses, routes and nftables rules inside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fzgw.demo.linux import CLONE_NEWNET, setns, unshare
from fzgw.host.link import open_netlink

if TYPE_CHECKING:
    from pyroute2 import IPRoute


class NetworkNamespace:
    """One anonymous network namespace, its loopback device up.

    `PermissionError` when the process may not make one.
    """

    def __init__(self) -> None:
        home = _open_current()
        try:
            unshare(CLONE_NEWNET)
            try:
                self.descriptor = _open_current()
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)
        try:
            with self.netlink() as link:
                link.link("set", index=1, state="up")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the namespace; it lives on while a process or a socket is inside."""
        os.close(self.descriptor)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside; sockets, threads and processes that it makes there stay there."""
        home = _open_current()
        try:
            setns(self.descriptor, CLONE_NEWNET)
            try:
                yield
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)

    @contextmanager
    def netlink(self) -> Iterator[IPRoute]:
        """A netlink socket that speaks for this namespace, from whichever namespace it is used.

        `fzgw.host.HostError` for what the kernel refuses.
        """
        with ExitStack() as stack:
            with self.entered():
                netlink = stack.enter_context(open_netlink())
            yield netlink


def _open_current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
