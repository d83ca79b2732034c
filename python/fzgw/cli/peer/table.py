"""Peers as people and programs read them."""

import sys
from collections.abc import Sequence
from typing import Any

from fzgw.config import PeerConfig
from fzgw.config.values import key_text

WIDTH_OF_A_PIPE = 10_000
"""Columns: whoever cuts lines out of a pipe wants them whole."""


def show_peers(peers: Sequence[PeerConfig]) -> None:
    """Prints a table of `peers` on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "user", "groups", "allowed IPs", "keepalive", "psk", "public key"):
        table.add_column(heading, no_wrap=heading == "public key", overflow="fold")
    for peer in peers:
        keepalive = "" if peer.persistent_keepalive is None else f"{peer.persistent_keepalive} s"
        cells = (
            peer.name,
            peer.user or "",
            ", ".join(peer.groups),
            ", ".join(peer.allowed_ips),
            keepalive,
            "yes" if peer.preshared_key is not None else "",
            key_text(peer.public_key),
        )
        # As Text: a name in brackets would be taken for markup.
        table.add_row(*map(Text, cells))
    terminal = sys.stdout.isatty()
    Console(file=sys.stdout, width=None if terminal else WIDTH_OF_A_PIPE, soft_wrap=not terminal).print(table)


def peer_as_json(peer: PeerConfig) -> dict[str, Any]:
    """What may be shown of a peer: that it has a preshared key, but not which."""
    return {
        "name": peer.name,
        "user": peer.user,
        "groups": list(peer.groups),
        "public_key": key_text(peer.public_key),
        "preshared_key": peer.preshared_key is not None,
        "allowed_ips": list(peer.allowed_ips),
        "persistent_keepalive": peer.persistent_keepalive,
        "endpoint": peer.endpoint,
    }
