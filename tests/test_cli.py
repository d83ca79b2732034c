"""The command line as a whole: one program by two names, exit codes, no traceback for what is not a bug."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import fzgw
import fzgw.config
from config_files import write_config
from fzgw import _core
from fzgw.cli import VERBS, main
from fzgw.cli.errors import failure_of
from fzgw.handlers import HandlerError
from fzgw.host import HostError, PrivilegeError
from fzgw.host.errors import PRIVILEGE_FIX
from fzgw.sinks import SinkError


def python_m_fzgw(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m fzgw` as a process of its own."""
    command = [sys.executable, "-m", "fzgw", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_python_m_is_the_same_program() -> None:
    """`python -m fzgw` calls itself fzgw and has the same verbs and version."""
    shown = python_m_fzgw("--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage: fzgw [OPTIONS]")
    assert all(f"\n  {verb} " in shown.stdout for verb in VERBS)
    assert python_m_fzgw("--version").stdout == f"fzgw {fzgw.__version__}\n"


def test_the_installed_command_is_the_same_program() -> None:
    """The console script fzgw is the very group that `python -m fzgw` runs."""
    scripts = [script for script in importlib.metadata.entry_points(group="console_scripts") if script.name == "fzgw"]
    if not scripts:
        pytest.skip("fzgw is not installed in this environment, only on its path")
    assert scripts[0].load() is main


def test_a_verb_that_is_not_there_is_a_usage_error() -> None:
    """Exit code 2, with the nearest verb."""
    result = CliRunner().invoke(main, ["chek"])
    assert result.exit_code == 2
    assert "Did you mean 'check'?" in result.stderr


def test_run_loads_little() -> None:
    """Getting at `run` imports neither the other verbs nor what only they need: the gateway's memory counts."""
    code = (
        "import sys; from fzgw.cli import main; main.get_command(None, 'run'); import fzgw.config; "
        "heavy = {'rich', 'segno', 'tomlkit', 'pyroute2', 'fzgw.cli.peer', 'fzgw.cli.check', 'fzgw.demo'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "[]\n"


def test_ctrl_c_ends_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was interrupted ends with 130 and says nothing more."""

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fzgw.config, "load", interrupted)
    result = CliRunner().invoke(main, ["check", str(write_config(tmp_path))])
    assert result.exit_code == 130
    assert result.output.strip() == ""


def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path) -> None:
    """stdout closed by its reader, as `head` does: exit code 1 and nothing on stderr."""
    path = write_config(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "fzgw", "check", str(path), "--json"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (
            fzgw.config.ConfigErrors([fzgw.config.ConfigProblem("a.toml", 3, "nat.mode", "no")]),
            3,
            "a.toml:3: nat.mode: no",
        ),
        (HandlerError("handler a.py:b: is missing"), 3, "handler a.py:b: is missing"),
        (_core.StartError("UDP port 51820 is in use"), 1, "UDP port 51820 is in use"),
        (PrivilegeError("open /dev/net/tun"), 4, "CAP_NET_ADMIN"),
        (HostError("no nft"), 1, "no nft"),
        (SinkError("no stdout"), 1, "no stdout"),
        (FileNotFoundError(2, "No such file or directory", "x.conf"), 1, "x.conf: No such file or directory"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_kind_of_failure_has_its_exit_code(error: Exception, exit_code: int, message: str) -> None:
    """Configuration is 3, privilege 4 with the two ways out, every other failure 1, each with its message."""
    failure = failure_of(error)
    assert failure is not None
    assert failure.exit_code == exit_code
    assert message in failure.message


def test_a_start_without_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core's word for it is exit code 4, with the ways out that the host's setup names too."""

    class NoPrivilegeError(Exception):
        """Only the core can make a StartError of this kind."""

        kind = "privilege"

    monkeypatch.setattr(_core, "StartError", NoPrivilegeError)
    failure = failure_of(NoPrivilegeError("/dev/net/tun may not be opened"))
    assert failure is not None
    assert failure.exit_code == 4
    assert failure.message == f"/dev/net/tun may not be opened; {PRIVILEGE_FIX}"


def test_a_bug_keeps_its_traceback() -> None:
    """What nobody expects is not dressed up as somebody else's mistake."""
    assert failure_of(ZeroDivisionError("1/0")) is None
