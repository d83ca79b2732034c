"""fzgw init: a commented configuration that works, a key that nobody else can read, and nothing overwritten."""

import os
import re
import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fzgw.cli import main
from fzgw.config import load
from fzgw.config.loading import model_in
from fzgw.config.models import Config, Table


def init(*arguments: object) -> Result:
    """Runs `fzgw init`."""
    return CliRunner().invoke(main, ["init", *map(str, arguments)])


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mode(path: Path) -> int:
    """A file's permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_is_written_loads(directory: Path, umask: int) -> None:
    """The file passes load without a warning, and the key's mode is 0600, whatever the umask."""
    before = os.umask(umask)
    try:
        result = init()
    finally:
        os.umask(before)
    assert result.exit_code == 0
    assert mode(directory / "gateway.key") == 0o600
    config = load(directory / "gateway.toml")
    assert config.warnings == ()
    assert config.gateway.addresses == ("100.64.0.1/16", "fd00:64::1/64")
    assert [sink.type for sink in config.sinks] == ["stdout"]


def test_the_next_steps_are_on_stderr(directory: Path) -> None:
    """What to do next is told with the commands to type; stdout stays empty."""
    result = init("other.toml")
    assert result.stdout == ""
    for part in (
        "fzgw peer add laptop --config other.toml",
        "fzgw check other.toml",
        "fzgw run other.toml",
        "endpoint",
    ):
        assert part in result.stderr
    assert load(directory / "other.toml").gateway.public_key
    assert (directory / "gateway.key").read_text().strip() not in result.output


def test_every_key_is_explained(directory: Path) -> None:
    """With every comment that is a setting taken in, the file has each key that fzgw knows, and loads."""
    init()
    text = (directory / "gateway.toml").read_text()
    settings = re.sub(r"^# (?=\w+ = |\[)", "", text, flags=re.MULTILINE)
    written = tomllib.loads(settings)
    assert list(missing(Config, written)) == []
    (directory / "handlers.py").write_text("class Night: ...\n")
    (directory / "laptop-7.psk").write_text((directory / "gateway.key").read_text())
    settings = settings.replace('state_dir = "/var/lib/fzgw"', 'state_dir = "state"')
    settings = settings.replace('public_key = "..."', f'public_key = "{"A" * 42}E="')
    (directory / "gateway.toml").write_text(settings)
    (directory / "laptop-7.psk").chmod(0o600)
    config = load(directory / "gateway.toml")
    # What the comments show as values are the defaults, so that taking a comment away changes nothing.
    assert config.flow_logs == type(config.flow_logs)(max_flows_per_peer=125_000)
    assert config.limits == type(config.limits)()


def missing(model: type[Table], written: dict[str, object], path: str = "") -> list[str]:
    """Keys of `model` that are not in `written`, tables inside it included."""
    absent = []
    for name, field in model.model_fields.items():
        key = str(field.validation_alias or name)
        inner = model_in(field.annotation)
        found = written.get(key)
        if found is None:
            absent.append(f"{path}{key}")
        elif inner is not None:
            table = found[0] if isinstance(found, list) else found
            absent += missing(inner, table, f"{path}{key}.")  # type: ignore[arg-type]
    return absent


@pytest.mark.parametrize("existing", ["gateway.toml", "gateway.key"])
def test_nothing_is_overwritten(directory: Path, existing: str) -> None:
    """A file that is there stays, the error names it, and the other file is not written either."""
    (directory / existing).write_text("mine")
    result = init()
    assert result.exit_code == 1
    assert f"{existing} exists" in result.stderr
    assert [path.name for path in directory.iterdir()] == [existing]
    assert (directory / existing).read_text() == "mine"


def test_a_link_to_nowhere_is_not_followed(directory: Path) -> None:
    """A dangling symbolic link is something that exists: writing through it would create a file elsewhere."""
    (directory / "gateway.key").symlink_to(directory / "elsewhere")
    assert init().exit_code == 1
    assert not (directory / "elsewhere").exists()
    assert not (directory / "gateway.toml").exists()


def test_a_directory_that_is_not_there(directory: Path) -> None:
    """One clear line, exit code 1."""
    result = init("no/gateway.toml")
    assert result.exit_code == 1
    assert result.stderr == "error: no/gateway.key: No such file or directory\n"
