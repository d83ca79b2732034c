"""What the demo needs of the machine, and how it gets it without root.

Root makes network namespaces directly. Anybody else first becomes root of a user namespace of their own: there they may
make network namespaces, devices, routes and nftables rules, and nothing outside can be touched.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fzgw.demo.errors import DemoError, NoPrivilegeError
from fzgw.demo.linux import CLONE_NEWNET, CLONE_NEWUSER, setns, unshare
from fzgw.host.nat import find_nft

TUN_DEVICE: Final = Path("/dev/net/tun")

_WAYS_OUT: Final = """\
Two ways out:
  as root:       sudo {command}
  without root:  {without_root}"""


def require_nft() -> None:
    """`DemoError` that names the package when `nft`, which the gateway's masquerade needs, is not installed."""
    if find_nft() is None:
        raise DemoError("nft is not installed; it is in the package nftables (Debian: apt install nftables)")


def require_namespaces(command: str) -> None:
    """Leave this process able to make network namespaces and TUN devices, without root by a user namespace.

    `command` is what the user would repeat with sudo. Must run while the process has one thread. `NoPrivilegeError`
    when neither way is open, `DemoError` when root finds no TUN device.
    """
    _require_tun(command)
    if _may_make_network_namespaces():
        return
    try:
        _become_root_of_a_user_namespace()
    except OSError as error:
        raise NoPrivilegeError(
            f"no privilege to make network namespaces, and no user namespace either ({error.strerror}).\n"
            + _WAYS_OUT.format(
                command=command,
                without_root="allow user namespaces: "
                "sudo sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 "
                "(whichever of the two exists; a container: run it with --privileged)",
            )
        ) from error


def _require_tun(command: str) -> None:
    try:
        os.close(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if os.geteuid() == 0 and not isinstance(error, PermissionError):
            raise DemoError(
                f"{TUN_DEVICE} cannot be opened ({error.strerror}): load the kernel module (modprobe tun), "
                f"or give the container the device (--device {TUN_DEVICE})"
            ) from error
        raise NoPrivilegeError(
            f"{TUN_DEVICE} cannot be opened ({error.strerror}).\n"
            + _WAYS_OUT.format(
                command=command,
                without_root=f"let users open it: sudo modprobe tun && sudo chmod 0666 {TUN_DEVICE}",
            )
        ) from error


def _may_make_network_namespaces() -> bool:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        setns(home, CLONE_NEWNET)
    except PermissionError:
        return False
    finally:
        os.close(home)
    return True


def _become_root_of_a_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    # The network namespace with it: setns() back to where a thread came from needs privilege there too.
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    # Without this the kernel refuses the group map of an ordinary user.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
