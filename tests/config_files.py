"""Configurations for tests: written where a test wants them, with real keys."""

from pathlib import Path

import pytest

from fzgw import _core
from fzgw.config import ConfigErrors, load
from fzgw.config.values import key_text

GATEWAY = """\
[gateway]
name = "exit-1"
private_key_file = "gateway.key"
addresses = ["100.64.0.1/16", "fd00:64::1/64"]
endpoint = "vpn.example.com:51820"
"""
"""What every configuration begins with: 5 lines after the header, no peers, no rules."""


def new_public_key() -> str:
    """The public half of a fresh key pair, in base64."""
    return key_text(_core.public_key(_core.generate_private_key()))


def write_key(path: Path, key: bytes | None = None, mode: int = 0o600) -> bytes:
    """A private key in a file of its own; returns the raw key."""
    key = _core.generate_private_key() if key is None else key
    path.write_text(key_text(key) + "\n")
    path.chmod(mode)
    return key


def write_config(directory: Path, text: str = GATEWAY) -> Path:
    """`text` as gateway.toml with a gateway.key beside it (one that is there stays); returns its path."""
    if not (directory / "gateway.key").exists():
        write_key(directory / "gateway.key")
    path = directory / "gateway.toml"
    path.write_text(text)
    return path


def peer_table(name: str, *allowed_ips: str, public_key: str | None = None, more: str = "") -> str:
    """A [[peers]] table with a fresh key, and `more` lines at its end."""
    addresses = ", ".join(f'"{text}"' for text in allowed_ips)
    key = public_key or new_public_key()
    return f'\n[[peers]]\nname = "{name}"\npublic_key = "{key}"\nallowed_ips = [{addresses}]\n{more}'


def errors_of(path: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    """Every error of a configuration that must have some, as lines, with the file's directory left out."""
    with pytest.raises(ConfigErrors) as caught:
        load(path, overrides)
    lines = str(caught.value).splitlines()
    assert lines == [str(error) for error in caught.value.errors]
    return [line.replace(f"{path.parent}/", "") for line in lines]


def errors_in(directory: Path, text: str) -> list[str]:
    """The same, for a text."""
    return errors_of(write_config(directory, text))
