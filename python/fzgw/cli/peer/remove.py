"""``fzgw peer remove``."""

from pathlib import Path

import click

from fzgw.cli.errors import Failure
from fzgw.cli.options import config_option
from fzgw.cli.peer.change import RELOAD, changing, judged, psk_file
from fzgw.config import Config, PeerConfig, edit, files
from fzgw.config.nearest import nearest
from fzgw.config.values import key_text


@click.command
@click.argument("name")
@config_option
def remove(name: str, config: Path) -> None:
    """Remove peer NAME, and the preshared key file that `peer add` made for it."""
    with changing(config) as before:
        position = _position(before, name)
        text, after = judged(config, lambda text: edit.without_peer(text, position), "without this peer")
        with files.replacement(config, text):
            pass
        removed_psk = _remove_psk(before.peers[position], after, config.parent)
    note = f" {removed_psk} is removed too." if removed_psk is not None else ""
    click.echo(f"{config}: peer {name} removed.{note} {RELOAD}", err=True)


def _position(config: Config, name: str) -> int:
    names = [each.name for each in config.peers]
    if name in names:
        return names.index(name)
    close = nearest(name, names)
    raise Failure(f'{config.path} has no peer "{name}"' + (f'; did you mean "{close}"?' if close else ""))


def _remove_psk(removed: PeerConfig, after: Config, base: Path) -> Path | None:
    """Removes the file that `peer add` would have named for the peer, when it holds this peer's key and no other peer
    has that key; says which."""
    path = base / psk_file(removed.name)
    if removed.preshared_key is None or any(each.preshared_key == removed.preshared_key for each in after.peers):
        return None
    try:
        if path.read_text(encoding="ascii").strip() != key_text(removed.preshared_key):
            return None
    except (OSError, UnicodeDecodeError):
        return None
    path.unlink()
    return path
