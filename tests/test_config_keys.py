"""Keys, and the files they are in."""

import os
from pathlib import Path

import pytest

from config_files import GATEWAY, errors_in, errors_of, peer_table, write_config, write_key
from fzgw.config import load
from fzgw.config.values import key_text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes"),
        (b"not base64!\n", "is not base64"),
        (b"\xff\xfe", "is not base64"),
        (b"AAAA\n", "has 3 bytes; a WireGuard key has 32"),
        (key_text(bytes(32)).encode(), "is all zeros"),
        (b"A" * 5000, "is too large for a key file"),
    ],
)
def test_a_bad_key_file(tmp_path: Path, content: bytes, message: str) -> None:
    """What is wrong with a key file is said without showing what is in it."""
    (tmp_path / "gateway.key").write_bytes(content)
    (error,) = errors_in(tmp_path, GATEWAY)
    assert error.startswith("gateway.toml:3: gateway.private_key_file: gateway.key")
    assert message in error
    assert not content.strip() or content.strip().decode("latin-1") not in error


def test_a_key_file_that_is_a_directory(tmp_path: Path) -> None:
    """A directory is named as one."""
    (tmp_path / "gateway.key").mkdir()
    (error,) = errors_in(tmp_path, GATEWAY)
    assert error.endswith("gateway.key is a directory, not a key file")


def test_a_key_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No right to read it is an error like the others, with the reason."""
    real = Path.open

    def refuse(self: Path, *arguments: object, **keywords: object) -> object:
        if self.name == "gateway.key":
            raise PermissionError(13, os.strerror(13), str(self))
        return real(self, *arguments, **keywords)  # type: ignore[call-overload]

    path = write_config(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    assert errors_of(path) == [
        "gateway.toml:3: gateway.private_key_file: gateway.key cannot be read: Permission denied"
    ]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602])
def test_a_key_file_that_all_can_read_is_a_warning(tmp_path: Path, mode: int) -> None:
    """A key that every user can read (or write) loads, with a warning that has the fix; for both kinds of key."""
    write_key(tmp_path / "gateway.key", mode=mode)
    write_key(tmp_path / "a.psk", mode=mode)
    text = GATEWAY + peer_table("a", "100.64.0.2/32", more='preshared_key_file = "a.psk"\n')
    warnings = load(write_config(tmp_path, text)).warnings
    assert [(warning.level, warning.line, warning.key) for warning in warnings] == [
        ("warning", 3, "gateway.private_key_file"),
        ("warning", 11, "peers[0].preshared_key_file"),
    ]
    assert f"chmod 600 {tmp_path / 'gateway.key'}" in warnings[0].message


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_key_file_for_few_is_no_warning(tmp_path: Path, mode: int) -> None:
    """The owner and a group chosen for it may read a key."""
    write_key(tmp_path / "gateway.key", mode=mode)
    assert load(write_config(tmp_path)).warnings == ()


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory does not matter for what a configuration names."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_config(tmp_path / "etc")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load("../etc/gateway.toml").gateway.name == "exit-1"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("x" * 43, "is not base64"),
        ("…", "is not base64"),
        (key_text(bytes(32)), "is all zeros"),
        (key_text(b"\x01" * 31), "has 31 bytes"),
    ],
)
def test_a_bad_public_key(tmp_path: Path, key: str, message: str) -> None:
    """A peer's key is 32 bytes of base64, and not zero."""
    (error,) = errors_in(tmp_path, GATEWAY + peer_table("a", "100.64.0.2/32", public_key=key))
    assert error.startswith("gateway.toml:9: peers[0].public_key: ")
    assert message in error
