"""The gateway's uid: stable, and kept over a change of keys."""

import re
from pathlib import Path

from config_files import GATEWAY, write_config, write_key
from fzgw.config import keep_uid, load


def test_the_uid_is_stable_and_reading_writes_nothing(tmp_path: Path) -> None:
    """Two loads give the same uid, and leave no file behind."""
    path = write_config(tmp_path, GATEWAY + 'state_dir = "state"\n')
    assert load(path).gateway.uid == load(path).gateway.uid
    assert not (tmp_path / "state").exists()


def test_different_keys_have_different_uids(tmp_path: Path) -> None:
    """Two gateways do not share an identity, whatever they are called."""
    path = write_config(tmp_path, GATEWAY + 'state_dir = "state"\n')
    first = load(path).gateway.uid
    write_key(tmp_path / "gateway.key")
    assert load(path).gateway.uid != first


def test_a_kept_uid_survives_a_new_key(tmp_path: Path) -> None:
    """Once kept in the state directory, the uid stays the gateway's when its key changes."""
    path = write_config(tmp_path, GATEWAY + 'state_dir = "state"\n')
    first = load(path)
    assert keep_uid(first)
    assert (tmp_path / "state" / "gateway.uid").read_text() == first.gateway.uid + "\n"
    write_key(tmp_path / "gateway.key")
    second = load(path)
    assert second.gateway.uid == first.gateway.uid
    assert keep_uid(second)


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """Then the uid is not kept, which is said, and goes on following from the key."""
    (tmp_path / "state").write_text("a file")
    config = load(write_config(tmp_path, GATEWAY + 'state_dir = "state/fzgw"\n'))
    assert not keep_uid(config)
    assert config.gateway.uid


def test_a_damaged_uid_file_is_passed_over(tmp_path: Path) -> None:
    """What is no uid is not put on records."""
    (tmp_path / "gateway.uid").write_text("garbage")
    path = write_config(tmp_path, GATEWAY + 'state_dir = "."\n')
    assert re.fullmatch(r"[0-9a-f-]{36}", load(path).gateway.uid)
